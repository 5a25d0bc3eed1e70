"""What TensorBoard would show of a folder."""


def shown_curve(folder, tag):
    """`[(step, value)]` of a tag; steps that were done again count once."""
    import tensorflow as tf
    from tensorboard.backend.event_processing import plugin_event_accumulator

    events = plugin_event_accumulator.EventAccumulator(str(folder))
    events.Reload()
    return [
        (event.step, float(tf.make_ndarray(event.tensor_proto)))
        for event in events.Tensors(tag)
    ]


def read_scalars(folder):
    """`{tag: {step: value}}` of the event files in a folder."""
    import tensorflow as tf

    found = {}
    for path in sorted(folder.glob("*.tfevents.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, {})[event.step] = number
    return found

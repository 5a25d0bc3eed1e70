"""What TensorBoard would show of a folder."""


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

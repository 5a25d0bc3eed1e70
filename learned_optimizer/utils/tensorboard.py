"""TensorBoard's event files of runs that are killed and go on."""

import time

import tensorflow as tf


def purge_events_after(writer: tf.summary.SummaryWriter, step: int) -> None:
    """Has TensorBoard drop the events of `step` and later in a folder's other files.

    Those steps are done again: their curves would run twice.
    """
    # `tf.summary` has no function that writes what older writers of TensorFlow did at
    # each start, and what readers of their files go by.
    start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    event = tf.compat.v1.Event(wall_time=time.time(), step=step, session_log=start)
    tf.raw_ops.ImportEvent(writer=writer._resource, event=event.SerializeToString())

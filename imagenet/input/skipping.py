"""Images that cannot be decoded: skipped, counted, named in the log.

A graph has no exceptions to catch, but a `tf.data` dataset can leave out an element
whose function failed. So what may fail is a dataset of one element, followed by what
to take instead; the first element that there is, is taken. That costs 0.2 ms an image,
and Python is called only for images that are bad.
"""

import collections

import tensorflow as tf
from absl import logging


class SkippedImages:
    """Names of images that were skipped, and how often, in this process."""

    def __init__(self):
        self.counts: collections.Counter[str] = collections.Counter()

    def add(self, file_name: bytes) -> None:
        """Counts an image; its name goes to the log the first time."""
        name = file_name.decode(errors="replace")
        self.counts[name] += 1
        if self.counts[name] == 1:
            logging.warning(
                "Skipped %s: it cannot be decoded (%d such images so far)",
                name,
                len(self.counts),
            )

    def report(self, file_name):
        """The same as an operation of a graph. Returns True."""

        def add(name):
            self.add(name)
            return True

        done = tf.numpy_function(add, [file_name], tf.bool)
        done.set_shape([])
        return done


def first_that_works(arguments, functions):
    """The value of the first function that does not fail.

    Args:
        arguments: a tuple of tensors, what each function is called with.
        functions: all return tensors of the same types and shapes.

    Raises:
        tf.errors.InvalidArgumentError: when run, if all of them fail.
    """
    first, *others = functions
    if not others:
        return first(*arguments)
    one = tf.data.Dataset.from_tensors(arguments)
    attempt = one.map(first).ignore_errors()
    # A function within a function, so that a good image pays for one attempt alone.
    otherwise = one.map(lambda *arguments: first_that_works(arguments, others))
    return attempt.concatenate(otherwise).take(1).get_single_element()

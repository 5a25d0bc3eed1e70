"""The architecture, in a `tf.train.Checkpoint`.

Such a checkpoint holds arrays by where they belong, and two architectures may have
arrays of equal shapes: a state would go on under other rules without a word.
TensorFlow restores Python objects before the first array, so that a refused checkpoint
leaves the optimizer as it was.
"""

import json

import tensorflow as tf

from learned_optimizer.keras_step.state_description import read_config, weights_hint
from learned_optimizer.rule.config import Config


class CheckpointConfig(tf.train.experimental.PythonState):
    """What a checkpoint says, and compares, of an optimizer's architecture.

    Attributes:
        config: The architecture.
    """

    def __init__(self, config: Config):
        self.config = config

    def serialize(self) -> bytes:
        return json.dumps(self.config.to_dict()).encode()

    def deserialize(self, string_value):
        """Compares.

        Raises:
            ValueError: The checkpoint is of another architecture.
        """
        # What was saved before a switch existed has it off.
        saved = read_config(json.loads(string_value)).to_dict()
        if saved != self.config.to_dict():
            raise ValueError(
                "A checkpoint is restored into an optimizer that has the architecture "
                f"of the saved one: {self.config.to_dict()}. Received: {saved}"
                + weights_hint(saved)
            )

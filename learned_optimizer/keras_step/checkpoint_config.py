"""The architecture, in a `tf.train.Checkpoint`.

Such a checkpoint holds arrays by where they belong, and two architectures may have
arrays of equal shapes: a state would go on under other rules without a word.
TensorFlow restores Python objects before the first array, so that a refused checkpoint
leaves the optimizer as it was.
"""

import json
import weakref

import tensorflow as tf

from learned_optimizer.keras_step.state_description import read_config, weights_hint
from learned_optimizer.rule.config import Config

# Among the fields of the architecture.
_TOTAL_STEPS = "total_steps"


class CheckpointConfig(tf.train.experimental.PythonState):
    """What a checkpoint says, and compares, of an optimizer's architecture.

    Of a `HierarchicalRNN`, if there is one, `total_steps` is saved too, where it is
    known. The reference to it is weak, or it would be tracked by itself.
    """

    def __init__(self, config: Config, optimizer=None):
        self.config = config
        self.optimizer = optimizer and weakref.ref(optimizer)

    def serialize(self) -> bytes:
        values = self.config.to_dict()
        if self.optimizer and self.optimizer().total_steps:
            values[_TOTAL_STEPS] = self.optimizer().total_steps
        return json.dumps(values).encode()

    def deserialize(self, string_value):
        """Refuses a checkpoint of another architecture."""
        values = json.loads(string_value)
        total_steps = values.pop(_TOTAL_STEPS, None)
        # What was saved before a switch existed has it off.
        saved = read_config(values).to_dict()
        if saved != self.config.to_dict():
            raise ValueError(
                "A checkpoint is restored into an optimizer that has the architecture "
                f"of the saved one: {self.config.to_dict()}. Received: {saved}"
                + weights_hint(saved)
            )
        if self.optimizer:
            self.optimizer().load_total_steps(total_steps)

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

# Among the fields of the architecture.
_TOTAL_STEPS = "total_steps"


class CheckpointConfig(tf.train.experimental.PythonState):
    """What a checkpoint says, and compares, of an optimizer's architecture.

    Attributes:
        config: The architecture.
        optimizer: Whose `total_steps` is saved too, where it is known.
    """

    def __init__(self, optimizer):
        self.config = optimizer.config
        # Not the optimizer itself, which would be tracked.
        self._optimizer = weakref.ref(optimizer)

    def serialize(self) -> bytes:
        values = self.config.to_dict()
        total_steps = self._optimizer().total_steps
        if total_steps:
            values[_TOTAL_STEPS] = total_steps
        return json.dumps(values).encode()

    def deserialize(self, string_value):
        """Compares.

        Raises:
            ValueError: The checkpoint is of another architecture.
        """
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
        self._optimizer().load_total_steps(total_steps)

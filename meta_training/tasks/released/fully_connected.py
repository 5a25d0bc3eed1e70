"""The released multilayer perceptrons (`FullyConnected`)."""

import dataclasses

from learned_optimizer.utils.flags import setting
from meta_training.tasks.released import datasets
from meta_training.tasks.released.classifier import ReleasedClassifier
from meta_training.tasks.small_networks import layers


@dataclasses.dataclass(frozen=True)
class FullyConnected(ReleasedClassifier):
    """A perceptron on N(0, 1) data labelled by a random network, as released.

    The start is N(0, 1.2^2 / first dimension) for kernels and biases alike, and the
    activation of the released sets is the sigmoid. Two classes are labelled by
    `datasets.random_mlp`, more by `datasets.random_classification`.

    Attributes:
        features: columns of the data.
        hidden_sizes: units of each hidden layer.
        classes: outputs. Defaults to 2.
        rows: rows of data. Defaults to 1,000.
    """

    features: int
    hidden_sizes: tuple[int, ...]
    classes: int = 2
    activation: str = setting("sigmoid", "Of all.", choices=layers.ACTIVATIONS)
    rows: int = 1000

    @property
    def parameter_shapes(self):
        sizes = (self.features, *self.hidden_sizes, self.classes)
        return layers.dense_shapes(sizes)

    def sample_instance(self, generator):
        random_state = datasets.legacy_random_state(generator)
        shape = (self.features, self.rows)
        if self.classes == 2:
            dataset = datasets.random_mlp(*shape, random_state)
        else:
            dataset = datasets.random_classification(*shape, random_state, self.classes)
        return dataset._asdict()

    def logits(self, parameters, data):
        activation = layers.activation_function(self.activation)
        return layers.perceptron(parameters, data, activation)

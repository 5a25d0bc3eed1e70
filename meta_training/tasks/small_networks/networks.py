"""What the small networks have in common.

They are there so that the optimizer generalises to networks: minibatches, several
activations and initialisations, several kinds of data. Activation, initialisation
and data are numbers to a computation, so that one `batch_key` has many tasks.
"""

import abc
import dataclasses
import functools
from typing import ClassVar

from learned_optimizer.utils.flags import setting
from meta_training.tasks.base import Task
from meta_training.tasks.small_networks import layers, random_data


@dataclasses.dataclass(frozen=True)
class Network(Task):
    """A network on random data; instances hold `data`, `labels`, `activation`.

    Attributes:
        rows: rows of data. Defaults to 2,048.
        batch_size: defaults to 32.
    """

    _: dataclasses.KW_ONLY
    activation: str = setting("relu", "Of all.", choices=layers.ACTIVATIONS)
    initialisation: str = setting(
        "glorot_uniform",
        "Of kernels; biases start at 0.",
        choices=layers.INITIALISATIONS,
    )
    rows: int = 2048
    batch_size: int | None = 32

    row_arrays: ClassVar[tuple[str, ...]] = ("data", "labels")
    numbers: ClassVar[tuple[str, ...]] = ("activation", "initialisation")

    @abc.abstractmethod
    def sample_data(self, generator):
        """Draws data and labels (or targets), both with `rows` rows."""

    @abc.abstractmethod
    def outputs(self, parameters, data, activate, batch_normalise):
        """The `[tasks, rows, outputs]` of the network.

        `activate` is a function, `batch_normalise` a `layers.BatchNormalisation`.
        """

    @abc.abstractmethod
    def loss(self, outputs, instance):
        """The `[tasks]` losses of the network's outputs."""

    def sample_instance(self, generator):
        data, labels = self.sample_data(generator)
        coefficients = layers.activation_coefficients(self.activation)
        return {"data": data, "labels": labels, "activation": coefficients}

    def sample_parameters(self, generator):
        return [
            layers.initialise(shape, self.initialisation, generator)
            for shape in self.parameter_shapes
        ]

    def activation_of(self, instance):
        """The function that `outputs` activates by."""
        return functools.partial(layers.activate, coefficients=instance["activation"])

    def predict(self, parameters, instance, averages=None):
        """The network's `[tasks, rows, outputs]` on the data of an instance.

        Batch normalisation goes by `averages`, or by the rows themselves.
        """
        return self._predict(parameters, instance, layers.BatchNormalisation(averages))

    def _predict(self, parameters, instance, batch_normalise):
        activate = self.activation_of(instance)
        return self.outputs(parameters, instance["data"], activate, batch_normalise)

    def objective(self, parameters, instance):
        return self.loss(self.predict(parameters, instance), instance)

    def objective_and_statistics(self, parameters, instance, averages=None):
        batch_normalise = layers.BatchNormalisation(averages)
        outputs = self._predict(parameters, instance, batch_normalise)
        return self.loss(outputs, instance), batch_normalise.statistics


@dataclasses.dataclass(frozen=True)
class ClassifierNetwork(Network):
    """A network that minimises the mean softmax cross-entropy."""

    _: dataclasses.KW_ONLY
    label_noise: float = setting(
        0.0, "Fraction of the labels that are drawn at random.", at_least=0, at_most=1
    )

    numbers: ClassVar[tuple[str, ...]] = (*Network.numbers, "label_noise")

    def sample_instance(self, generator):
        instance = super().sample_instance(generator)
        instance["labels"] = random_data.with_label_noise(
            generator, instance["labels"], self.classes, self.label_noise
        )
        return instance

    def loss(self, outputs, instance):
        return layers.cross_entropy(outputs, instance["labels"])

    def accuracy(self, parameters, instance, averages=None):
        """The `[tasks]` fraction of rows that are classified correctly."""
        logits = self.predict(parameters, instance, averages)
        return layers.fraction_correct(logits, instance["labels"])

"""Held-out networks: `validation` and `test` choose, `final` evaluates what ships.

`validation` chooses checkpoints while weights are meta-trained, `test` evaluates
weights that ship. It was opened six times while `default-v2` was made, so its figures
flatter a little. The groups share no data, no shape and no start with each other or
with any task set, and they are not in the registry of task sets: no command line can
train on them by name.
"""

from meta_training.held_out.architectures import (
    HeldOutAutoencoder,
    HeldOutGatedRecurrentNetwork,
    HeldOutImageNetwork,
    HeldOutPerceptron,
)
from meta_training.held_out.data import FIGURES
from meta_training.held_out.final import final
from meta_training.tasks.base import Task, require_member


def _validation() -> list[Task]:
    """ReLU, tanh with layer norm, convolutions, an autoencoder, and a large one.

    The large one has a million parameters in 26 tensors.
    """
    return [
        HeldOutPerceptron(
            30,
            (44, 28),
            2,
            title="ReLU perceptron on breast cancer",
            data_set="breast_cancer",
            activation="relu",
            initialisation="he_normal",
            batch_size=24,
        ),
        HeldOutPerceptron(
            3,
            (40, 40, 40),
            6,
            "layer",
            title="Layer-normalised tanh perceptron on spirals",
            data_set="spirals",
            activation="tanh",
            batch_size=40,
        ),
        HeldOutImageNetwork(
            (16, 16, 1),
            (6, 12, 18),
            FIGURES,
            "pool",
            title="Convolutional network on drawings",
            data_set="drawings",
            activation="relu",
            batch_size=20,
        ),
        HeldOutAutoencoder(
            100,
            (36, 14, 36),
            title="Autoencoder of drawings",
            data_set="drawings_as_targets",
            activation="tanh",
            batch_size=40,
        ),
        HeldOutPerceptron(
            400,
            (352,) * 8,
            FIGURES,
            "batch",
            title="Large batch-normalised perceptron",
            data_set="flat_drawings",
            activation="relu",
            initialisation="he_normal",
            batch_size=48,
        ),
    ]


def _test() -> list[Task]:
    """Five kinds of network on scikit-learn's digits."""
    return [
        HeldOutPerceptron(
            64,
            (128, 64),
            10,
            title="ReLU perceptron",
            data_set="digits",
            activation="relu",
            initialisation="he_normal",
        ),
        HeldOutPerceptron(
            64,
            (64, 48, 32),
            10,
            title="Deep sigmoid perceptron",
            data_set="digits",
            activation="sigmoid",
        ),
        HeldOutImageNetwork(
            (8, 8, 1),
            (8, 16),
            10,
            "pool",
            title="Convolutional network",
            data_set="digit_images",
            activation="relu",
        ),
        HeldOutAutoencoder(
            64,
            (50, 10, 50),
            title="Autoencoder",
            data_set="digits_as_targets",
            activation="relu",
        ),
        HeldOutGatedRecurrentNetwork(
            8,
            8,
            28,
            10,
            title="Gated recurrent network",
            data_set="digit_rows",
            activation="tanh",
        ),
    ]


_GROUPS = {"validation": _validation, "test": _test, "final": final}


def network_group(name: str) -> list[Task]:
    """The held-out networks of that name, `validation`, `test` or `final`.

    Raises:
        ValueError: no group has that name.
    """
    require_member("network group", name, _GROUPS)
    return _GROUPS[name]()


def list_network_groups() -> list[str]:
    """The names of the groups, sorted."""
    return sorted(_GROUPS)

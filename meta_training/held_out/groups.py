"""Held-out networks: `validation` and `test` choose, `final` evaluates what ships.

`validation` chooses checkpoints while weights are meta-trained, `test` evaluates
weights that ship. It was opened six times while `default-v2` was made, so its figures
flatter a little. `final` evaluates weights that are to ship, once each; nothing is
chosen by it, and `publish` opens it. It has other data than the two: MNIST, a text that
Python ships, and a table of scikit-learn that nothing else here uses.

The groups share no data, no shape and no start with each other or with any task set,
and they are not in the registry of task sets: no command line can train on them by
name.
"""

from learned_optimizer.utils.flags import require_member
from meta_training.held_out.architectures import (
    HeldOutAttention,
    HeldOutAutoencoder,
    HeldOutGatedRecurrentNetwork,
    HeldOutImageNetwork,
    HeldOutPerceptron,
    HeldOutRegression,
    HeldOutResidualPerceptron,
    LeNet,
    VariationalAutoencoder,
)
from meta_training.held_out.data import (
    FIGURES,
    TEXT_CHARACTERS,
    TEXT_WINDOW,
    VAE_LATENT,
)
from meta_training.tasks.base import Task

_RELU = {"activation": "relu"}
_HE_RELU = {**_RELU, "initialisation": "he_normal"}
_TANH = {"activation": "tanh"}


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
            batch_size=24,
            **_HE_RELU,
        ),
        HeldOutPerceptron(
            3,
            (40, 40, 40),
            6,
            "layer",
            title="Layer-normalised tanh perceptron on spirals",
            data_set="spirals",
            batch_size=40,
            **_TANH,
        ),
        HeldOutImageNetwork(
            (16, 16, 1),
            (6, 12, 18),
            FIGURES,
            "pool",
            title="Convolutional network on drawings",
            data_set="drawings",
            batch_size=20,
            **_RELU,
        ),
        HeldOutAutoencoder(
            100,
            (36, 14, 36),
            title="Autoencoder of drawings",
            data_set="drawings_as_targets",
            batch_size=40,
            **_TANH,
        ),
        HeldOutPerceptron(
            400,
            (352,) * 8,
            FIGURES,
            "batch",
            title="Large batch-normalised perceptron",
            data_set="flat_drawings",
            batch_size=48,
            **_HE_RELU,
        ),
    ]


def _test() -> list[Task]:
    """Five kinds of network on scikit-learn's digits."""
    return [
        HeldOutPerceptron(
            64, (128, 64), 10, title="ReLU perceptron", data_set="digits", **_HE_RELU
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
            **_RELU,
        ),
        HeldOutAutoencoder(
            64,
            (50, 10, 50),
            title="Autoencoder",
            data_set="digits_as_targets",
            **_RELU,
        ),
        HeldOutGatedRecurrentNetwork(
            8,
            8,
            28,
            10,
            title="Gated recurrent network",
            data_set="digit_rows",
            **_TANH,
        ),
    ]


def _final() -> list[Task]:
    """Seven kinds of network; losses of the first 2,000 rows where there are more."""
    recorded = {"recorded_rows": 2000}
    return [
        LeNet(title="LeNet on MNIST", data_set="mnist_images", **_HE_RELU, **recorded),
        LeNet(
            title="LeNet on 2,000 images of MNIST",
            data_set="mnist_images_2000",
            **_HE_RELU,
            **recorded,
        ),
        HeldOutPerceptron(
            784,
            (1024,),
            10,
            title="Wide ReLU perceptron on MNIST",
            data_set="mnist",
            **_HE_RELU,
            **recorded,
        ),
        HeldOutResidualPerceptron(
            784,
            64,
            6,
            10,
            title="Residual perceptron on MNIST",
            data_set="mnist",
            **_HE_RELU,
            **recorded,
        ),
        HeldOutAttention(
            28,
            28,
            32,
            10,
            4,
            blocks=2,
            positions=True,
            title="Attention over rows of MNIST",
            data_set="mnist_rows",
            activation="gelu",
            **recorded,
        ),
        VariationalAutoencoder(
            784,
            200,
            VAE_LATENT,
            title="Variational autoencoder of MNIST",
            data_set="mnist_and_noise",
            **_RELU,
            **recorded,
        ),
        HeldOutGatedRecurrentNetwork(
            TEXT_WINDOW,
            TEXT_CHARACTERS,
            64,
            TEXT_CHARACTERS,
            title="Gated recurrent network on text",
            data_set="text",
            **_TANH,
            **recorded,
        ),
        HeldOutRegression(
            10,
            (48, 24),
            title="Regression of diabetes with heavy-tailed noise",
            data_set="diabetes",
            **_TANH,
        ),
    ]


_GROUPS = {"validation": _validation, "test": _test, "final": _final}


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

"""The networks of the ImageNet experiments, from `keras.applications`.

The paper trains Inception V3 and ResNet V2. Keras's Inception V3 has no auxiliary
head, so there is none here. No TensorFlow is imported: the JAX program uses the same
networks.
"""

import dataclasses
from collections.abc import Callable

import keras

from learned_optimizer.utils.flags import require_member

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A network that can be trained.

    Attributes:
        constructor: Its function in `keras.applications`, or one that takes the same
            `weights`, `classes`, `input_shape` and `classifier_activation` and wants
            pixels from -1 to 1.
        image_size: Height and width in pixels that it was made for.
        smallest_image_size: The least that it can take.
    """

    constructor: Callable
    image_size: int
    smallest_image_size: int


def narrow_resnet(**arguments) -> keras.Model:
    """ResNet50V2 with an eighth of the filters: as deep, and quick to try."""
    model = keras.applications.ResNet50V2(**arguments)

    def narrow(config):
        config["filters"] //= 8

    return _changed(model, keras.layers.Conv2D, narrow)


def _changed(model, layer_class, change):
    """The same network with other settings of some layers, and fresh weights."""

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, layer_class):
            change(config)
        return layer.__class__.from_config(config)

    return keras.models.clone_model(model, clone_function=clone)


MODELS = {
    "inception_v3": ModelSpec(keras.applications.InceptionV3, 299, 75),
    "resnet_v2_50": ModelSpec(keras.applications.ResNet50V2, 224, 32),
    "resnet_v2_50_narrow": ModelSpec(narrow_resnet, 224, 32),
    "resnet_v2_101": ModelSpec(keras.applications.ResNet101V2, 224, 32),
    "resnet_v2_152": ModelSpec(keras.applications.ResNet152V2, 224, 32),
}


def checked_image_size(name: str, image_size: int | None) -> int:
    """An image size that the network can take; None: the one it was made for.

    Raises:
        ValueError: It is too small, or there is no such network.
    """
    require_member("model", name, MODELS)
    spec = MODELS[name]
    if image_size is None:
        return spec.image_size
    if image_size < spec.smallest_image_size:
        raise ValueError(
            f"{name} must have {spec.smallest_image_size} pixels a side or more. "
            f"Received: {image_size}"
        )
    return image_size


def build_model(
    name: str,
    num_classes: int,
    image_size: int | None = None,
    precision: str = "float32",
    synchronized_batch_normalization: bool = False,
    seed: int | None = None,
) -> keras.Model:
    """A network with fresh weights, a key of `MODELS`, that returns logits.

    It goes from `[batch, image_size, image_size, 3]` to `[batch, num_classes]`. Without
    an image size it has the usual one. The precision is a policy of Keras, one of
    `PRECISIONS`; logits are float32 always. Synchronized batch statistics are taken
    over all replicas together, so that they do not depend on how many there are.

    Raises:
        ValueError: An argument breaks a rule.
    """
    image_size = checked_image_size(name, image_size)
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more. Received: {num_classes}")
    if seed is not None:
        keras.utils.set_random_seed(seed)
    before = keras.config.dtype_policy()
    # The constructors of keras.applications take no dtype.
    keras.config.set_dtype_policy(precision)
    try:
        model = MODELS[name].constructor(
            weights=None,
            classes=num_classes,
            input_shape=(image_size, image_size, 3),
            classifier_activation=None,
        )
        if synchronized_batch_normalization:
            model = _changed(
                model,
                keras.layers.BatchNormalization,
                lambda config: config.update(synchronized=True),
            )
    finally:
        keras.config.set_dtype_policy(before)
    if precision == "float32":
        return model
    return _with_float32_logits(model)


def _with_float32_logits(model):
    """The same network, the last layer of which computes in float32.

    Logits that were rounded to 8 bits have many ties, which no ranking can tell apart.
    """
    last = model.layers[-1]
    precise = last.__class__.from_config({**last.get_config(), "dtype": "float32"})
    logits = precise(last.input)
    precise.set_weights(last.get_weights())
    return keras.Model(model.inputs[0], logits, name=model.name)

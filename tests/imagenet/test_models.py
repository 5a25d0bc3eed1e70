"""The networks: their sizes, what they return, and what is refused."""

import keras
import ml_dtypes
import numpy as np
import pytest

from imagenet.input import augmentation
from imagenet.models import MODELS, build_model, checked_image_size
from tests.arrays import assert_equal
from tests.conftest import slow

# Parameters with 1,000 classes, usual and smallest image: from the table of
# keras.io/api/applications and the documentation of the models; parameters are in
# millions there, exact here.
NETWORKS = {
    "inception_v3": (23_851_784, 299, 75),
    "resnet_v2_50": (25_613_800, 224, 32),
    "resnet_v2_50_narrow": (None, 224, 32),
    "resnet_v2_101": (44_675_560, 224, 32),
    "resnet_v2_152": (60_380_648, 224, 32),
}


@pytest.mark.parametrize(
    "name", [name if "v2_50" in name else slow(name) for name in NETWORKS]
)
def test_networks_have_the_size_they_are_known_for(name):
    parameters, usual, smallest = NETWORKS[name]
    if parameters:
        model = build_model(name, 1000)
        assert model.count_params() == parameters
        assert model.input_shape == (None, usual, usual, 3)
        assert model.output_shape == (None, 1000)
    assert checked_image_size(name, None) == usual
    # Keras's own networks say which is the smallest image.
    with pytest.raises(ValueError, match=f"{smallest} pixels a side or more"):
        checked_image_size(name, smallest - 1)
    assert build_model(name, 2, smallest).output_shape == (None, 2)


def test_every_network_is_known():
    assert set(MODELS) - {"tiny", "plain"} == set(NETWORKS)


def test_the_narrow_network_is_as_deep_as_the_whole_one():
    narrow = build_model("resnet_v2_50_narrow", 100, 48)
    whole = keras.applications.ResNet50V2(weights=None, input_shape=(48, 48, 3))
    assert len(narrow.layers) == len(whole.layers)
    assert len(narrow.trainable_variables) == len(whole.trainable_variables) == 174
    kernels = [
        [v.shape for v in model.trainable_variables if v.name == "kernel"][:-1]
        for model in (narrow, whole)
    ]
    for small, large in zip(*kernels, strict=True):
        assert small[:2] == large[:2] and 8 * small[3] == large[3]
    assert narrow.count_params() < whole.count_params() / 50


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_logits_are_float32_and_are_no_probabilities(precision):
    model = build_model("resnet_v2_50", 5, 32, precision, seed=3)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    logits = np.array(model(images))
    assert logits.dtype == np.float32
    assert not np.allclose(logits.sum(-1), 1.0)
    kernel = model.trainable_variables[0]
    assert kernel.dtype == "float32"
    # Computed in float32, not only cast: rounded to 8 bits there would be ties.
    assert model.layers[-1].compute_dtype == "float32"
    if precision != "float32":
        assert np.any(logits != logits.astype(ml_dtypes.bfloat16).astype(np.float32))
    layer = model.get_layer("conv1_conv")
    assert layer.compute_dtype == precision.removeprefix("mixed_")


@pytest.mark.parametrize(
    "module", [keras.applications.inception_v3, keras.applications.resnet_v2]
)
def test_pixels_are_scaled_as_keras_does(module):
    pixels = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1).repeat(3, -1)
    mine = augmentation.scale(pixels)
    theirs = module.preprocess_input(pixels.copy(), data_format="channels_last")
    np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert (mine.min(), mine.max()) == (-1.0, 1.0)


def test_the_seed_decides_the_initial_weights():
    first, again, other = (
        build_model("resnet_v2_50", 5, 32, precision, seed=seed)
        for seed, precision in ((1, "float32"), (1, "mixed_bfloat16"), (2, "float32"))
    )
    assert_equal(first.get_weights(), again.get_weights())
    kernels = [np.array(model.trainable_variables[0]) for model in (first, other)]
    assert np.any(kernels[0] != kernels[1])


@pytest.mark.parametrize("synchronized", [False, True])
def test_batch_statistics_can_be_synchronized(synchronized):
    changes = {"synchronized_batch_normalization": synchronized}
    layers = build_model("resnet_v2_50", 5, 32, **changes).layers
    found = {v.synchronized for v in layers if hasattr(v, "synchronized")}
    assert found == {synchronized}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vgg", {}, "model must be one of"),
        ("inception_v3", {"image_size": 74}, "75 pixels a side or more. Received: 74"),
        ("resnet_v2_50", {"num_classes": 1}, "num_classes must be 2 or more"),
        ("resnet_v2_50", {"precision": "half"}, "half"),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, **{"num_classes": 10, **arguments})

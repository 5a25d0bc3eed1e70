"""A wheel built from the tree holds all that a user needs, away from the checkout."""

import pathlib
import shutil

import pytest

from tests.conftest import output_of

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("learned_optimizer", "meta_training", "imagenet")
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", *PACKAGES)

# Runs outside the checkout, with the installed wheel alone ahead on the path.
USE_IT = """
import pathlib, sys
import keras, numpy as np
import learned_optimizer
from learned_optimizer import HierarchicalRNN

target = pathlib.Path(sys.argv[1]).resolve()
module = pathlib.Path(learned_optimizer.__file__).resolve()
assert target in module.parents, f"imported from {module}, not from {target}"
assert learned_optimizer.list_weights(), "the wheel holds no weights"

model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
model.compile(optimizer=HierarchicalRNN(), loss="mse")
before = model.get_weights()
model.fit(np.ones((4, 3)), np.ones((4, 2)), batch_size=4, verbose=0)
for old, new in zip(before, model.get_weights()):
    assert np.isfinite(new).all(), new
    assert not np.allclose(old, new, rtol=0, atol=1e-7), "a variable did not move"
print("version", learned_optimizer.__version__)
"""


PIP = ("-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that no stale `build/` can lend it files."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=ignored)
        elif path.exists():
            shutil.copy(path, source / name)
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    output_of(*PIP, "wheel", *options, "--wheel-dir", folder, source, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_works_outside_the_checkout(wheel, tmp_path):
    target = tmp_path / "target"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    output_of(*PIP, "install", "--no-deps", "--no-index", "--target", target, wheel)
    output = output_of("-c", USE_IT, target, cwd=elsewhere, PYTHONPATH=str(target))
    assert "version " in output


def test_wheel_holds_the_packages_and_nothing_else(wheel, tmp_path):
    shutil.unpack_archive(wheel, tmp_path, format="zip")
    top = {path.name for path in tmp_path.iterdir()}
    (metadata,) = tmp_path.glob("*.dist-info")
    assert top == {*PACKAGES, metadata.name}
    assert list(metadata.rglob("LICENSE"))
    for path in (ROOT / "learned_optimizer" / "weights").iterdir():
        copy = tmp_path / "learned_optimizer" / "weights" / path.name
        assert copy.read_bytes() == path.read_bytes(), path.name

"""Packaging of the learned optimizer: `pip install .`, extras as in the README."""

import ast
import pathlib

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent


def read_version():
    """`__version__` of learned_optimizer, read from its source.

    Importing the package would need Keras, which is not there yet when pip asks.
    """
    source = (HERE / "learned_optimizer" / "__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__version__"
            for target in node.targets
        ):
            return ast.literal_eval(node.value)
    raise RuntimeError(
        "learned_optimizer/__init__.py must assign a string to `__version__` at its "
        "top level. Received: no such assignment."
    )


PACKAGES = ["learned_optimizer", "meta_training", "imagenet"]

EXTRAS = {
    # Training on ImageNet, and its figures. TFDS 4.9.10 needs importlib_resources
    # and does not say so; TensorFlow 2.21 brings no tensorboard, without which
    # `tf.summary` writes nothing.
    "imagenet": [
        "filelock>=4",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources",
        "matplotlib",
        "pillow",
        "tensorboard",
        "tqdm",
    ],
    # TensorFlow Model Garden: it holds TensorFlow at 2.20, and its import fails on
    # Python 3.12 with setuptools 82 and later, which has no pkg_resources.
    "models": [
        "tf-models-official==2.20.*",
        "setuptools<82",
    ],
    # Meta-training, its evaluation and figures, with tensorboard as above.
    "meta": [
        "filelock>=4",
        "tensorboard",
        "matplotlib",
        "scikit-learn",
        "tqdm",
        "cma>=4.0",
    ],
    # The tests build a wheel with the setuptools of this environment; from 70.1 it
    # does so without the package `wheel`, from 77 it knows SPDX license names.
    "test": [
        "hypothesis",
        "pytest>=8.2",
        "pytest-split",
        "pytest-timeout",
        "pytest-xdist",
        "ruff",
        "scikit-learn",
        "setuptools>=77,<82",
    ],
    # The pages and the API reference as one site.
    "docs": [
        "mkdocs",
        "mkdocstrings-python>=2",
        "pymdown-extensions",
    ],
    # Keras backends other than TensorFlow.
    "backends": [
        "jax",
        "torch",
    ],
}
# Everything but `backends`, which adds nothing to TensorFlow and takes gigabytes.
EXTRAS["all"] = sorted(
    {
        requirement
        for extra, requirements in EXTRAS.items()
        if extra != "backends"
        for requirement in requirements
    }
)

setup(
    name="hierarchical-rnn-optimizer",
    version=read_version(),
    description=(
        "HierarchicalRNN: a learned optimizer (Wichrowska et al., ICML 2017) for Keras"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=[*PACKAGES, *(f"{name}.*" for name in PACKAGES)]),
    # An editable install then puts the checkout itself on the path, so that a package
    # added to it later is found without installing again.
    package_dir={"": "."},
    package_data={
        "learned_optimizer": ["weights/*.npz", "weights/*.json", "weights/*.csv"]
    },
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.20,<2.22",
        "keras>=3.14",
        "numpy",
        "absl-py>=1.4",
    ],
    extras_require=EXTRAS,
    zip_safe=False,
    keywords="learned optimizer, meta-learning, learning to learn, keras, tensorflow",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)

"""The plugin is registered, read from YAML, and refuses what is wrong, with reasons."""

import json

import pytest

from learned_optimizer import Config, fresh_weights, save_weights
from tests.conftest import installed, output_of, run_python
from tests.learned_optimizer.garden import build, needs_model_garden, optimizer_of


@pytest.mark.slow
def test_without_the_extra_only_the_plugin_fails_and_says_what_to_install():
    code = """
import sys
sys.modules["official"] = None
import learned_optimizer
assert "tf_keras" not in sys.modules
import learned_optimizer.model_garden
"""
    child = run_python("-c", code)
    assert child.returncode == 1
    last = child.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "pip install hierarchical-rnn-optimizer[models]" in last


@pytest.mark.slow
@pytest.mark.skipif(not installed("jax"), reason="JAX is not installed")
def test_another_backend_than_tensorflow_is_refused():
    code = "import learned_optimizer.model_garden"
    child = run_python("-c", code, KERAS_BACKEND="jax")
    assert child.returncode == 1
    assert "set KERAS_BACKEND=tensorflow. Received: 'jax'" in child.stderr


@needs_model_garden
def test_registration_adds_one_optimizer_and_changes_no_other():
    code = """
import dataclasses, json, sys
import learned_optimizer
assert not {"official", "tf_keras"} & set(sys.modules)
from official.modeling import optimization
from official.modeling.optimization.configs import optimization_config


@dataclasses.dataclass
class Derived(optimization_config.OptimizerConfig):
    mine: int = 1


def found():
    names = [field.name for field in dataclasses.fields(optimization.OptimizerConfig)]
    built = {}
    for name in names[1:]:
        rate = {"type": "constant", "constant": {"learning_rate": 0.5}}
        config = optimization.OptimizationConfig(
            {"optimizer": {"type": name}, "learning_rate": rate}
        )
        factory = optimization.OptimizerFactory(config)
        try:
            optimizer = factory.build_optimizer(0.5)
            optimizer = [type(optimizer).__name__, repr(optimizer.get_config())]
        except Exception as error:
            optimizer = type(error).__name__
        built[name] = [repr(config.as_dict()), optimizer]
    assert Derived({"type": "sgd"}).get() == optimization.SGDConfig()
    same = optimization_config.OptimizerConfig
    assert same(type="adam") == same(type="adam") != same(type="sgd")
    return built


before = found()
import learned_optimizer.model_garden
print(json.dumps([before, found()]))
"""
    before, after = json.loads(output_of("-c", code).strip().splitlines()[-1])
    assert {"sgd", "adam", "lamb"} <= set(before)
    config, optimizer = after.pop("hierarchical_rnn")
    assert before == after
    assert "'weights': 'default'" in config
    assert optimizer[0] == "ModelGardenHierarchicalRNN"


CONFIGS = {
    "nothing": ("{}", {"weights": "default", "seed": None, "name": "hierarchical_rnn"}),
    "a range": ("initial_learning_rate: [1e-4, 0.1]", {}),
    "numbers": (
        "{initial_learning_rate: 1e-3, seed: 3, weight_decay: 0.01, clipnorm: 1.0}",
        {"initial_learning_rate": 1e-3, "seed": 3, "clipnorm": 1.0},
    ),
    "untrained": ("weights: null", {"weights": None}),
    "names": (
        "{weights: bootstrap-v1, exclude_from_weight_decay: [bias, beta]}",
        {"exclude_from_weight_decay": ["bias", "beta"]},
    ),
}


@needs_model_garden
@pytest.mark.parametrize("name", CONFIGS)
def test_yaml_there_and_back(tmp_path, name):
    from official.core import exp_factory
    from official.modeling import hyperparams
    from official.vision.configs import image_classification  # noqa: F401

    from learned_optimizer.model_garden import HierarchicalRNNConfig

    text, expected = CONFIGS[name]
    (tmp_path / "given.yaml").write_text(
        "trainer:\n  optimizer_config:\n    optimizer:\n"
        f"      type: hierarchical_rnn\n      hierarchical_rnn:\n        {text}\n"
    )

    def read(path):
        experiment = exp_factory.get_exp_config("resnet_imagenet")
        return hyperparams.override_params_dict(experiment, str(path), is_strict=True)

    experiment = read(tmp_path / "given.yaml")
    config = experiment.trainer.optimizer_config.optimizer.get()
    assert isinstance(config, HierarchicalRNNConfig)
    found = config.as_dict()
    assert found | expected == found
    hyperparams.save_params_dict_to_yaml(experiment, str(tmp_path / "written.yaml"))
    again = read(tmp_path / "written.yaml")
    assert again.as_dict() == experiment.as_dict()
    assert again.trainer.optimizer_config.optimizer.get() == config
    built = build(again.trainer.optimizer_config)
    assert built.get_config()["name"] == "hierarchical_rnn"


@needs_model_garden
def test_a_key_that_there_is_not_is_refused():
    from official.core import exp_factory
    from official.vision.configs import image_classification  # noqa: F401

    import learned_optimizer.model_garden  # noqa: F401

    experiment = exp_factory.get_exp_config("resnet_imagenet")
    optimizer = {"type": "hierarchical_rnn", "hierarchical_rnn": {"weigths": "default"}}
    with pytest.raises(KeyError, match="weigths"):
        experiment.override({"trainer": {"optimizer_config": {"optimizer": optimizer}}})


ERRORS = {
    "unknown weights": (
        {"weights": "no-such"},
        "`weights` must be .* Received: weights='no-such'",
    ),
    "a start that is none": (
        {"initial_learning_rate": -1.0},
        "Received: initial_learning_rate=-1.0",
    ),
    "two ways to clip": ({"clipnorm": 1.0, "clipvalue": 1.0}, "Only one of"),
    "a pattern that is no list": (
        {"exclude_from_weight_decay": "bias"},
        "must be a list.* Received: exclude_from_weight_decay='bias'",
    ),
    "attention": ({"weights": "attention.npz"}, "Weights with attention .*'fresh'"),
}


@needs_model_garden
@pytest.mark.parametrize("name", ERRORS)
def test_errors_come_when_the_optimizer_is_built(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_weights(fresh_weights(Config(attention=True)), "attention.npz")
    arguments, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        optimizer_of(**arguments)

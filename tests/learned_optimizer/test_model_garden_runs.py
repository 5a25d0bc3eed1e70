"""Model Garden's own program trains, evaluates and resumes with the plugin.

What it trains is in `model_garden_runs.py`. Each run has a process of its own.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import two_replicas
from tests.learned_optimizer.garden import needs_model_garden

pytestmark = [needs_model_garden, pytest.mark.slow]

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "model_garden.md"


@pytest.mark.distributed
@pytest.mark.parametrize(
    "strategy_of, options",
    [
        (two_replicas, {"precision": "float16"}),
        (
            lambda: tf.distribute.OneDeviceStrategy("CPU:0"),
            {"ema": {"average_decay": 0.5}},
        ),
    ],
    ids=["two devices, float16", "one device, averages"],
)
def test_resnet_imagenet_trains_evaluates_and_resumes(strategy_of, options, tmp_path):
    from official.modeling import performance

    import learned_optimizer.model_garden  # noqa: F401
    from tests.learned_optimizer.model_garden_runs import Run, write_tfrecords

    write_tfrecords(tmp_path)
    if "precision" in options:
        performance.set_mixed_precision_policy(options["precision"])

    def make(folder):
        keras.utils.set_random_seed(0)
        return Run.make(strategy_of(), tmp_path, tmp_path / folder, **options)

    run = make("run")
    run.train(4)
    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    run.train(12)
    assert run.global_step == run.iterations == 12
    assert run.losses[-1] < 0.2 * run.losses[0]

    assert run.evaluate()["accuracy"] > 0.9

    resumed = make("resumed")
    assert resumed.global_step == resumed.iterations == 4
    resumed.train(12)
    assert resumed.global_step == resumed.iterations == 12
    # Sums over a batch in several threads have no fixed order: what differs by rounding
    # at first is far apart later.
    np.testing.assert_allclose(resumed.losses[0], run.losses[4], rtol=1e-3)
    assert len(resumed.losses) == 8 and resumed.losses[-1] < 0.2 * run.losses[0]


def test_the_documented_command_trains(tmp_path):
    """The command line and the YAML of docs/model_garden.md, made tiny."""
    from tests.learned_optimizer.model_garden_runs import (
        tiny_overrides,
        write_tfrecords,
    )

    write_tfrecords(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (command,) = re.findall(
        r"^python -m official\.vision\.train (.*?)\n```", page, re.DOTALL | re.MULTILINE
    )
    (tmp_path / "hierarchical_rnn.yaml").write_text(text)
    tiny = tiny_overrides(tmp_path, train_steps=4)
    child = subprocess.run(
        f"{sys.executable} -m official.vision.train {command} "
        f"--params_override={json.dumps(json.dumps(tiny))}",
        shell=True,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    model_dir = tmp_path / "runs" / "resnet"
    assert "type: hierarchical_rnn" in (model_dir / "params.yaml").read_text()
    reader = tf.train.load_checkpoint(str(model_dir))
    ending = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert reader.get_tensor(f"optimizer/iter{ending}") == 4
    averages = reader.get_tensor(f"optimizer/gradient_averages_0{ending}")
    assert np.abs(averages).max() > 0

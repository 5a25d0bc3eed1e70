"""The settings of a run: what is refused, what the page says, whose folder it is."""

import dataclasses
import json
import pathlib

import pytest

from imagenet.run.config import RunConfig
from learned_optimizer import fresh_weights, load_weights, save_weights
from learned_optimizer.utils.flags import settings_of
from learned_optimizer.weights import ALIASES
from tests.imagenet.small_runs import settings


def test_what_decides_a_run_is_part_of_its_identity(data_dir, tmp_path):
    """All but what a run may change when it goes on."""
    free = {
        *("data_dir", "model_dir", "train_steps", "epochs", "strategy", "replicas"),
        *("steps_per_loop", "checkpoint_every", "keep_checkpoints", "jit_compile"),
        *("eval_every", "eval_batch_size", "eval_images", "horizon"),
    }
    run = settings(data_dir, tmp_path, optimizer="hierarchical_rnn")
    fields = {field.name for field in dataclasses.fields(run)}
    assert free < fields
    assert set(run.identity()) == fields - free | {"weights_sha256"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vgg"}, "model must be one of"),
        ({"image_size": 15}, "16 pixels a side or more. Received: 15"),
        ({"batch_size": 0}, "batch_size must be .*1 or more. Received: batch_size=0"),
        ({"train_steps": None}, "either train_steps or epochs"),
        ({"epochs": 1.0}, "either train_steps or epochs"),
        ({"label_smoothing": 1.0}, "label_smoothing must be .*below 1"),
        ({"precision": "half"}, "precision must be one of"),
        ({"strategy": "horovod"}, "strategy must be one of"),
        ({"replicas": 2}, "replicas must be None under strategy=one_device"),
        ({"learning_rate": 0.0}, "learning_rate must be .*above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
        ({"weight_decay": -1.0}, "weight_decay must be .*0 or more"),
        ({"eval_every": -1}, "eval_every must be .*0 or more"),
        ({"model_dir": "gs://bucket/run"}, "not of a bucket. .*'gs://bucket/run'"),
        *(
            (
                {"strategy": "parameter_server", name: value},
                f"{name} must be {usual} under strategy=parameter_server",
            )
            for name, value, usual in (
                ("accumulation_steps", 2, 1),
                ("input_shards", 2, None),
                ("jit_compile", True, False),
                ("synchronized_batch_normalization", True, False),
            )
        ),
        (
            {"jit_compile": True, "synchronized_batch_normalization": True},
            "synchronized_batch_normalization must be False under jit_compile",
        ),
        (
            {"train_steps": None, "epochs": float("inf")},
            "epochs must be a finite number",
        ),
        (
            {"dataset": "imagenet2012", "num_images": None},
            "num_classes, num_validation_images must be left out.*'num_classes': 4",
        ),
        ({"dataset": "mnist"}, "num_images, .* must be left out.*'num_images': 40"),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**{"data_dir": "data", "model_dir": tmp_path, **changes})


def test_weights_that_default_no_longer_stands_for(data_dir, tmp_path, monkeypatch):
    def write(folder="run", **changes):
        folder = tmp_path / folder
        settings(data_dir, folder, **changes).write_or_verify(folder)
        return json.loads((folder / "settings.json").read_text(encoding="utf-8"))

    learned = {"optimizer": "hierarchical_rnn"}
    write(**learned)
    found = write(**learned)
    assert found["weights"] == ALIASES["default"]
    assert found["weights_sha256"] == load_weights("default").card["sha256"]
    monkeypatch.setitem(ALIASES, "default", "default-v1")
    with pytest.raises(ValueError, match=r"of its run.*weights \('.*'default-v1'"):
        write(**learned)
    # By its own name it is still the same run.
    write(**learned, weights=found["weights"])
    # It is nothing to a baseline.
    assert "weights" not in write("baseline", weights="typo")


def test_weights_of_the_same_name_that_were_replaced(data_dir, tmp_path):
    path = tmp_path / "mine.npz"
    changes = {"optimizer": "hierarchical_rnn", "weights": str(path)}
    run = settings(data_dir, tmp_path / "run", **changes)
    save_weights(fresh_weights(seed=0), path)
    run.write_or_verify(tmp_path / "run")
    save_weights(fresh_weights(seed=1), path)
    with pytest.raises(ValueError, match=r"others for weights_sha256 \('"):
        run.verify(tmp_path / "run")


def test_the_page_has_every_setting():
    page = pathlib.Path(__file__).parents[3] / "docs" / "imagenet.md"
    lines = ["| flag | default | |", "|---|---|---|"]
    for field, rule, *_ in settings_of(RunConfig):
        shown = "" if field.default in (None, "") else f"`{field.default}`"
        lines.append(f"| `--{field.name}` | {shown} | {rule.help} |")
    assert "\n".join(lines) in page.read_text(encoding="utf-8")

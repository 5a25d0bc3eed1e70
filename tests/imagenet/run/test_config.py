"""The settings of a run: what is refused, what the page says, whose folder it is."""

import dataclasses
import json
import pathlib

import pytest

from imagenet.run.config import RunConfig
from learned_optimizer.utils.flags import settings_table
from tests.imagenet.small_runs import settings


def test_what_decides_a_run_is_part_of_its_identity(data_dir, tmp_path):
    """All but what a run may change when it goes on."""
    free = {
        *("data_dir", "model_dir", "train_steps", "epochs", "strategy", "replicas"),
        *("steps_per_loop", "checkpoint_every", "keep_checkpoints", "jit_compile"),
        *("eval_every", "eval_batch_size", "eval_images", "scaling", "horizon"),
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
        ({"min_crop_area": 0.0}, "min_crop_area must be .*above 0 and at most 1"),
        ({"precision": "half"}, "precision must be one of"),
        ({"strategy": "horovod"}, "strategy must be one of"),
        ({"replicas": 2}, "replicas must be None under strategy=one_device"),
        ({"eval_every": -1}, "eval_every must be .*0 or more"),
        ({"data_dir": ""}, "data_dir must name a folder"),
        ({"model_dir": "gs://bucket/run"}, "not of a bucket. .*'gs://bucket/run'"),
        (
            {"strategy": "parameter_server", "accumulation_steps": 2},
            "accumulation_steps must be 1 under strategy=parameter_server",
        ),
        (
            {"strategy": "parameter_server", "input_shards": 2},
            "input_shards must be None under strategy=parameter_server",
        ),
        (
            {"strategy": "parameter_server", "jit_compile": True},
            "jit_compile must be False under strategy=parameter_server",
        ),
        (
            {"strategy": "parameter_server", "synchronized_batch_normalization": True},
            "synchronized_batch_normalization must be False under strategy=",
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


class TestModelDir:
    """Whose folder it is."""

    def test_another_run(self, data_dir, tmp_path):
        run = settings(data_dir, tmp_path / "run")
        run.write_or_verify(tmp_path / "run")
        before = (tmp_path / "run" / "settings.json").read_bytes()
        settings(data_dir, tmp_path / "run", train_steps=99).write_or_verify(
            tmp_path / "run"
        )
        with pytest.raises(
            ValueError, match=r"settings of its run.*'momentum' there, 'adam'"
        ):
            settings(data_dir, tmp_path / "run", optimizer="adam").write_or_verify(
                tmp_path / "run"
            )
        assert (tmp_path / "run" / "settings.json").read_bytes() == before
        assert json.loads(before)["optimizer"] == "momentum"

    def test_weights_that_default_no_longer_stands_for(
        self, data_dir, tmp_path, monkeypatch
    ):
        from learned_optimizer import load_weights
        from learned_optimizer.weights import ALIASES

        folder = tmp_path / "run"
        run = settings(data_dir, folder, optimizer="hierarchical_rnn")
        run.write_or_verify(folder)
        run.write_or_verify(folder)
        found = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        assert found["weights"] == ALIASES["default"]
        assert found["weights_sha256"] == load_weights("default").card["sha256"]
        monkeypatch.setitem(ALIASES, "default", "default-v1")
        with pytest.raises(ValueError, match=r"of its run.*weights \('.*'default-v1'"):
            run.write_or_verify(folder)
        # By its own name it is still the same run.
        settings(
            data_dir, folder, optimizer="hierarchical_rnn", weights=found["weights"]
        ).write_or_verify(folder)
        # It is nothing to a baseline.
        baseline = settings(data_dir, tmp_path / "baseline", weights="typo")
        baseline.write_or_verify(tmp_path / "baseline")
        assert "weights" not in json.loads(
            (tmp_path / "baseline" / "settings.json").read_text(encoding="utf-8")
        )

    def test_weights_of_the_same_name_that_were_replaced(self, data_dir, tmp_path):
        from learned_optimizer import fresh_weights, save_weights

        path = tmp_path / "mine.npz"
        run = settings(
            data_dir,
            tmp_path / "run",
            optimizer="hierarchical_rnn",
            weights=str(path),
        )
        save_weights(fresh_weights(seed=0), path)
        run.write_or_verify(tmp_path / "run")
        save_weights(fresh_weights(seed=1), path)
        with pytest.raises(ValueError, match=r"others for weights_sha256 \('"):
            run.verify(tmp_path / "run")

    def test_a_run_from_before_a_setting_came_had_its_default(self, tmp_path):
        identity = settings("data", tmp_path).identity()
        # As version 0.1 wrote it.
        for name in ("train_split", "validation_split", "horizontal_flip"):
            del identity[name]
        (tmp_path / "settings.json").write_text(json.dumps(identity))
        settings("data", tmp_path).verify(tmp_path)
        with pytest.raises(ValueError, match=r"horizontal_flip \(True there, False"):
            settings("data", tmp_path, horizontal_flip=False).verify(tmp_path)


PAGE = pathlib.Path(__file__).parents[3] / "docs" / "imagenet.md"


def test_the_page_has_every_setting():
    assert settings_table(RunConfig) in PAGE.read_text(encoding="utf-8")

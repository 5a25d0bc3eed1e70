"""A run on one device: what a step computes, what is written, how it goes on.

The network is a tiny one and the images are drawn ones; loop, optimizers, checkpoints
and input are those of any run.
"""

import csv
import dataclasses
import itertools
import json
import re
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from absl.testing import flagsaver
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator,
)

from imagenet import train as train_module
from imagenet.input.batches import evaluation_iterator
from imagenet.input.data import open_images
from imagenet.models import MODELS
from imagenet.optimizers import has_loss_scale
from imagenet.run import training as training_module
from imagenet.run.columns import TRAIN_COLUMNS
from imagenet.run.config import LOCK_FILE, RunConfig
from imagenet.run.devices import devices_of
from imagenet.run.run_log import RunLog
from imagenet.run.training import Training
from learned_optimizer.utils.csv_log import CsvLog, read_csv
from learned_optimizer.utils.exclusive_lock import exclusive_lock
from tests.imagenet import tiny
from tests.imagenet.small_data import (
    KINDS,
    SYNSETS,
    loss_of_first,
    put_tars,
    train_tar,
    validation_tar,
)

FLOAT16 = "mixed_float16"
SMALL = {
    "model": "tiny",
    "num_classes": 4,
    "num_images": 40,
    "num_validation_images": 10,
    "image_size": 32,
    "batch_size": 8,
    "train_steps": 6,
    "steps_per_loop": 2,
    "optimizer": "momentum",
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


def settings(data_dir, model_dir, **changes):
    return RunConfig(
        **{**SMALL, "data_dir": data_dir, "model_dir": str(model_dir), **changes}
    )


def train(data_dir, model_dir, until=None, **changes):
    run = settings(data_dir, model_dir, **changes)
    training = Training(run, devices_of(run), open_images(run))
    training.train(until)
    return training


class Left(Exception):
    """The command ended, with a line and a status."""


@pytest.fixture
def main(monkeypatch, data_dir):
    """`python -m imagenet.train` in this process; it leaves by `Left`."""

    def leave(message, status):
        raise Left(f"{message} (status {status})")

    def run(model_dir, **flags):
        flags = {**SMALL, "data_dir": data_dir, "model_dir": str(model_dir), **flags}
        with flagsaver.flagsaver(**flags):
            train_module.main(["imagenet.train"])

    monkeypatch.setattr(train_module, "_leave", leave)
    was_parsed = train_module.FLAGS.is_parsed()
    train_module.FLAGS.mark_as_parsed()
    yield run
    if not was_parsed:
        train_module.FLAGS.unparse_flags()


def contents(folder):
    """The bytes of all files."""
    return {
        path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def values(training):
    return [np.array(variable) for variable in training.model.trainable_variables]


def by_hand(data_dir, model_dir, steps, weight_decay):
    """The same run with Keras's `train_on_batch` on the same batches."""
    run = settings(data_dir, model_dir)
    keras.utils.set_random_seed(run.seed)
    model = tiny.tiny(None, 4, (32, 32, 3), None)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]

    class WithDecay(keras.losses.Loss):
        def call(self, labels, logits):
            loss = keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=0.1
            )(keras.ops.one_hot(labels, 4), logits)
            squares = sum(keras.ops.sum(keras.ops.square(v)) for v in kernels)
            return loss + 0.5 * weight_decay * squares

    rate = keras.optimizers.schedules.CosineDecay(0.05, steps)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), WithDecay())
    losses = []
    images = open_images(run)
    for batch, _ in zip(images.training_batches(8), range(steps), strict=False):
        decay = sum(0.5 * weight_decay * np.square(np.array(v)).sum() for v in kernels)
        losses.append(model.train_on_batch(batch[0], batch[1]) - decay)
        model.reset_metrics()
    return model, losses, images


def scalars(folder, tag):
    """`{step: value}` of the events in a TensorBoard folder."""
    return {
        event.step: float(tf.make_ndarray(value.tensor))
        for path in sorted(folder.glob("events*"))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == tag
    }


def test_a_run_is_what_keras_does_on_the_same_batches(data_dir, tmp_path, caplog):
    decay = 0.01
    caplog.set_level("INFO", logger="absl")
    run = train(
        data_dir,
        tmp_path / "run",
        learning_rate=0.05,
        schedule="cosine",
        warmup_steps=0,
        weight_decay=decay,
        eval_every=4,
    )
    model, losses, images = by_hand(data_dir, tmp_path / "other", 6, decay)
    for mine, theirs in zip(values(run), model.trainable_variables, strict=True):
        np.testing.assert_allclose(mine, np.array(theirs), rtol=1e-4, atol=1e-6)
    rows = read_csv(tmp_path / "run" / "train.csv")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose([row["loss"] for row in rows], losses, rtol=1e-4)
    events = scalars(tmp_path / "run" / "tensorboard", "train/loss")
    assert list(events) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(list(events.values()), losses, rtol=1e-4)
    # The optimizer is said at the start.
    assert "momentum: rate 0.05, cosine to 0 at step 6" in caplog.text
    assert run.spec.describe() in caplog.text
    expected = [0.05 * 0.5 * (1 + np.cos(np.pi * step / 6)) for step in range(6)]
    np.testing.assert_allclose(
        [row["learning_rate"] for row in rows], expected, rtol=1e-5
    )
    # The evaluation, by hand on all ten images.
    batches = list(images.evaluation_batches(10).as_numpy_iterator())
    logits = model.predict_on_batch(batches[0][0])
    labels = batches[0][1]
    top_1 = np.mean(logits.argmax(-1) == labels)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    found = read_csv(tmp_path / "run" / "eval.csv")
    assert [row["step"] for row in found] == [4, 6]
    assert found[-1]["images"] == 10
    assert found[-1]["top_1"] == pytest.approx(top_1)
    assert found[-1]["top_5"] == 1.0  # Of four classes.
    assert found[-1]["loss"] == pytest.approx(float(loss), rel=1e-4)
    saved = keras.models.load_model(tmp_path / "run" / "model.keras")
    np.testing.assert_allclose(
        saved.predict_on_batch(batches[0][0]), logits, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("optimizer", ["momentum", "hierarchical_rnn"])
def test_the_parts_of_a_batch_add_up(data_dir, tmp_path, optimizer):
    changes = {"model": "plain", "optimizer": optimizer, "weight_decay": 0.01}
    whole = train(data_dir, tmp_path / "whole", **changes)
    parts = train(data_dir, tmp_path / "parts", accumulation_steps=4, **changes)
    for one, other in zip(values(whole), values(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)
    losses = [
        [row["loss"] for row in read_csv(tmp_path / name / "train.csv")]
        for name in ("whole", "parts")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_the_learned_optimizer_is_the_keras_class(data_dir, tmp_path):
    from learned_optimizer import HierarchicalRNN

    run = train(data_dir, tmp_path / "run", optimizer="hierarchical_rnn")
    keras.utils.set_random_seed(0)
    model = tiny.tiny(None, 4, (32, 32, 3), None)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(HierarchicalRNN(), lambda y, x: loss(keras.ops.one_hot(y, 4), x))
    images = open_images(settings(data_dir, tmp_path / "run"))
    for batch, _ in zip(images.training_batches(8), range(6), strict=False):
        model.train_on_batch(batch[0], batch[1])
    for mine, theirs in zip(values(run), model.trainable_variables, strict=True):
        np.testing.assert_allclose(mine, np.array(theirs), rtol=1e-3, atol=1e-5)
    last = read_csv(tmp_path / "run" / "train.csv")[-1]
    rates = np.concatenate(
        [
            model.optimizer.log_learning_rates(v)
            for v in model.optimizer.learned_variables
        ]
    )
    assert last["mean_learned_rate"] == pytest.approx(np.exp(rates.mean()), rel=1e-3)
    assert last["learning_rate"] == 1.0


def test_images_per_second_are_those_of_the_loop(data_dir, tmp_path, monkeypatch):
    seconds = itertools.count(step=5)
    clock = types.SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(training_module, "time", clock)
    train(data_dir, tmp_path / "run", until=4)
    # Two steps of eight images in five seconds.
    rows = read_csv(tmp_path / "run" / "train.csv")
    assert [row["images_per_second"] for row in rows] == pytest.approx([3.2] * 4)


def test_what_decides_the_images_reaches_them(tmp_path):
    data_dir = str(tmp_path / "data")
    changes = {
        "seed": 7,
        "min_crop_area": 0.5,
        "colour_distortion": True,
        "image_size": 40,
        "num_classes": 3,
        "num_images": 30,
        "num_validation_images": 20,
    }
    images = open_images(settings(data_dir, tmp_path, **changes))
    assert {name: getattr(images.config, name) for name in changes} == changes
    assert images.config.scaling == MODELS["tiny"].scaling
    assert (images.num_classes, images.num_train_images) == (3, 30)
    # One set of images for all seeds of training.
    assert images.config.generated().seed == 0


def test_what_decides_a_run_is_part_of_its_identity(data_dir, tmp_path):
    """All but what another sitting of the same run may change."""
    free = {
        *("data_dir", "model_dir", "train_steps", "epochs", "strategy", "replicas"),
        *("steps_per_loop", "checkpoint_every", "keep_checkpoints", "jit_compile"),
        *("eval_every", "eval_batch_size", "eval_images", "scaling"),
    }
    run = settings(data_dir, tmp_path, optimizer="hierarchical_rnn")
    fields = {field.name for field in dataclasses.fields(run)}
    assert free < fields
    assert set(run.identity()) == fields - free | {"weights_sha256"}


def test_as_many_validation_images_as_asked_for(data_dir, tmp_path):
    run = train(data_dir, tmp_path, eval_images=8, eval_batch_size=4)
    (row,) = read_csv(tmp_path / "eval.csv")
    images = open_images(run.config)
    assert row["images"] == 8
    loss = loss_of_first(run.model, images, 8)
    assert row["loss"] == pytest.approx(loss, rel=1e-5)


def test_a_run_goes_on_number_for_number(data_dir, tmp_path, monkeypatch):
    """Ended in the middle and started again, for a learned and a plain optimizer."""
    for optimizer in ("hierarchical_rnn", "adam"):
        whole = train(data_dir, tmp_path / optimizer / "whole", optimizer=optimizer)
        folder = tmp_path / optimizer / "parts"
        changes = {"optimizer": optimizer, "checkpoint_every": 2}
        run = settings(data_dir, folder, **changes)
        first = Training(run, devices_of(run), open_images(run))
        original = first._checkpoints.save

        def save(original=original, first=first):
            original()
            if first.step == 4:
                raise KeyboardInterrupt

        monkeypatch.setattr(first._checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            first.train()
        # A row of a step that was not saved, and half of another.
        with open(folder / "train.csv", "a", encoding="utf-8") as file:
            file.write("5" + ",9" * (5 if optimizer == "hierarchical_rnn" else 4))
            file.write("\n6,1.2")
        again = train(data_dir, folder, **changes)
        for one, other in zip(values(whole), values(again), strict=True):
            np.testing.assert_array_equal(one, other)
        curves = []
        for name in ("whole", "parts"):
            rows = read_csv(tmp_path / optimizer / name / "train.csv")
            for row in rows:
                del row["images_per_second"]
            curves.append(rows)
        assert curves[0] == curves[1]


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"precision": "mixed_bfloat16"}, 0.4),
        ({"precision": FLOAT16}, 0.01),
        ({"jit_compile": True}, 1e-4),
    ],
    ids=["bfloat16", "float16", "compiled"],
)
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["hierarchical_rnn", "momentum"])
def test_other_arithmetic_gives_about_the_same(
    data_dir, tmp_path, optimizer, changes, tolerance
):
    """Under a loss scale too, and after it went on from a checkpoint."""
    common = {"optimizer": optimizer, "weight_decay": 0.01, "model": "plain"}
    if optimizer == "momentum":
        # Both gradient and decay move it far.
        common |= {"learning_rate": 0.3, "weight_decay": 0.3, "schedule": "constant"}
        common["warmup_steps"] = 0
    still = settings(data_dir, tmp_path / "still", **common)
    still = Training(still, devices_of(still), open_images(still))
    plain = train(data_dir, tmp_path / "plain", **common)
    train(data_dir, tmp_path / "other", until=4, **common, **changes)
    other = train(data_dir, tmp_path / "other", **common, **changes)
    assert has_loss_scale(other.optimizer) == (changes.get("precision") == FLOAT16)
    assert all(v.dtype == np.float32 for v in values(other))
    # All together: the gradient of a bias, a sum in which much cancels, is by itself
    # hardly half right in bfloat16.
    start, one, two = (
        np.concatenate([value.ravel() for value in values(training)])
        for training in (still, plain, other)
    )
    assert np.linalg.norm(two - one) < tolerance * np.linalg.norm(one - start)


def test_with_attention_it_is_the_parameters_that_are_evaluated(data_dir, tmp_path):
    from learned_optimizer import Config, fresh_weights, save_weights

    weights = fresh_weights(Config(attention=True), seed=0)
    path = tmp_path / "attention.npz"
    save_weights(weights, path)
    run = train(
        data_dir, tmp_path / "run", optimizer="hierarchical_rnn", weights=str(path)
    )
    pairs = run.optimizer.pairs_with_true_values()
    attended = [np.array(variable) for variable, _ in pairs]
    true = [np.array(value) for _, value in pairs]
    assert any((one != other).any() for one, other in zip(attended, true, strict=True))
    saved = keras.models.load_model(tmp_path / "run" / "model.keras")
    for mine, theirs in zip(true, saved.trainable_variables, strict=True):
        np.testing.assert_array_equal(mine, np.array(theirs))
    # A network with those parameters says the same as the run's own evaluation.
    images = open_images(run.config)
    batch = next(images.evaluation_batches(10).as_numpy_iterator())
    logits = saved.predict_on_batch(batch[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        batch[1], logits
    )
    assert run.evaluate()["loss"] == pytest.approx(float(loss), rel=1e-4)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulation_steps": 3}, "batch_size must be a multiple"),
        ({"input_shards": 3}, "input_shards must be a multiple"),
        ({"optimizer": "hierarchical_rnn", "weights": "no_such"}, "no_such"),
        ({"learning_rate": -1.0}, "learning rate must be positive"),
    ],
)
def test_what_does_not_fit_ends_the_run_at_its_start(
    data_dir, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        train(data_dir, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"learning_rate": -1.0}, "learning rate must be positive"),
        ({"warmup_steps": 7}, "7 steps of 6"),
        (
            {"train_steps": None, "epochs": 2.0, "warmup_steps": 11},
            "11 steps of 10",
        ),
        ({"optimizer": "hierarchical_rnn", "weights": "typo"}, "weights='typo'"),
        ({"accumulation_steps": 3}, "batch_size must be a multiple"),
        ({"input_shards": 3}, "input_shards must be a multiple"),
        ({"num_classes": 1}, "num_classes must be .*2 or more"),
        ({"eval_only": True}, "--eval_only needs a checkpoint"),
        ({"model_dir": "/dev/null/run"}, "/dev/null cannot be written"),
    ],
)
def test_the_images_come_after_all_checks(main, tmp_path, monkeypatch, flags, message):
    """They may take hours to prepare."""

    def opened(settings):
        raise AssertionError("the images were opened")

    monkeypatch.setattr(train_module, "open_images", opened)
    with pytest.raises(Left, match=rf"(?s){message}.*\(status 1\)"):
        main(**{"model_dir": tmp_path / "run", **flags})
    assert not (tmp_path / "run").exists()
    # That of another run.
    settings("data", tmp_path / "run", seed=1).write_or_verify(tmp_path / "run")
    with pytest.raises(Left, match="go on with the settings of its run.*seed"):
        main(tmp_path / "run")
    with pytest.raises(AssertionError, match="were opened"):
        main(tmp_path / "run", seed=1)


def test_another_backend_is_refused(main, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "learned_optimizer.utils.backend.keras.config.backend", lambda: "jax"
    )
    with pytest.raises(Left, match="needs the Keras backend 'tensorflow'.*'jax'"):
        main(tmp_path / "run")


def test_one_thread_is_refused_where_it_would_corrupt_memory(
    main, tmp_path, monkeypatch
):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setattr(
        "imagenet.train.tf.config.threading.set_intra_op_parallelism_threads",
        lambda threads: None,
    )
    with pytest.raises(Left, match="TF_NUM_INTRAOP_THREADS=1.*Received: --threads=1"):
        main(tmp_path / "run", threads=1)


def test_a_run_on_imagenet_names_the_images_that_it_skipped(main, tmp_path, caplog):
    put_tars(tmp_path / "data", train_tar(), validation_tar())
    generated = ("num_classes", "num_images", "num_validation_images")
    # Fifteen images, three of them cut off: an epoch in three steps.
    main(
        tmp_path / "run",
        dataset="imagenet2012",
        data_dir=str(tmp_path / "data"),
        batch_size=5,
        train_steps=3,
        **dict.fromkeys(generated),
    )
    (summary,) = re.findall(r"(\d+) images could not be decoded.*: (.*)", caplog.text)
    bad = {f"{synset}_cut.JPEG" for synset in SYNSETS} | {
        f"ILSVRC2012_val_{number:08d}.JPEG"
        for number, kind in enumerate(KINDS, 1)
        if not KINDS[kind]
    }
    assert (int(summary[0]), set(summary[1].split(", "))) == (len(bad), bad)
    (row,) = read_csv(tmp_path / "run" / "eval.csv")
    assert row["images"] == sum(KINDS.values())
    assert len(read_csv(tmp_path / "run" / "train.csv")) == 3


def test_no_imagenet(main, tmp_path):
    generated = ("num_classes", "num_images", "num_validation_images")
    flags = {"dataset": "imagenet2012", **dict.fromkeys(generated)}
    with pytest.raises(Left, match="no_such_folder"):
        main(tmp_path / "run", data_dir="no_such_folder", **flags)
    assert not (tmp_path / "run").exists()


def test_a_command_that_was_put_right_runs(main, tmp_path):
    """What was started by mistake leaves no folder that refuses it."""
    for wrong in (
        {"optimizer": "hierarchical_rnn", "weights": "typo"},
        {"input_shards": 3},
        {"eval_only": True},
    ):
        with pytest.raises(Left, match="status 1"):
            main(tmp_path / "run", train_steps=2, **wrong)
    main(tmp_path / "run", train_steps=2)
    assert len(read_csv(tmp_path / "run" / "train.csv")) == 2
    before = contents(tmp_path / "run")
    main(tmp_path / "run", train_steps=None, eval_only=True)
    assert contents(tmp_path / "run") == before


def test_a_full_disk_under_tensorboard_is_one_line(main, tmp_path, monkeypatch):
    class Full:
        def __init__(self, writer):
            self._writer = writer

        def __getattr__(self, name):
            return getattr(self._writer, name)

        def flush(self):
            raise tf.errors.ResourceExhaustedError(None, None, "No space left\nmore")

    class FullLog(training_module.RunLog):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self._writer = Full(self._writer)

    monkeypatch.setattr(training_module, "RunLog", FullLog)
    with pytest.raises(Left) as left:
        main(tmp_path / "run", train_steps=2)
    assert str(left.value) == "ResourceExhaustedError: No space left (status 1)"


def test_checkpoints_are_written_without_a_word(data_dir, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    train(data_dir, tmp_path / "said", until=2)
    assert "Sharding callback duration" in caplog.text
    caplog.clear()
    logger = logging.get_absl_logger()
    before = logger.filters[:], logging.get_verbosity()
    train_module.set_up_logging()
    try:
        train(data_dir, tmp_path / "quiet", until=2)
    finally:
        logger.filters[:] = before[0]
        logging.set_verbosity(before[1])
    assert "images a step" in caplog.text
    assert "Sharding" not in caplog.text


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

    def test_one_that_was_killed_while_it_settled(self, data_dir, tmp_path):
        (tmp_path / ".settings.json.17").write_text("{")
        run = settings(data_dir, tmp_path)
        run.verify(tmp_path)
        assert not (tmp_path / "settings.json").exists()
        run.write_or_verify(tmp_path)
        run.verify(tmp_path)

    def test_other_files(self, data_dir, tmp_path):
        (tmp_path / "thesis.tex").write_text("x")
        with pytest.raises(ValueError, match="which holds other things"):
            settings(data_dir, tmp_path).write_or_verify(tmp_path)

    def test_a_damaged_checkpoint(self, data_dir, tmp_path):
        train(data_dir, tmp_path / "run")
        (data,) = (tmp_path / "run" / "checkpoints").glob("step-6.data*")
        data.write_bytes(data.read_bytes()[:100])
        with pytest.raises(ValueError, match=r"step-6 must be a whole checkpoint"):
            train(data_dir, tmp_path / "run", train_steps=8)

    def test_no_room(self, data_dir, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(
            "imagenet.run.checkpoints.shutil.disk_usage",
            lambda path: usage._replace(free=1000),
        )
        with pytest.raises(ValueError, match="room for 3 more checkpoints"):
            train(data_dir, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_finished_run_needs_no_room(self, data_dir, tmp_path, monkeypatch):
        train(data_dir, tmp_path / "run")
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(
            "imagenet.run.checkpoints.shutil.disk_usage",
            lambda path: usage._replace(free=1000),
        )
        assert train(data_dir, tmp_path / "run").evaluate()["images"] == 10

    def test_a_checkpoint_that_is_gone(self, data_dir, tmp_path):
        folder = tmp_path / "run"
        train(data_dir, folder, checkpoint_every=2)
        (folder / "checkpoints" / "step-6.index").unlink()
        before = (folder / "train.csv").read_bytes()
        with pytest.raises(ValueError, match=r"without step-6.index.*are: step-4\)"):
            train(data_dir, folder, checkpoint_every=2, train_steps=8)
        assert (folder / "train.csv").read_bytes() == before

    def test_all_checkpoints_of_a_finished_run_are_gone(self, data_dir, tmp_path):
        folder = tmp_path / "run"
        train(data_dir, folder)
        shutil.rmtree(folder / "checkpoints")
        names = ("train.csv", "eval.csv", "model.keras")
        before = [(folder / name).read_bytes() for name in names]
        for steps in (6, 8):
            with pytest.raises(ValueError, match="must have the checkpoints of its"):
                train(data_dir, folder, train_steps=steps)
        assert [(folder / name).read_bytes() for name in names] == before

    def test_what_a_killed_process_had_begun_to_write_goes(self, data_dir, tmp_path):
        folder = tmp_path / "run"
        train(data_dir, folder, until=2)
        (folder / "checkpoints" / "step-9_temp").mkdir()
        (folder / "checkpoints" / "step-9_temp" / "part-0").write_bytes(b"begun")
        assert train(data_dir, folder).step == 6
        assert not list((folder / "checkpoints").glob("*_temp"))

    def test_only_so_many_checkpoints_stay(self, data_dir, tmp_path):
        changes = {"checkpoint_every": 1, "steps_per_loop": 1}
        for keep, until, expected in ((3, 4, "234"), (1, 6, "6")):
            train(data_dir, tmp_path / "run", until, keep_checkpoints=keep, **changes)
            found = (tmp_path / "run" / "checkpoints").glob("*.index")
            assert sorted(path.stem for path in found) == [
                f"step-{n}" for n in expected
            ]

    def test_another_process_trains_there(self, data_dir, tmp_path):
        folder = tmp_path / "run"
        train(data_dir, folder, until=2)
        before = (folder / "train.csv").read_bytes()
        with exclusive_lock(folder / LOCK_FILE):
            with pytest.raises(ValueError, match="which one is training in"):
                train(data_dir, folder)
            assert (folder / "train.csv").read_bytes() == before
        assert train(data_dir, folder).step == 6


def test_an_evaluation_comes_after_the_checkpoint(data_dir, tmp_path, monkeypatch):
    """Killed while it evaluates, a run loses no step, and evaluates when it goes on."""
    changes = {"eval_every": 3, "steps_per_loop": 1, "checkpoint_every": 3}
    train(data_dir, tmp_path / "whole", **changes)
    for step in (3, 6):
        with monkeypatch.context() as context:

            def killed(training, step=step, evaluate=Training.evaluate):
                if training.step == step:
                    raise KeyboardInterrupt
                return evaluate(training)

            context.setattr(Training, "evaluate", killed)
            with pytest.raises(KeyboardInterrupt):
                train(data_dir, tmp_path / "killed", **changes)
        assert (tmp_path / f"killed/checkpoints/step-{step}.index").is_file()
    train(data_dir, tmp_path / "killed", **changes)
    expected, found = (
        (tmp_path / name / "eval.csv").read_text() for name in ("whole", "killed")
    )
    assert found == expected
    assert len(expected.splitlines()) == 3


@pytest.mark.parametrize(
    ("changes", "size"),
    [({}, 8), ({"accumulation_steps": 4}, 2), ({"eval_batch_size": 5}, 5)],
)
def test_as_many_are_evaluated_at_a_time_as_trained(data_dir, tmp_path, changes, size):
    run = settings(data_dir, tmp_path, **changes)
    iterator, steps = evaluation_iterator(run, devices_of(run), open_images(run))
    images, _, weights = next(iterator)
    assert (len(images), len(weights)) == (size, size)
    assert (steps - 1) * size < 10 <= steps * size


def test_a_full_disk_leaves_the_checkpoint_before(data_dir, tmp_path, monkeypatch):
    run = settings(data_dir, tmp_path / "run", checkpoint_every=2)
    training = Training(run, devices_of(run), open_images(run))
    save = training._checkpoints._manager.save

    def full(checkpoint_number):
        if checkpoint_number == 4:
            raise tf.errors.ResourceExhaustedError(None, None, "No space left")
        return save(checkpoint_number=checkpoint_number)

    monkeypatch.setattr(training._checkpoints._manager, "save", full)
    with pytest.raises(OSError, match="checkpoint of step 4 could not be written"):
        training.train()
    again = Training(run, devices_of(run), open_images(run))
    assert again.step == 2
    again.train()
    assert again.step == 6
    assert [row["step"] for row in read_csv(tmp_path / "run" / "train.csv")] == [
        *range(1, 7)
    ]


def test_tensorboard_forgets_the_steps_that_are_done_again(tmp_path):
    def log(step, rows):
        run = RunLog(tmp_path, step, 6, is_learned=False)
        run.loop([dict.fromkeys(TRAIN_COLUMNS, 1.0) | row for row in rows])
        run.close()

    log(0, [{"step": step, "loss": step} for step in (1, 2, 3, 4)])
    log(2, [{"step": step, "loss": 10 * step} for step in (3, 4, 5)])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [
        (event.step, float(tf.make_ndarray(event.tensor_proto)))
        for event in events.Tensors("train/loss")
    ]
    assert found == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0)]


def test_a_log_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "train.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["step", "other"])
    with pytest.raises(ValueError, match="must have the columns step, loss"):
        CsvLog(path, ("step", "loss"), 0)
    assert "other" in path.read_text()


def test_a_finished_run_only_says_so(data_dir, tmp_path):
    train(data_dir, tmp_path / "run")
    before = (tmp_path / "run" / "train.csv").read_bytes()
    again = train(data_dir, tmp_path / "run")
    assert again.step == 6
    assert (tmp_path / "run" / "train.csv").read_bytes() == before
    assert (tmp_path / "run" / training_module.MODEL_FILE).is_file()

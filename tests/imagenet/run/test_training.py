"""A run on one device: what a step computes, what is written, how it goes on.

The network is a tiny one and the images are drawn ones; loop, optimizers, checkpoints
and input are those of any run.
"""

import itertools
import types

import keras
import numpy as np
import pytest

from imagenet.input.data import open_images
from imagenet.models import build_model
from imagenet.run import training as training_module
from imagenet.run.devices import devices_of
from imagenet.run.training import Training
from learned_optimizer import Config, HierarchicalRNN, fresh_weights, save_weights
from learned_optimizer.utils.csv_log import read_csv
from tests.arrays import assert_close, assert_equal
from tests.event_files import read_scalars
from tests.imagenet.small_data import loss_of_first
from tests.imagenet.small_runs import contents, curve, settings, train, values

FLOAT16 = "mixed_float16"


def column(folder, name):
    return [row[name] for row in read_csv(folder / "train.csv")]


def by_hand(data_dir, model_dir, optimizer, weight_decay=0.0, **changes):
    """The same run with Keras's `train_on_batch` on the same batches."""
    run = settings(data_dir, model_dir, **changes)
    model = build_model(run.model, 4, 32, run.precision, seed=run.seed)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]

    class WithDecay(keras.losses.Loss):
        def call(self, labels, logits):
            options = dict(from_logits=True, label_smoothing=0.1)
            cross_entropy = keras.losses.CategoricalCrossentropy(**options)
            loss = cross_entropy(keras.ops.one_hot(labels, 4), logits)
            squares = sum(keras.ops.sum(keras.ops.square(v)) for v in kernels)
            return loss + 0.5 * weight_decay * squares

    # XLA would keep more digits between operations of half precision.
    model.compile(optimizer, WithDecay(), jit_compile=False)
    losses = []
    images = open_images(run)
    for batch, _ in zip(images.training_batches(8), range(6), strict=False):
        decay = sum(0.5 * weight_decay * np.square(np.array(v)).sum() for v in kernels)
        losses.append(model.train_on_batch(batch[0], batch[1]) - decay)
        model.reset_metrics()
    return model, losses, images


def test_a_run_is_what_keras_does_on_the_same_batches(data_dir, tmp_path, caplog):
    decay = 0.01
    caplog.set_level("INFO", logger="absl")
    changes = dict(learning_rate=0.05, schedule="cosine", warmup_steps=0, eval_every=4)
    run = train(data_dir, tmp_path / "run", weight_decay=decay, **changes)
    rate = keras.optimizers.schedules.CosineDecay(0.05, 6)
    sgd = keras.optimizers.SGD(rate, momentum=0.9)
    model, losses, images = by_hand(data_dir, tmp_path / "other", sgd, decay)
    assert_close(values(run), model.trainable_variables, rtol=1e-4, atol=1e-6)
    assert column(tmp_path / "run", "step") == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(column(tmp_path / "run", "loss"), losses, rtol=1e-4)
    events = read_scalars(tmp_path / "run" / "tensorboard")["train/loss"]
    assert list(events) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(list(events.values()), losses, rtol=1e-4)
    # The optimizer is said at the start.
    assert "momentum: rate 0.05, cosine to 0 at step 6" in caplog.text
    assert run.spec.describe() in caplog.text
    rates = [0.05 * 0.5 * (1 + np.cos(np.pi * step / 6)) for step in range(6)]
    assert column(tmp_path / "run", "learning_rate") == pytest.approx(rates, rel=1e-5)
    # The evaluation, by hand on all ten images.
    (batch,) = images.evaluation_batches(10).as_numpy_iterator()
    logits = model.predict_on_batch(batch[0])
    found = read_csv(tmp_path / "run" / "eval.csv")
    assert [row["step"] for row in found] == [4, 6]
    del found[-1]["step"]
    assert found[-1] == {
        "top_1": pytest.approx(np.mean(logits.argmax(-1) == batch[1])),
        "top_5": 1.0,  # Of four classes.
        "loss": pytest.approx(loss_of_first(model, images, 10), rel=1e-4),
        "images": 10,
    }
    saved = keras.models.load_model(tmp_path / "run" / "model.keras")
    found = saved.predict_on_batch(batch[0])
    np.testing.assert_allclose(found, logits, rtol=1e-3, atol=1e-4)


def test_the_parts_of_a_batch_add_up(data_dir, tmp_path):
    changes = {"model": "plain", "optimizer": "hierarchical_rnn", "weight_decay": 0.01}
    # With a schedule whose six steps are small enough for what rounding does.
    changes |= {"weights": "default-v4"}
    whole = train(data_dir, tmp_path / "whole", **changes)
    parts = train(data_dir, tmp_path / "parts", accumulation_steps=4, **changes)
    assert_close(values(whole), values(parts), rtol=2e-4, atol=1e-5)
    losses = [column(tmp_path / name, "loss") for name in ("whole", "parts")]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_the_learned_optimizer_is_the_keras_class(data_dir, tmp_path):
    run = train(data_dir, tmp_path / "run", optimizer="hierarchical_rnn")
    model, *_ = by_hand(data_dir, tmp_path / "other", HierarchicalRNN(total_steps=6))
    assert_close(values(run), model.trainable_variables, rtol=1e-3, atol=1e-5)
    last = read_csv(tmp_path / "run" / "train.csv")[-1]
    optimizer = model.optimizer
    rates = map(optimizer.log_learning_rates, optimizer.learned_variables)
    rates = np.concatenate(list(rates))
    assert last["mean_learned_rate"] == pytest.approx(np.exp(rates.mean()), rel=1e-3)
    assert last["learning_rate"] == 1.0


def test_the_learned_rates_end_with_the_run(data_dir, tmp_path, caplog):
    def total_steps(name, until=4, **changes):
        changes = {"optimizer": "hierarchical_rnn"} | changes
        run = train(data_dir, tmp_path / name, until, **changes)
        return run.optimizer.total_steps

    assert total_steps("known") == 6
    caplog.clear()
    assert total_steps("known", until=5) == 6
    assert "follow a schedule" not in caplog.text
    assert total_steps("known", until=6, train_steps=8) == 8
    assert "follow a schedule to step 8 from step 5 on; before" in caplog.text
    # What began without goes on without, unless it is asked for.
    assert total_steps("unknown", horizon=False) is None
    assert total_steps("unknown", until=5) is None
    assert total_steps("unknown", until=6, horizon=True) == 6
    # Twice would be too much.
    assert total_steps("falls", until=1, schedule="cosine") is None
    # Without a nominal rate there is nothing to follow it.
    assert total_steps("released", until=1, weights="bootstrap-v1") is None


@pytest.mark.parametrize("optimizer", ["hierarchical_rnn", "momentum"])
def test_running_averages_of_learned_runs_are_of_training_batches(
    data_dir, tmp_path, optimizer
):
    """Those of the weights as they are at the end, by hand on the first layer."""
    run = train(data_dir, tmp_path / "run", optimizer=optimizer)
    convolution, normalization = run.model.layers[:2]
    images = open_images(run.config)
    # An epoch of forty images, each batch by itself.
    inputs = [convolution(batch[0]) for batch in images.training_batches(8).take(5)]
    inputs = np.reshape(inputs, (5, -1, 8))
    wanted = inputs.mean(1).mean(0), inputs.var(1).mean(0)
    found = np.array(normalization.moving_mean), np.array(normalization.moving_variance)
    pairs = zip(found, wanted, strict=True)
    same = [np.allclose(*pair, rtol=1e-3, atol=1e-4) for pair in pairs]
    assert same == [optimizer == "hierarchical_rnn"] * 2
    saved = keras.models.load_model(tmp_path / "run" / "model.keras")
    np.testing.assert_array_equal(np.array(saved.layers[1].moving_mean), found[0])


def test_images_per_second_are_those_of_the_loop(data_dir, tmp_path, monkeypatch):
    seconds = itertools.count(step=5)
    clock = types.SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(training_module, "time", clock)
    train(data_dir, tmp_path / "run", until=4)
    # Two steps of eight images in five seconds.
    speeds = column(tmp_path / "run", "images_per_second")
    assert speeds == pytest.approx([3.2] * 4)


def test_what_decides_the_images_reaches_them(tmp_path):
    data_dir = str(tmp_path / "data")
    changes = dict(num_classes=3, num_images=30, num_validation_images=20, seed=7)
    changes |= dict(min_crop_area=0.5, colour_distortion=True, image_size=40)
    images = open_images(settings(data_dir, tmp_path, **changes))
    assert {name: getattr(images.config, name) for name in changes} == changes
    assert (images.num_classes, images.num_train_images) == (3, 30)
    # One set of images for all seeds of training.
    assert images.config.generated().seed == 0


def test_as_many_validation_images_as_asked_for(data_dir, tmp_path):
    run = train(data_dir, tmp_path, eval_images=8, eval_batch_size=4)
    (row,) = read_csv(tmp_path / "eval.csv")
    images = open_images(run.config)
    assert row["images"] == 8
    loss = loss_of_first(run.model, images, 8)
    assert row["loss"] == pytest.approx(loss, rel=1e-5)


def test_a_run_goes_on_number_for_number(data_dir, tmp_path, monkeypatch):
    """Ended in the middle and started again."""
    changes = {"optimizer": "hierarchical_rnn", "checkpoint_every": 2}
    whole = train(data_dir, tmp_path / "whole", **changes)
    folder = tmp_path / "parts"
    run = settings(data_dir, folder, **changes)
    first = Training(run, devices_of(run), open_images(run))
    original = first._checkpoints.save

    def save():
        original()
        if first.step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(first._checkpoints, "save", save)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    # A row of a step that was not saved, and half of another.
    with open(folder / "train.csv", "a", encoding="utf-8") as file:
        file.write("5" + ",9" * 5 + "\n6,1.2")
    again = train(data_dir, folder, **changes)
    assert_equal(values(whole), values(again))
    assert curve(folder) == curve(tmp_path / "whole")


def distance(found, wanted, start):
    """How far `found` lies from `wanted`, over how far that lies from the start."""
    found, wanted, start = (
        np.concatenate([np.ravel(value) for value in model.trainable_variables])
        for model in (found, wanted, start)
    )
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted - start)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer, precision",
    [("hierarchical_rnn", FLOAT16), ("momentum", "mixed_bfloat16")],
)
def test_half_precision_is_that_of_keras(data_dir, tmp_path, optimizer, precision):
    """Under a loss scale too, and after it went on from a checkpoint."""
    common = {"model": "plain", "precision": precision}
    changes, by_keras = {"optimizer": optimizer}, HierarchicalRNN(total_steps=6)
    if optimizer == "momentum":
        # Both gradient and decay move it far.
        changes |= {"learning_rate": 0.3, "weight_decay": 0.3, "schedule": "constant"}
        changes |= {"warmup_steps": 0}
        by_keras = keras.optimizers.SGD(0.3, momentum=0.9)
    train(data_dir, tmp_path / "run", until=4, **common, **changes)
    run = train(data_dir, tmp_path / "run", **common, **changes)
    scaled = isinstance(run.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == FLOAT16)
    assert all(v.dtype == np.float32 for v in values(run))
    decay = changes.get("weight_decay", 0.0)
    model, *_ = by_hand(data_dir, tmp_path / "other", by_keras, decay, **common)
    start = build_model("plain", 4, 32, precision, seed=0)
    assert distance(run.model, model, start) < 0.01


@pytest.mark.slow
def test_compiled_it_computes_the_same(data_dir, tmp_path):
    common = {"model": "plain", "optimizer": "hierarchical_rnn", "weight_decay": 0.01}
    plain = train(data_dir, tmp_path / "plain", **common)
    compiled = train(data_dir, tmp_path / "compiled", jit_compile=True, **common)
    start = build_model("plain", 4, 32, seed=0)
    assert distance(compiled.model, plain.model, start) < 1e-4


def test_with_attention_it_is_the_parameters_that_are_evaluated(data_dir, tmp_path):
    path = tmp_path / "attention.npz"
    save_weights(fresh_weights(Config(attention=True), seed=0), path)
    changes = {"optimizer": "hierarchical_rnn", "weights": str(path)}
    run = train(data_dir, tmp_path / "run", **changes)
    pairs = run.optimizer.pairs_with_true_values()
    attended = [np.array(variable) for variable, _ in pairs]
    true = [np.array(value) for _, value in pairs]
    assert any((one != other).any() for one, other in zip(attended, true, strict=True))
    saved = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert_equal(true, saved.trainable_variables)
    # A network with those parameters says the same as the run's own evaluation.
    loss = loss_of_first(saved, open_images(run.config), 10)
    assert run.evaluate()["loss"] == pytest.approx(loss, rel=1e-4)


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
    files = tmp_path / "whole" / "eval.csv", tmp_path / "killed" / "eval.csv"
    expected, found = (path.read_text() for path in files)
    assert found == expected
    assert len(expected.splitlines()) == 3


def test_a_finished_run_only_says_so(data_dir, tmp_path):
    train(data_dir, tmp_path)
    before = contents(tmp_path)
    assert train(data_dir, tmp_path).step == 6
    after = contents(tmp_path)
    assert after.keys() == before.keys() and tmp_path / "model.keras" in after
    assert after[tmp_path / "train.csv"] == before[tmp_path / "train.csv"]

"""The callbacks in `fit`."""

import builtins

import keras
import numpy as np
import pytest

from learned_optimizer import (
    HierarchicalRNN,
    LearnedRates,
    RecomputeRunningAverages,
    SetTotalSteps,
    SwapTrueValues,
)
from tests.arrays import assert_equal
from tests.conftest import on_backends
from tests.event_files import read_scalars
from tests.learned_optimizer import by_hand
from tests.learned_optimizer.by_hand import (
    Problem,
    assert_same,
    fit,
    make_model,
    make_optimizer,
    numbers,
    perturbed_weights,
)

EPOCHS = 3
BACKENDS = ["tensorflow", *on_backends("jax", "torch", is_slow=True)]


class Watch(keras.callbacks.Callback):
    """What is in the model's variables at certain moments."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def _note(self, moment):
        found = numbers(self.model.trainable_variables)
        self.seen.setdefault(moment, []).append([np.array(x) for x in found])

    def on_epoch_end(self, epoch, logs=None):
        self._note("epoch end")

    def on_test_begin(self, logs=None):
        self._note("test")

    def on_epoch_begin(self, epoch, logs=None):
        self._note("epoch begin")


def test_true_values_are_in_the_model_for_validation_and_saving():
    problem = Problem.make(steps=2)
    weights = perturbed_weights(attention=True)
    options = dict(validation_data=(problem.inputs, problem.targets), epochs=EPOCHS)
    for swap_on_epoch in (False, True):
        watch = Watch()
        model, optimizer = make_model(problem), make_optimizer(weights=weights)
        options["callbacks"] = [SwapTrueValues(swap_on_epoch), watch]
        fit(model, optimizer, problem, **options)
        expected = by_hand.OptimizerByHand(problem.values, weights)
        for epoch in range(EPOCHS):
            assert_same(watch.seen["epoch begin"][epoch], expected.attended)
            for gradients in problem.gradients():
                expected.call(gradients)
            true, attended = expected.values, expected.attended
            pairs = zip(true, attended, strict=True)
            assert max(np.abs(one - other).max() for one, other in pairs) > 1e-3
            assert_same(watch.seen["test"][epoch], true)
            at_end = true if swap_on_epoch else attended
            assert_same(watch.seen["epoch end"][epoch], at_end)
        by_hand.assert_same_state(model.optimizer, model.trainable_variables, expected)
        assert_same(numbers(model.trainable_variables), expected.values)


def test_swapping_without_attention_changes_nothing():
    problem = Problem.make(steps=2)
    results = []
    for callbacks in ([], [SwapTrueValues(swap_on_epoch=True)]):
        model = make_model(problem)
        fit(model, make_optimizer(), problem, epochs=2, callbacks=callbacks)
        model.evaluate(problem.inputs, problem.targets, verbose=0, callbacks=callbacks)
        results.append(numbers(model.trainable_variables))
    assert_equal(*results)


def test_what_fit_ends_with_stays_in_the_model():
    problem = Problem.make(steps=2)
    model = make_model(problem)
    swap = SwapTrueValues(swap_on_epoch=True)
    optimizer = make_optimizer(weights=perturbed_weights(attention=True))
    fit(model, optimizer, problem, epochs=2, callbacks=[swap])
    after_fit = [value.copy() for value in numbers(model.trainable_variables)]
    model.evaluate(problem.inputs, problem.targets, verbose=0, callbacks=[swap])
    model.predict(problem.inputs, verbose=0, callbacks=[swap])
    assert_equal(after_fit, numbers(model.trainable_variables))


def test_predict_and_evaluate_use_the_true_values_in_the_middle_of_training():
    problem = Problem.make(steps=2)
    weights = perturbed_weights(attention=True)
    model = make_model(problem)
    optimizer = keras.optimizers.LossScaleOptimizer(make_optimizer(weights=weights))
    model.compile(optimizer, loss=by_hand.mean_output)
    # Before the first step there are no true values to put in.
    model.predict(problem.inputs, verbose=0, callbacks=[SwapTrueValues()])
    for start in (0, 2):
        rows = slice(start, start + 2)
        model.train_on_batch(problem.inputs[rows], problem.targets[rows])
    expected = problem.run_by_hand(weights=weights)
    swap = SwapTrueValues()
    flat = np.concatenate([value.reshape(-1) for value in expected.values])
    outputs = model.predict(problem.inputs, verbose=0, callbacks=[swap])
    np.testing.assert_allclose(
        outputs[:, 0], problem.inputs @ flat, rtol=1e-3, atol=1e-3
    )
    assert_same(numbers(model.trainable_variables), expected.attended)
    model.evaluate(problem.inputs, problem.targets, verbose=0, callbacks=[swap])
    assert_same(numbers(model.trainable_variables), expected.attended)


@pytest.mark.parametrize(
    "update_freq, steps_per_execution, steps",
    [
        ("epoch", 1, [4, 8]),
        (3, 1, [3, 4, 6, 8]),
        (1, 1, list(range(1, 9))),
        (2, 2, [2, 4, 6, 8]),
        (1, 4, [4, 8]),
        pytest.param(
            *(3, 1, [3, 4, 6, 8]),
            marks=(pytest.mark.backend("jax"), pytest.mark.slow),
            id="jax",
        ),
    ],
)
def test_learned_rates_are_written_as_they_are(
    update_freq, steps_per_execution, steps, tmp_path
):
    problem = Problem.make(steps=4)
    model = make_model(problem)
    options = dict(epochs=2, steps_per_execution=steps_per_execution)
    options["callbacks"] = [LearnedRates(tmp_path, update_freq)]
    fit(model, make_optimizer(), problem, **options)
    found = read_scalars(tmp_path)
    assert len(found) == 2 * len(by_hand.SHAPES)
    expected = by_hand.OptimizerByHand(problem.values)
    for step in range(1, 9):
        expected.call(problem.gradients()[(step - 1) % 4])
        for index, variable in enumerate(model.trainable_variables):
            rates = expected.slots(index)["log_learning_rate"]
            figures = {"mean": rates.mean(), "standard_deviation": rates.std()}
            for kind, wanted in figures.items():
                scalars = found[f"learned_rates/{variable.path}/{kind}"]
                assert sorted(scalars) == steps
                if step in steps:
                    assert scalars[step] == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_learned_rates_without_tensorflow_say_what_is_needed(tmp_path, monkeypatch):
    original = builtins.__import__

    def without_tensorflow(name, *arguments, **options):
        if name == "tensorflow":
            raise ImportError("No module named 'tensorflow'")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_tensorflow)
    with pytest.raises(ImportError, match="needs TensorFlow under every backend"):
        LearnedRates(tmp_path)


@pytest.mark.parametrize("update_freq", ["batch", 0, -1, True, None, 2.5])
def test_a_bad_frequency_is_refused(update_freq, tmp_path):
    with pytest.raises(ValueError, match="positive integer. Received"):
        LearnedRates(tmp_path, update_freq)


def test_callbacks_refuse_what_they_are_not_for(tmp_path):
    problem = Problem.make(steps=1)
    model = make_model(problem)
    for callback in (SwapTrueValues(swap_on_epoch=True), LearnedRates(tmp_path)):
        with pytest.raises(ValueError, match="trained by HierarchicalRNN"):
            fit(model, keras.optimizers.SGD(), problem, callbacks=[callback])
    switches = dict(dynamic_output_scale=False, relative_learning_rate=False)
    optimizer = HierarchicalRNN(weights=perturbed_weights(**switches))
    with pytest.raises(ValueError, match="dynamic_output_scale=False"):
        fit(model, optimizer, problem, callbacks=[LearnedRates(tmp_path)])


# RecomputeRunningAverages.

IMAGES = np.random.default_rng(0).normal(1.0, 3.0, (48, 6)).astype(np.float32)
LABELS = np.random.default_rng(1).normal(size=(48, 1)).astype(np.float32)


def make_normalised_model():
    keras.utils.set_random_seed(0)
    first, last = keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)
    between = keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)
    model = keras.Sequential([keras.Input((6,)), first, *between, last])
    model.compile(HierarchicalRNN(), loss="mse")
    return model


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_averages_are_recomputed_for_validation_and_at_the_end(backend):
    class Keep(keras.callbacks.Callback):
        """The averages that validation sees, and the weights of that moment."""

        def on_test_begin(self, logs=None):
            self.seen = numbers(self.model.layers[1].non_trainable_variables)
            hidden = self.model.layers[0](IMAGES)
            self.hidden = keras.ops.convert_to_numpy(hidden)

    def fit_with(*callbacks):
        model = make_normalised_model()
        options = dict(batch_size=16, epochs=2, verbose=0, callbacks=callbacks)
        options["validation_data"] = IMAGES, LABELS
        return model, model.fit(IMAGES, LABELS, **options).history

    keep = Keep()
    # One batch of all images: its statistics are known.
    recompute = RecomputeRunningAverages(IMAGES, batch_size=48)
    model, history = fit_with(recompute, keep)
    plain, plain_history = fit_with()
    assert history["loss"] == plain_history["loss"]
    trained, trained_plainly = (numbers(m.trainable_variables) for m in (model, plain))
    assert_equal(trained, trained_plainly)
    wanted = [keep.hidden.mean(axis=0), keep.hidden.var(axis=0)]
    assert_same(keep.seen, wanted)
    assert_same(numbers(model.layers[1].non_trainable_variables), wanted)
    losses, plain_losses = history["val_loss"], plain_history["val_loss"]
    loss = model.evaluate(IMAGES, LABELS, verbose=0)
    assert losses[-1] == pytest.approx(loss, rel=1e-5)
    assert np.abs(np.subtract(losses, plain_losses)).max() > 0.1
    # Outside of `fit`, where the model's own averages are far behind.
    loss = plain.evaluate(IMAGES, LABELS, verbose=0, callbacks=[recompute])
    assert loss == pytest.approx(losses[-1], rel=1e-4)


def test_running_averages_take_what_fit_takes():
    import tensorflow as tf

    class Rows(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return IMAGES[16 * index :][:16], LABELS[16 * index :][:16]

    rows = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(16)
    found = []
    for data in (rows, rows.repeat(), Rows(), [(x, y) for x, y in rows]):
        model = make_normalised_model()
        recompute = RecomputeRunningAverages(data, num_batches=3)
        recompute.set_model(model)
        recompute.on_test_begin()
        found.append(numbers(model.layers[1].non_trainable_variables))
    for other in found[1:]:
        assert_same(other, found[0])
    recompute = RecomputeRunningAverages({"a": IMAGES, "b": LABELS}, 2, batch_size=7)
    batches = list(recompute._batches())
    assert [batch["a"].shape for batch in batches] == [(7, 6)] * 2
    assert [batch["b"].shape for batch in batches] == [(7, 1)] * 2


@pytest.mark.parametrize("name", ["num_batches", "batch_size"])
@pytest.mark.parametrize("bad", [0, -1, True, 2.5, "all"])
def test_a_bad_number_of_batches_is_refused(name, bad):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
        RecomputeRunningAverages(IMAGES, **{name: bad})


# SetTotalSteps, and `total_steps` itself.


def fit_known(problem, epochs=2, total_steps=None, known=True, **options):
    """A model after `fit`, with `total_steps` from the callback or given."""
    model = make_model(problem)
    arguments = options.pop("arguments", {})
    optimizer = make_optimizer(total_steps=total_steps, **arguments)
    callbacks = [SetTotalSteps()] if known else []
    fit(model, optimizer, problem, epochs=epochs, callbacks=callbacks, **options)
    return model


def test_fit_tells_the_optimizer_how_many_steps_there_are():
    problem = Problem.make(steps=4)
    models = (
        fit_known(problem, known=False, total_steps=8),
        fit_known(problem),
        fit_known(problem, known=False),
    )
    values = [numbers(model.trainable_variables) for model in models]
    for one, other, free in zip(*values, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(one - free).max() > 1e-4
    assert [model.optimizer.total_steps for model in models] == [8, 8, None]
    expected = by_hand.OptimizerByHand(problem.values, total_steps=8)
    for gradients in [*problem.gradients(), *problem.gradients()]:
        expected.call(gradients)
    assert_same(values[0], expected.values)


def test_steps_are_updates_and_what_was_done_counts():
    problem = Problem.make(steps=4)
    model = fit_known(problem, epochs=3, arguments=dict(gradient_accumulation_steps=2))
    assert model.optimizer.total_steps == 6
    assert model.optimizer.updates_done == 6
    fit(model, model.optimizer, problem, epochs=3, initial_epoch=2)
    assert model.optimizer.total_steps == 6
    options = dict(epochs=6, initial_epoch=4, callbacks=[SetTotalSteps()])
    fit(model, model.optimizer, problem, **options)
    # 16 calls were made, 8 came.
    assert model.optimizer.total_steps == 12


def test_a_number_that_was_given_stays():
    problem = Problem.make(steps=4)
    with pytest.warns(UserWarning, match="goes on to update 8, beyond .* given, 5"):
        model = fit_known(problem, total_steps=5)
    assert model.optimizer.total_steps == 5


def test_an_unknown_length_says_what_to_give():
    import tensorflow as tf

    problem = Problem.make(steps=4)
    data = tf.data.Dataset.from_tensor_slices((problem.inputs, problem.targets))
    data = data.filter(lambda x, y: True).batch(2)
    model = make_model(problem)
    model.compile(make_optimizer(), loss=by_hand.mean_output)
    with pytest.raises(ValueError, match="give `steps_per_epoch` to `fit`"):
        model.fit(data, verbose=0, callbacks=[SetTotalSteps()])

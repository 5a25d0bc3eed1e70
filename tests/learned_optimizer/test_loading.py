"""Loading into a model: it goes on, or starts afresh and says so; no model is lost."""

import contextlib
import copy
import json
import tarfile
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN
from tests.arrays import assert_equal
from tests.learned_optimizer import old_states
from tests.learned_optimizer.by_hand import numbers
from tests.learned_optimizer.old_states import STEPS, everything, losses, make_model
from tests.learned_optimizer.states import assert_equal_states, state_of


def trained(optimizer=None):
    """A model in the middle of its training."""
    model = make_model(optimizer or HierarchicalRNN())
    losses(model, 0, STEPS)
    return model


def assert_goes_on(model, other):
    """Both have the same losses from here on."""
    assert losses(other, STEPS, 2 * STEPS) == losses(model, STEPS, 2 * STEPS)


def assert_starts_afresh(model, optimizer=None):
    """Its losses are those of a new optimizer on the same weights."""
    fresh = make_model(optimizer or HierarchicalRNN())
    fresh.set_weights(model.get_weights())
    assert_goes_on(fresh, model)


def assert_same_state_of(variable, optimizer, other_variable, other):
    """Two variables have the same state in their optimizers."""
    assert_equal(optimizer.slots(variable), other.slots(other_variable))
    assert_equal(optimizer.tensor_state(variable), other.tensor_state(other_variable))


def assert_same_states_of(model, optimizer, other_model, other):
    """So have all variables of two models."""
    pairs = zip(model.trainable_variables, other_model.trainable_variables, strict=True)
    for variable, twin in pairs:
        assert_same_state_of(variable, optimizer, twin, other)


@contextlib.contextmanager
def warnings_of_states():
    """Collects the warnings that the optimizer gives of a state, once it is over."""
    messages = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    found = (str(each.message) for each in caught)
    messages.extend(message for message in found if "saved state" in message)


@pytest.fixture(scope="module")
def old_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(old_states.ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
@pytest.mark.parametrize("name", old_states.OPTIMIZERS)
def test_a_file_of_an_earlier_version_goes_on(name, old_files):
    model = old_states.load(old_files, name)
    wanted = json.loads((old_files / "losses.json").read_text())[name]
    found = losses(model, STEPS, 2 * STEPS)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


# Before the optimizer is built.


@pytest.mark.parametrize("make_optimizer", [HierarchicalRNN, everything])
def test_compile_load_fit_goes_on(make_optimizer, tmp_path):
    model = trained(make_optimizer())
    model.save_weights(tmp_path / "a.weights.h5")
    other = make_model(make_optimizer())
    with warnings_of_states() as messages:
        other.load_weights(tmp_path / "a.weights.h5")
        # It waits, and is saved with what it waits for.
        other.save(tmp_path / "waiting.keras")
        again = keras.models.load_model(tmp_path / "waiting.keras")
        assert_equal_states(state_of(again.optimizer), state_of(model.optimizer))
        assert_goes_on(model, other)
    assert messages == []
    assert_equal_states(state_of(other.optimizer), state_of(model.optimizer))


def test_a_state_waits_for_a_step_that_is_being_traced(tmp_path):
    model = trained()
    model.save_weights(tmp_path / "a.weights.h5")
    other = make_model(HierarchicalRNN())
    other.load_weights(tmp_path / "a.weights.h5")
    gradients = [tf.ones(v.shape) for v in model.trainable_variables]

    @tf.function
    def step(gradients):
        other.optimizer.apply(gradients, other.trainable_variables)

    step(gradients)
    model.optimizer.apply(gradients, model.trainable_variables)
    assert_equal_states(state_of(other.optimizer), state_of(model.optimizer))


def test_a_learning_rate_that_is_set_after_loading_stays(tmp_path):
    trained(HierarchicalRNN(learning_rate=0.5)).save_weights(tmp_path / "a.weights.h5")
    for rate in (0.5, 0.25):
        model = make_model(HierarchicalRNN())
        model.load_weights(tmp_path / "a.weights.h5")
        if rate == 0.25:
            model.optimizer.learning_rate = rate
        losses(model, STEPS, STEPS + 1)
        assert float(model.optimizer.learning_rate) == rate
        assert int(model.optimizer.iterations) == STEPS + 1


# What does not fit an optimizer that has taken no step.


def save_other(path, optimizer, units=2):
    """Weights and state of a training with another optimizer or layer."""
    model = make_model(optimizer)
    if units != 2:
        model.pop()
        model.add(keras.layers.Dense(units))
        model.compile(optimizer, "mse")
    model.optimizer.build(model.trainable_variables)
    gradients = [keras.ops.ones(v.shape) for v in model.trainable_variables]
    model.optimizer.apply(gradients, model.trainable_variables)
    model.save_weights(path)


OTHERS = {
    "SGD": (lambda: keras.optimizers.SGD(), "another optimizer's state"),
    "other weights": (
        lambda: HierarchicalRNN(weights="default-v1"),
        "make the optimizer with `weights='default-v1'`",
    ),
    "averages": (lambda: HierarchicalRNN(use_ema=True), "compare `use_ema`"),
}


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_a_state_that_does_not_fit_is_left_out_with_a_warning(name, built, tmp_path):
    make_optimizer, words = OTHERS[name]
    save_other(tmp_path / "other.weights.h5", make_optimizer())
    model = make_model(HierarchicalRNN())
    if built:
        # Of these weights, much larger, nothing may be left.
        for variable in model.trainable_variables:
            variable.assign(100 * variable)
        model.optimizer.build(model.trainable_variables)
    with warnings_of_states() as messages:
        model.load_weights(tmp_path / "other.weights.h5")
        assert_starts_afresh(model)
    assert len(messages) == 1
    assert "starts afresh, from step 0" in messages[0]
    assert words in messages[0]


@pytest.mark.parametrize("how", ["no paths", "no tensor", "damaged"])
def test_a_state_of_other_shapes_is_left_out_with_a_warning(how):
    source, target = HierarchicalRNN(), HierarchicalRNN()
    source.build([keras.Variable(np.ones((2, 3), "float32"), name="kernel")])
    source.apply([tf.ones((2, 3))])
    store = state_of(source)
    name = "kernel" if how == "no paths" else "other"
    values = np.full((4,) if how != "damaged" else (2, 3), 2.0, "float32")
    variables = [keras.Variable(values, name=name)]
    if how == "no paths":
        description = json.loads(bytes(store["description"]))
        del description["paths"]
        store["description"] = np.frombuffer(json.dumps(description).encode(), "u1")
    if how == "damaged":
        store["mean_squares"] = store["mean_squares"][:2]
    target.build(variables)
    with warnings_of_states() as messages:
        target.load_own_variables(store)
    assert len(messages) == 1
    fresh = HierarchicalRNN()
    fresh.build(variables)
    assert_equal_states(state_of(target), state_of(fresh))


# Models that have changed since they were compiled.


def freeze(model):
    model.layers[0].trainable = False


def quantize(model):
    model.quantize("int8")


def freeze_all(model):
    model.trainable = False


def reload(model, way, tmp_path):
    if way == "deepcopy":
        return copy.deepcopy(model)
    if way == "pickle":
        make, arguments = model.__reduce__()
        return make(*arguments)
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize(
    "change, way, make_optimizer",
    [
        (freeze, "file", HierarchicalRNN),
        (freeze, "file", everything),
        (freeze, "deepcopy", everything),
        (freeze, "pickle", HierarchicalRNN),
        (quantize, "file", HierarchicalRNN),
        (freeze_all, "file", everything),
    ],
)
def test_variables_that_are_left_keep_their_state(
    change, way, make_optimizer, tmp_path
):
    model = trained(make_optimizer())
    change(model)
    with warnings_of_states() as messages:
        other = reload(model, way, tmp_path)
    assert messages == []
    assert len(other.trainable_variables) == len(model.trainable_variables) < 4
    saved, loaded = model.optimizer, other.optimizer
    assert_same_states_of(model, saved, other, loaded)
    np.testing.assert_array_equal(loaded.global_state, saved.global_state)
    one, two = state_of(saved), state_of(loaded)
    for name in ("iteration", "skipped_steps"):
        np.testing.assert_array_equal(one[name], two[name])
    kept = ("averages", "accumulators") if make_optimizer is everything else ()
    for index, variable in enumerate(model.trainable_variables):
        position = [x is variable for x in saved.learned_variables].index(True)
        for name in kept:
            assert_equal(two[f"{name}.{index}"], one[f"{name}.{position}"])


@pytest.mark.parametrize("make_optimizer", [HierarchicalRNN, everything])
def test_variables_that_are_new_start_afresh(make_optimizer, tmp_path):
    model = make_model("sgd")
    freeze(model)
    model.compile(make_optimizer(), "mse")
    losses(model, 0, STEPS)
    model.layers[0].trainable = True
    with warnings_of_states() as messages:
        other = reload(model, "file", tmp_path)
    assert len(messages) == 1
    for words in ("dense", "/kernel", "/bias starts afresh, the rest goes on"):
        assert words in messages[0]
    fresh = make_optimizer()
    fresh.build(other.trainable_variables)
    layers = model.layers[1], other.layers[1]
    assert_same_states_of(layers[0], model.optimizer, layers[1], other.optimizer)
    for variable in other.layers[0].trainable_variables:
        assert_same_state_of(variable, fresh, variable, other.optimizer)
    assert int(other.optimizer._iterations) == STEPS
    found = losses(other, STEPS, 2 * STEPS)
    inputs, targets = old_states.batches()
    assert found[-1] < 2 * model.test_on_batch(inputs[STEPS], targets[STEPS])
    if make_optimizer is everything:
        # Averages of what has no past begin where the variables are.
        kernel = other.layers[0].kernel
        average = state_of(other.optimizer)["averages.0"]
        assert np.abs(average - kernel).max() < 0.5 * np.abs(kernel).max()


def test_a_state_of_more_variables_is_taken_into_an_optimizer_with_steps(tmp_path):
    model = trained()
    model.save_weights(tmp_path / "a.weights.h5")
    freeze(model)
    model.compile(HierarchicalRNN(), "mse")
    losses(model, 0, 1)
    whole = trained()
    model.load_weights(tmp_path / "a.weights.h5")
    layers = whole.layers[1], model.layers[1]
    assert_same_states_of(layers[0], whole.optimizer, layers[1], model.optimizer)
    # The other way round, the state that it lacks would be lost.
    model.save_weights(tmp_path / "b.weights.h5")
    before = state_of(whole.optimizer)
    with pytest.raises(ValueError, match="(?s)shapes of the variables.*reset()"):
        whole.load_weights(tmp_path / "b.weights.h5")
    assert_equal_states(state_of(whole.optimizer), before)


# Optimizers that have taken steps.


def test_a_refusal_names_the_ways_out_and_each_works(tmp_path):
    save_other(tmp_path / "sgd.weights.h5", keras.optimizers.SGD())
    model = trained()
    before = state_of(model.optimizer)
    with pytest.raises(ValueError) as raised:
        model.load_weights(tmp_path / "sgd.weights.h5")
    for words in ("skip_mismatch=True", "compile=False", "optimizer.reset()"):
        assert words in str(raised.value)
    assert_equal_states(state_of(model.optimizer), before)
    model.load_weights(tmp_path / "sgd.weights.h5", skip_mismatch=True)
    assert_equal_states(state_of(model.optimizer), before)
    model.optimizer.reset()
    with warnings_of_states() as messages:
        model.load_weights(tmp_path / "sgd.weights.h5")
    assert len(messages) == 1
    assert_starts_afresh(model)


@pytest.mark.parametrize("make_optimizer", [HierarchicalRNN, everything])
def test_reset_starts_again(make_optimizer):
    model = trained(make_optimizer())
    model.optimizer.reset()
    assert_starts_afresh(model, make_optimizer())


def test_reset_drops_a_state_that_waits(tmp_path):
    trained().save_weights(tmp_path / "a.weights.h5")
    model = make_model(HierarchicalRNN())
    model.load_weights(tmp_path / "a.weights.h5")
    model.optimizer.reset()
    assert_starts_afresh(model)


def test_meta_parameters_survive_who_zeroes_all_variables(tmp_path):
    model = trained()
    optimizer = model.optimizer
    assert len(optimizer.meta_variables) == len(optimizer.weights.meta_parameters)
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape))
    wanted = optimizer.weights.meta_parameters
    assert_equal({name: getattr(optimizer, f"_meta_{name}") for name in wanted}, wanted)
    optimizer.learning_rate = 1.0
    before = numbers(model.trainable_variables)
    losses(model, STEPS, STEPS + 1)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        assert np.abs(variable - value).max() > 0


# In a `LossScaleOptimizer`, which loads a second copy, by position.


def scaled(optimizer=None):
    inner = optimizer or HierarchicalRNN()
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
@pytest.mark.parametrize("change", [None, freeze])
def test_a_scaled_state_goes_on(change, tmp_path):
    model = trained(scaled())
    model.optimizer.dynamic_scale.assign(32.0)
    if change:
        change(model)
    other = reload(model, "file", tmp_path)
    assert float(other.optimizer.dynamic_scale) == 32.0
    inner, others = model.optimizer.inner_optimizer, other.optimizer.inner_optimizer
    assert_same_states_of(model, inner, other, others)
    assert int(others.iterations) == STEPS
    if not change:
        # Before it is built, too; the scale then starts anew, as Keras has it.
        model.save_weights(tmp_path / "a.weights.h5")
        waiting = make_model(scaled())
        waiting.load_weights(tmp_path / "a.weights.h5")
        assert_goes_on(other, waiting)


def test_a_refused_scaled_state_changes_nothing(tmp_path):
    save_other(tmp_path / "a.weights.h5", scaled(HierarchicalRNN(weights="default-v1")))
    model = trained(scaled())
    inner = model.optimizer.inner_optimizer
    before = state_of(inner)
    with pytest.raises(ValueError, match="architecture of the optimizer's weights"):
        model.load_weights(tmp_path / "a.weights.h5")
    assert_equal_states(state_of(inner), before)


# By callbacks and other programs.


def test_backup_and_restore_of_another_optimizer_starts_afresh(tmp_path):
    data = dict(zip("xy", (array[0] for array in old_states.batches()), strict=True))
    keep = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    make_model("sgd").fit(**data, epochs=2, verbose=0, callbacks=[keep])
    model = make_model(HierarchicalRNN())
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with warnings_of_states() as messages:
        history = model.fit(**data, epochs=3, verbose=0, callbacks=[backup])
    assert history.epoch == [2] and len(messages) == 1
    assert int(model.optimizer.iterations) == 1

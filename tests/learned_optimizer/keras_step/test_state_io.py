"""Saving and going on: nothing is lost, nothing is skipped, nothing half assigned."""

import contextlib
import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from learned_optimizer import HierarchicalRNN
from learned_optimizer.keras_step.model_layout import SMALLEST_BLOCK_SIZE
from tests.arrays import assert_close, assert_equal
from tests.conftest import on_backends, output_of, slow
from tests.learned_optimizer import by_hand, old_states
from tests.learned_optimizer.by_hand import (
    INITIAL_LEARNING_RATE,
    Problem,
    apply_all,
    assert_same,
    fit,
    go_on,
    make_model,
    make_optimizer,
    make_variables,
    numbers,
    perturbed_weights,
)
from tests.learned_optimizer.states import assert_equal_states, state_of
from tests.learned_optimizer.ways import BEHAVIOURS, small_blocks


def built(problem=None, trained=0, **arguments):
    """An optimizer on variables of its own, and these."""
    problem = problem or Problem.make()
    variables, optimizer = make_variables(problem), make_optimizer(**arguments)
    optimizer.build(variables)
    apply_all(optimizer, variables, problem.gradients()[:trained])
    return optimizer, variables


def halves(problem):
    """The first and the second half of a problem's steps."""
    middle = len(problem.inputs) // 2
    return (
        Problem(problem.values, problem.inputs[:middle]),
        Problem(problem.values, problem.inputs[middle:]),
    )


@pytest.mark.parametrize(
    "name", ["everything", "attention", "not_finite", slow("schedule")]
)
def test_a_keras_file_goes_on_where_it_was(name, tmp_path):
    behaviour = BEHAVIOURS[name]
    first, second = halves(behaviour.problem(steps=8))
    model = make_model(first, constrained=behaviour.constrained)
    fit(model, behaviour.optimizer(), first)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert_equal_states(state_of(loaded.optimizer), state_of(model.optimizer))
    # Which no step follows from, so nothing later would show that it was lost.
    skipped = loaded.optimizer.skipped_steps
    assert skipped == first.run_by_hand().skipped_steps
    assert (skipped > 0) == behaviour.broken
    histories = [go_on(each, second).history for each in (model, loaded)]
    if name != "not_finite":
        assert histories[0] == histories[1]
    assert_equal_states(state_of(model.optimizer), state_of(loaded.optimizer))
    assert_equal(loaded.get_weights(), model.get_weights())


def test_meta_parameters_are_those_of_the_file_not_of_the_name(tmp_path):
    optimizer, _ = built(trained=1)
    store = state_of(optimizer)
    store["meta.learning_rate_weights"] = store["meta.learning_rate_weights"] + 1
    other, _ = built()
    other.load_own_variables(store)
    np.testing.assert_array_equal(
        other._meta_learning_rate_weights, store["meta.learning_rate_weights"]
    )


@pytest.mark.parametrize("there_and_back", [False, True])
def test_a_state_in_other_blocks_is_repacked(there_and_back):
    problem = Problem.make()
    reference, variables = built(problem, trained=3)
    with small_blocks():
        source, source_variables = built(problem, trained=3)
    with small_blocks(BLOCK_SIZE=3) if there_and_back else contextlib.nullcontext():
        target, target_variables = built(problem)
    sizes = [x._layout[0].block_size for x in (source, target)]
    assert sizes == [4, 3 if there_and_back else SMALLEST_BLOCK_SIZE]
    target.load_own_variables(state_of(source))
    for one, other in zip(source_variables, target_variables, strict=True):
        other.assign(one)
        assert_equal(target.slots(other), source.slots(one))
    apply_all(target, target_variables, problem.gradients()[3:4])
    apply_all(reference, variables, problem.gradients()[3:4])
    assert_same(numbers(target_variables), numbers(variables))


def replace(name, content):
    return lambda store: store.update({name: np.frombuffer(content, np.uint8)})


def other_description(**changes):
    def change(store):
        description = json.loads(bytes(store["description"]).decode())
        text = json.dumps({**description, **changes})
        replace("description", text.encode())(store)

    return change


def state_of_built(**arguments):
    """A function to the state of an optimizer with these arguments."""
    return lambda: state_of(built(**arguments)[0])


def adam_state():
    adam = keras.optimizers.Adam()
    adam.build([keras.Variable(value) for value in Problem.make().values])
    return state_of(adam)


COSINE = keras.optimizers.schedules.CosineDecay(1.0, 9)
REFUSED = {
    "other shapes": (
        state_of_built(problem=Problem([np.zeros(2)], Problem.make().inputs)),
        "shapes of the variables",
    ),
    "other architecture": (
        state_of_built(weights=perturbed_weights(level_sizes=(10, 20))),
        "architecture",
    ),
    "attention": (
        state_of_built(weights=perturbed_weights(attention=True)),
        "architecture",
    ),
    "other shipped weights": (
        state_of_built(weights="default-v1"),
        "with `weights='default-v1'`",
    ),
    "averages": (state_of_built(use_ema=True), "compare `use_ema`"),
    "accumulators": (
        state_of_built(gradient_accumulation_steps=2),
        "gradient_accumulation_steps",
    ),
    "a schedule": (state_of_built(learning_rate=COSINE), "learning rate is a"),
    "Adam's": (adam_state, "another optimizer's state"),
    "not built": (lambda: state_of(HierarchicalRNN()), "Received"),
    "another format": (other_description(format="learned_optimizer/9"), "format"),
    "blocks of nothing": (other_description(block_size=0), "positive .*Received: 0"),
    "blocks of a half": (other_description(block_size=0.5), "integer 'block_size'"),
    "blocks of what": (other_description(block_size=None), "integer 'block_size'"),
    "blocks of truth": (other_description(block_size=True), "Received: True"),
    "a config that is a list": (other_description(config=[1]), "'config' in .*mapping"),
    "a config of nonsense": (
        other_description(config={"attention": 1}),
        "'config' in a state's description .*must be True or False",
    ),
    "no JSON": (replace("description", b"{"), "must be JSON"),
    "no object": (replace("description", b"[]"), "must be an object"),
    "an array missing": (lambda store: store.pop("tensor_state"), "Missing: .'tensor"),
    "an array too many": (replace("surplus", b""), "Not part of it: .'surplus'"),
    "an array of another shape": (replace("started", b"9"), "'started' must have the"),
    "packed in no blocks": (
        lambda store: store.update(hidden_state=np.zeros((10, 1, 7), np.float32)),
        "'hidden_state' must be of 10 features",
    ),
}


@pytest.fixture(scope="module")
def trained():
    return built(trained=2)


@pytest.mark.parametrize("name", REFUSED)
def test_a_state_that_does_not_fit_is_refused_and_nothing_assigned(name, trained):
    make, words = REFUSED[name]
    optimizer, _ = trained
    before = state_of(optimizer)
    if make.__code__.co_argcount:
        # All other numbers, too: whichever of them were assigned would show.
        store = {
            key: value if key == "description" else value + 1
            for key, value in before.items()
        }
        make(store)
    else:
        store = make()
    with pytest.raises(ValueError, match=words):
        optimizer.load_own_variables(store)
    assert_equal_states(state_of(optimizer), before)


def test_a_model_that_was_compiled_and_not_trained_is_saved_and_loaded(tmp_path):
    model = make_model(Problem.make())
    model.compile(HierarchicalRNN(learning_rate=0.25), loss="mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.learning_rate) == 0.25
    assert loaded.optimizer.get_config() == model.optimizer.get_config()


# In a `LossScaleOptimizer`.


def loss_scaled(problem, file=None):
    """A model with the optimizer in a `LossScaleOptimizer`, with what `file` holds."""
    model = make_model(problem)
    inner = HierarchicalRNN(initial_learning_rate=INITIAL_LEARNING_RATE)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), by_hand.mean_output)
    model.optimizer.build(model.trainable_variables)
    if file:
        model.load_weights(file)
    return model


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
def test_a_state_is_not_taken_into_a_loss_scale_nor_out_of_it(tmp_path):
    problem = Problem.make(steps=1)
    plain, bare = make_model(problem), make_model(problem)
    fit(plain, HierarchicalRNN(), problem)
    scaled = loss_scaled(problem)
    for name, model in (("plain", plain), ("scaled", scaled), ("bare", bare)):
        model.save_weights(tmp_path / f"{name}.weights.h5")
    inner = scaled.optimizer.inner_optimizer
    before = state_of(inner), state_of(plain.optimizer)
    with pytest.warns(UserWarning, match="must lie where the optimizer does"):
        scaled.load_weights(tmp_path / "plain.weights.h5")
    with pytest.raises(ValueError, match="another optimizer's state"):
        plain.load_weights(tmp_path / "scaled.weights.h5")
    # Weights alone are no state.
    for model in (scaled, plain):
        model.load_weights(tmp_path / "bare.weights.h5")
    assert_equal_states(state_of(inner), before[0])
    assert_equal_states(state_of(plain.optimizer), before[1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_half_and_double_precision_survive_a_file(dtype, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=dtype)])
    weights = perturbed_weights(attention=True)
    arguments = dict(use_ema=True, gradient_accumulation_steps=2, weights=weights)
    model.compile(HierarchicalRNN(**arguments), loss="mse")
    draw = np.random.default_rng(0).standard_normal
    variables = model.trainable_variables
    gradients = [tf.cast(draw(variable.shape), dtype) for variable in variables]
    for _ in range(3):
        model.optimizer.apply(gradients, variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal_states(state_of(loaded.optimizer), state_of(model.optimizer))


@pytest.mark.parametrize("restored", ["built", "before it is built"])
def test_tf_train_checkpoint_goes_on_where_it_was(restored, tmp_path):
    arguments = dict(use_ema=True, weights=perturbed_weights(attention=True))
    problem = Problem.make(steps=4)
    optimizer, variables = built(problem, trained=3, **arguments)
    checkpoint = tf.train.Checkpoint(optimizer=optimizer, **_named(variables))
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    other = HierarchicalRNN(**arguments)
    other_variables = make_variables(problem)
    if restored == "built":
        other.build(other_variables)
    checkpoint = tf.train.Checkpoint(optimizer=other, **_named(other_variables))
    status = checkpoint.restore(path)
    other.build(other_variables)
    if restored == "built":
        status.assert_existing_objects_matched()
    assert_equal_states(state_of(other), state_of(optimizer))
    for each, its in ((optimizer, variables), (other, other_variables)):
        apply_all(each, its, problem.gradients()[3:])
    assert_equal_states(state_of(other), state_of(optimizer))
    assert_equal(numbers(variables), numbers(other_variables))


@pytest.mark.parametrize("restored, wrapped", [("built", True), ("not built", False)])
def test_a_checkpoint_of_another_architecture_is_refused(restored, wrapped, tmp_path):
    # Their arrays have equal shapes.
    problem = Problem.make(steps=2)
    optimizer, _ = built(problem, trained=1, weights="default-v1")
    other = HierarchicalRNN(weights="default-v2")
    if restored == "built":
        other.build([keras.Variable(value) for value in problem.values])
        before = state_of(other)
    one, two = optimizer, other
    if wrapped:
        one, two = map(keras.optimizers.LossScaleOptimizer, (one, two))
    path = tf.train.Checkpoint(optimizer=one).save(str(tmp_path / "checkpoint"))
    checkpoint = tf.train.Checkpoint(optimizer=two)
    with pytest.raises(ValueError, match="(?s)restored into.*`weights='default-v1'`"):
        checkpoint.restore(path)
    if restored == "built":
        assert_equal_states(state_of(other), before)


def _named(variables):
    return {f"piece_{index}": x.value for index, x in enumerate(variables)}


@pytest.mark.parametrize("other", on_backends("jax", "torch", is_slow=True))
def test_a_model_saved_under_one_backend_trains_on_under_another(other, tmp_path):
    # This process runs the other backend, a child TensorFlow.
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()

    child = functools.partial(output_of, "-m", "tests.learned_optimizer.old_states")
    names = ["model.keras", "all.weights.h5"]
    old_states.write(here, names)
    child(there, *names)
    # Each goes on from the other's file, in the middle.
    old_states.go_on(there, names)
    child("--go_on", here, *names)
    wanted, *others = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("losses", "gone_on")
        for folder in (here, there)
    )
    for found in others:
        assert_close(found, wanted, rtol=2e-5)

"""Breaks one behaviour of the optimizer at a time and sees whether its tests fail.

    python -m tests.break_on_purpose            # about 20 minutes on two quiet cores
    python -m tests.break_on_purpose --only=clipnorm,sha256

Each fault is a line of the source, changed in a copy of the checkout, and the quick
tests that ought to see it. Ends with a status other than 0 if one does not, or if the
source no longer has the line that a fault changes.
"""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "learned_optimizer"
TESTS = f"tests/{PACKAGE}"
# Cells of the table in `test_ways.py`, the cheapest way.
CELL = f"{TESTS}/test_ways.py::test_every_behaviour_comes_out_as_by_hand_in_every_way"

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Fault:
    """One line broken.

    Attributes:
        file: In the package.
        old: What stands there, once.
        new: What takes its place.
        tests: Arguments of pytest: the tests that must fail.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def count(self, checkout: pathlib.Path = ROOT) -> int:
        """How often the line stands in a checkout."""
        path = checkout / PACKAGE / self.file
        return path.read_text(encoding="utf-8").count(self.old)


def cell(behaviour, way="apply_in_chunks"):
    """The test of one behaviour in one way."""
    return (f"{CELL}[{way}-{behaviour}]",)


def matching(file, words):
    """The tests of a file whose names have these words."""
    return (f"{TESTS}/{file}.py", "-k", words)


FAULTS = {
    # The update rule, against the golden data of the released code.
    "cell": Fault(
        "gru.py",
        "return candidate + update * (state - candidate)",
        "return state + update * (candidate - state)",
        matching("test_golden", "a_pert"),
    ),
    "momentum": Fault(
        "features.py",
        "new_averages = gradient + decay * (averages - gradient)",
        "new_averages = averages + decay * (gradient - averages)",
        matching("test_golden", "a_pert"),
    ),
    "first step": Fault(
        "features.py",
        "squares + started * mean_square_decay",
        "squares + mean_square_decay",
        matching("test_golden", "a_zero_first"),
    ),
    "mean of learning rates": Fault(
        "tensor_pass.py",
        'if config.learning_rate_mean == "problem":',
        'if config.learning_rate_mean != "problem":',
        matching("test_golden", "problem_lr_mean_off"),
    ),
    # Keras's arguments, against a computation by hand.
    "learning_rate": Fault(
        "tensor_pass.py",
        "found = [learning_rate * direction for direction in directions]",
        "found = list(directions)",
        cell("learning_rate"),
    ),
    "learning_rate of the attended step": Fault(
        "tensor_pass.py",
        "found = [learning_rate * direction for direction in directions]",
        "found = [learning_rate * directions[0], *directions[1:]]",
        cell("attention_and_decay"),
    ),
    "weight_decay follows the step length": Fault(
        "parameter_pass.py",
        'steps.append(step_length * blocks["weight_decay"]',
        'steps.append(blocks["weight_decay"]',
        cell("weight_decay"),
    ),
    "weight_decay of the true values": Fault(
        "model_step.py",
        "        parameters = _parameters(settings, variables)\n"
        "        values = packing",
        "        parameters = variables.values\n        values = packing",
        cell("attention_and_decay"),
    ),
    "exclude_from_weight_decay": Fault(
        "hierarchical_rnn.py",
        "self.weight_decay if self._use_weight_decay(variable) else 0.0",
        "self.weight_decay",
        matching("test_hierarchical_rnn", "excluded_from_weight_decay"),
    ),
    "clipvalue": Fault(
        "packed_step.py",
        "return ops.clip(packed, -settings.clipvalue, settings.clipvalue)",
        "return packed",
        cell("clipvalue"),
    ),
    "clipnorm": Fault(
        "packed_step.py",
        "scales = limit / ops.maximum(ops.sqrt(squares), limit)",
        "scales = limit / ops.maximum(ops.sqrt(ops.sum(squares)), limit)"
        " + ops.zeros_like(squares)",
        cell("clipnorm"),
    ),
    "global_clipnorm": Fault(
        "packed_step.py",
        "return packed * (limit / ops.maximum(ops.sqrt(squares), limit))",
        "return packed",
        cell("global_clipnorm"),
    ),
    "global norm of finite tensors": Fault(
        "packed_step.py",
        "squares = ops.sum(ops.where(active > 0, squares, 0.0))",
        "squares = ops.sum(ops.where(squares < 1e20, squares, 1.0))",
        cell("not_finite"),
    ),
    "averages": Fault(
        "model_step.py",
        "ops.cast(ops.not_equal(updates, 0), dtype) * settings.ema_momentum",
        "settings.ema_momentum",
        matching("test_ways", "apply_in_chunks-averages"),
    ),
    "overwriting averages": Fault(
        "model_step.py",
        "(updates + 1) % settings.ema_overwrite_frequency",
        "(updates + 2) % settings.ema_overwrite_frequency",
        cell("overwriting_averages"),
    ),
    "accumulation": Fault(
        "model_step.py",
        "totals[position] / settings.accumulation_steps for",
        "totals[position] for",
        cell("accumulation"),
    ),
    "accumulation starts afresh": Fault(
        "model_step.py",
        "variable.assign(ops.where(due, ops.zeros_like(total), total))",
        "variable.assign(total)",
        cell("accumulation"),
    ),
    "loss_scale_factor": Fault(
        "model_step.py",
        'ops.cast(gradient, "float32") / settings.loss_scale_factor',
        'ops.cast(gradient, "float32")',
        cell("loss_scale_factor"),
    ),
    "constraint": Fault(
        "model_step.py",
        "ops.where(active[position] > 0, constraint(value), value)",
        "ops.where(active[position] > 1, constraint(value), value)",
        cell("constraint"),
    ),
    "attended location": Fault(
        "model_step.py",
        "location = value - ops.cast(attended_steps[position], value.dtype)",
        "location = value - ops.cast(steps[position], value.dtype)",
        cell("attention"),
    ),
    "final values of fit": Fault(
        "hierarchical_rnn.py",
        "final_values = variables.averages or variables.true_values",
        "final_values = variables.true_values",
        cell("everything", "fit_jit_compile"),
    ),
    # Gradients that are not finite, or absent.
    "gradients that are not finite": Fault(
        "packed_step.py",
        "return takes_part * finite, skipped",
        "return takes_part, skipped",
        cell("not_finite"),
    ),
    "state of what is left out": Fault(
        "parameter_pass.py",
        'if "active" not in blocks:',
        'if "active" in blocks:',
        cell("not_finite"),
    ),
    "mean over what takes part": Fault(
        "tensor_pass.py",
        "counts = ops.where(active > 0, counts, 0.0)",
        "counts = ops.where(active > 1, 0.0, counts)",
        cell("not_finite"),
    ),
    "skipped_steps": Fault(
        "packed_step.py",
        "skipped_steps.assign(ops.convert_to_tensor(skipped_steps) + skipped)",
        "skipped_steps.assign(ops.convert_to_tensor(skipped_steps) + 0 * skipped)",
        cell("not_finite"),
    ),
    "None gradients": Fault(
        "model_step.py",
        "present[list(settings.present)] = 1",
        "present[:] = 1",
        matching("test_hierarchical_rnn", "without_gradient or frozen"),
    ),
    # Where rates start.
    "range of initial rates": Fault(
        "hierarchical_rnn.py",
        "half = (high - low) / 2",
        "half = high - low",
        matching("test_hierarchical_rnn", "half_drawn"),
    ),
    "sizes of tensors": Fault(
        "hierarchical_rnn.py",
        "np.mean(np.square(value)) if value.size else 0.0",
        "np.mean(np.square(value)) * 4 if value.size else 0.0",
        matching("test_nominal", "does_what_the_rule_does"),
    ),
    # Looking inside, saving, loading.
    "read-only slots": Fault(
        "inspection.py",
        "array.flags.writeable = False",
        "pass",
        matching("test_hierarchical_rnn", "read_only"),
    ),
    "repacked state": Fault(
        "state_files.py",
        "first += blocks[tensor]",
        "first += 0",
        matching("test_saving", "repacked"),
    ),
    "state of other variables": Fault(
        "state_files.py",
        "    if missing or unknown:",
        "    if False:",
        matching("test_saving", "does_not_fit"),
    ),
    "a failed load assigns nothing": Fault(
        "state_files.py",
        "        values[name] = value\n",
        "        values[name] = value\n"
        "        if not isinstance(variable, list):\n"
        "            variable.assign(value)\n",
        matching("test_saving", "does_not_fit"),
    ),
    "architecture in a checkpoint": Fault(
        "checkpoint_config.py",
        "if saved != self.config.to_dict():",
        "if False:",
        matching("test_saving", "another_architecture"),
    ),
    "seed in the config": Fault(
        "hierarchical_rnn.py",
        '"seed": self.seed,',
        '"seed": None,',
        matching("test_hierarchical_rnn", "config_makes_the_same"),
    ),
    "sha256": Fault(
        "weights.py",
        'if sha256 != card["sha256"]:',
        "if False:",
        matching("test_weights", "bad_files"),
    ),
    # tf.distribute.
    "sum over replicas": Fault(
        "tensorflow_backend.py",
        "for pair in optimizer._all_reduce_sum_gradients(pairs)",
        "for pair in pairs",
        matching("test_distributed", "done_by_hand and not slow"),
    ),
    "scope of the strategy": Fault(
        "tensorflow_backend.py",
        "if strategy is not self.strategy and not single:",
        "if False:",
        (*matching("test_distributed", "another_strategy"), "-m", ""),
    ),
}


def define_flags():
    """Defines the flags; a function, so that an import has no side effect."""
    flags.DEFINE_list("only", [], "Names of faults; empty: all.")


def copy_checkout(target: pathlib.Path):
    """Copies what git tracks, as it is in the work tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def outcome(fault: Fault, checkout: pathlib.Path) -> str:
    """What the tests say of a fault: `seen`, or what went otherwise."""
    if fault.count(checkout) != 1:
        return f"the source has the line {fault.count(checkout)} times"
    path = checkout / PACKAGE / fault.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(fault.old, fault.new), encoding="utf-8")
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
            + list(fault.tests),
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
        )
    finally:
        path.write_text(whole, encoding="utf-8")
    # 1: tests ran and some failed. Anything else, but for 0, tested nothing.
    if ended.returncode == 1:
        return "seen"
    if ended.returncode == 0:
        return "not seen"
    return f"pytest ended with {ended.returncode}: {ended.stdout[-500:]}"


def main(arguments):
    """Breaks, tests, and tells."""
    if len(arguments) > 1:
        raise app.UsageError(f"break_on_purpose takes flags alone: {arguments[1:]}")
    unknown = set(FLAGS.only) - set(FAULTS)
    if unknown:
        raise app.UsageError(
            f"--only must be of {', '.join(FAULTS)}; received {sorted(unknown)}"
        )
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        checkout = pathlib.Path(folder)
        copy_checkout(checkout)
        for name in FLAGS.only or FAULTS:
            found = outcome(FAULTS[name], checkout)
            wrong += found != "seen"
            print(f"{name}: {found}", flush=True)
    print(f"{len(FLAGS.only or FAULTS) - wrong} faults seen, {wrong} not")
    return int(wrong > 0)


if __name__ == "__main__":
    define_flags()
    app.run(main)

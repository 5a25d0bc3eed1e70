"""What a meta-training run is: every setting, the presets, and their file.

A run's settings lie in `config.json` in its folder. A run goes on only under the same
settings; those of `MAY_CHANGE` alone may differ from sitting to sitting.
"""

import dataclasses
import fnmatch
import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any

from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils.atomic_write import atomic_write
from meta_training import estimators
from meta_training.inner.trajectories import TrajectoryOptions
from meta_training.inner.windows import UnrollOptions
from meta_training.optimizers import (
    HierarchicalRule,
    nominal_rate_of,
    trainable_optimizer,
)
from meta_training.outer import meta_optimizers
from meta_training.outer.run_folder import LOCK
from meta_training.tasks import task_set

FILE = "config.json"
# What a run may change when it goes on. A new number of outer steps stretches the
# decay of the learning rate from there on.
MAY_CHANGE = ("outer_steps", "checkpoint_every", "validate_every")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The settings of a run.

    Attributes:
        optimizer: Name of the trainable optimizer.
        task_set: Name of the set of tasks.
        copies: Instances of each task that train side by side.
        cohorts: Cohorts of trajectories, each of all tasks and all copies, with a
            seed of its own; the meta-gradient is the mean over them. They are what a
            distribution deals out.
        minibatch_weight: How much a task that draws minibatches counts.
        noisy_weight: How much a task with gradient noise or zeroed elements counts.
        deterministic_weight: How much any other task counts.
        estimator: Name of the estimator of the meta-gradient.
        trained_arrays: Names of the meta-parameter arrays that are trained; a name
            ending in `*` stands for all that begin so. Empty: all arrays.
        pes_sigma: Standard deviation of the perturbations of `pes`.
        init_weights: Weights to start from, by name or path; None: fresh ones.
        nominal: Whether the architecture has a nominal learning rate, see
            `learned_optimizer.rule.nominal_rate`: its fields, or None for what the
            weights have. The weights are widened where they had none.
        outer_steps: Meta-parameter updates.
        seed: Of everything random.
        meta_optimizer: `adam` or `rmsprop`.
        meta_learning_rate: Its learning rate at the start.
        cosine_decay: Whether that rate falls to a fiftieth over the run.
        clip_value: Bound on each element of the meta-gradient, None: none.
        clip_norm: Bound on its norm, None: none.
        block_size: Elements a block of the packed layout.
        parts: Into how many parts a window's problems are dealt out, to keep so many
            cores busy; what is drawn at random depends on it.
        objective_rows: Rows on which objectives are recorded; None: all.
        checkpoint_every: Outer steps between checkpoints.
        validate_every: Outer steps between validations; 0: never.
        trajectories: How trajectories start and end.
        unroll: How windows are unrolled.
    """

    optimizer: str = "hierarchical_rnn"
    task_set: str = "released"
    copies: int = 1
    cohorts: int = 1
    minibatch_weight: float = 1.0
    noisy_weight: float = 1.0
    deterministic_weight: float = 1.0
    estimator: str = "truncated"
    trained_arrays: tuple[str, ...] = ()
    pes_sigma: float = 0.01
    init_weights: str | None = None
    nominal: NominalRate | None = None
    outer_steps: int = 1000
    seed: int = 0
    meta_optimizer: str = "rmsprop"
    meta_learning_rate: float = 1e-6
    cosine_decay: bool = False
    clip_value: float | None = None
    clip_norm: float | None = None
    block_size: int = 16
    parts: int = 1
    objective_rows: int | None = None
    checkpoint_every: int = 10
    validate_every: int = 50
    trajectories: TrajectoryOptions = TrajectoryOptions()
    unroll: UnrollOptions = UnrollOptions(max_steps=500)

    def __post_init__(self):
        positive = ("copies", "cohorts", "outer_steps", "block_size", "parts")
        for name in (*positive, "checkpoint_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} must be a positive integer, received {value!r}"
                )
        if self.validate_every < 0 or self.seed < 0:
            raise ValueError(
                "validate_every and seed must be 0 or more, "
                f"received {self.validate_every} and {self.seed}"
            )
        for name in ("clip_value", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive or None, received {value!r}")
        if not 0 < self.meta_learning_rate < math.inf:
            raise ValueError(
                "meta_learning_rate must be positive and finite, "
                f"received {self.meta_learning_rate!r}"
            )
        if self.objective_rows is not None and self.objective_rows < 1:
            raise ValueError(
                "objective_rows must be a positive integer or None, "
                f"received {self.objective_rows!r}"
            )
        if self.trajectories.max_window_steps != self.unroll.max_steps:
            raise ValueError(
                "max_steps of the unroll must be the most steps of a window, received "
                f"{self.unroll.max_steps} and {self.trajectories.max_window_steps}"
            )
        object.__setattr__(self, "trained_arrays", tuple(self.trained_arrays))
        trainable_optimizer(self.optimizer)
        if self.nominal is not None and self.optimizer != HierarchicalRule.name:
            raise ValueError(
                f"nominal is a setting of {HierarchicalRule.name}, received it with "
                f"the optimizer {self.optimizer}"
            )
        estimators.estimator(self.estimator)
        if self.meta_optimizer not in meta_optimizers.LIST:
            raise ValueError(
                f"meta_optimizer must be one of {', '.join(meta_optimizers.LIST)}; "
                f"received {self.meta_optimizer!r}"
            )

    def tasks(self):
        """The tasks, each `copies` times."""
        return [task for task in task_set(self.task_set) for _ in range(self.copies)]

    def is_trained(self, name: str) -> bool:
        """Whether the array called `name` is trained."""
        return not self.trained_arrays or any(
            fnmatch.fnmatchcase(name, pattern) for pattern in self.trained_arrays
        )

    def check_trained(self, names: Iterable[str]) -> None:
        """Refuses `trained_arrays` of which one is none of these names.

        Raises:
            ValueError: So it is.
        """
        names = list(names)
        idle = [
            pattern
            for pattern in self.trained_arrays
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names)
        ]
        if idle:
            raise ValueError(
                f"trained_arrays must be among {', '.join(names)}; received {idle}"
            )

    def weight(self, task) -> float:
        """How much a task counts."""
        if task.batch_size is not None:
            return self.minibatch_weight
        if task.noise_stdev > 0 or task.gradient_zero_probability > 0:
            return self.noisy_weight
        return self.deterministic_weight

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types."""
        values = dataclasses.asdict(self)
        values["trained_arrays"] = list(self.trained_arrays)
        return values

    def settle(self, folder: pathlib.Path) -> None:
        """Makes `folder` the folder of this run, or finds that it is that.

        Raises:
            ValueError: See `check_folder`.
        """
        self.check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(self.to_dict(), indent=1) + "\n"
        atomic_write(folder / FILE, content.encode())

    def check_folder(self, folder: pathlib.Path) -> None:
        """Finds out whether `folder` can be that of this run; writes nothing.

        Raises:
            ValueError: The folder is that of a run of other settings, or holds
                something else.
        """
        if not folder.is_dir():
            return
        path = folder / FILE
        wanted = self.to_dict()
        if path.is_file():
            # Settings that came later than the run had their defaults in it.
            found = json.loads(path.read_text(encoding="utf-8"))
            defaults = TrainingConfig().to_dict()
            if found.get("nominal") is not None:
                defaults["nominal"] = dataclasses.asdict(NominalRate())
            found = _completed(found, defaults)
            names = sorted(set(found) | set(wanted))
            differing = [
                f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now"
                for name in names
                if name not in MAY_CHANGE and found.get(name) != wanted.get(name)
            ]
            if differing:
                raise ValueError(
                    f"train_dir {str(folder)!r} holds a run of another configuration; "
                    f"use a new folder, or these settings: {'; '.join(differing)}"
                )
        # Who was killed as it settled left the file that it wrote aside.
        elif any(
            not p.name.startswith(f".{FILE}.") and p.name != LOCK
            for p in folder.iterdir()
        ):
            raise ValueError(
                f"train_dir {str(folder)!r} must be empty or hold a run of this "
                f"program: it has files and no {FILE}"
            )


def _completed(found: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`found` with what it lacks of `defaults`, also in the parts that are dicts."""
    nested = {
        name: _completed(value, defaults[name])
        for name, value in found.items()
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
    }
    return {**defaults, **found, **nested}


def preset(name: str, **changes) -> TrainingConfig:
    """The settings of a preset, with changes.

    `released`: the released command line: windows of 50 + Exp(200) steps (cut off at
    1,000, which bounds the memory), about 41 windows a trajectory, learning rates from
    1e-6 to 1e-2, RMSProp at 1e-6, elements of the meta-gradient within 1e4, nothing
    clipped through time. Its architecture differs from the released one in one switch:
    `global_rnn_input="all_tensors"`, where the global RNN of the released code takes in
    the last tensor alone (`"last_tensor"`). `default`: what ships: a nominal learning
    rate, cheap windows of 150 steps on average, see BUILD_NOTES.md.

    The nominal rate of a preset is for fresh weights and for those without one. Weights
    that have one keep it, but for its fields that `changes` name.

    Args:
        name: `released` or `default`.
        **changes: Fields of `TrainingConfig`, of its two parts, or of its nominal rate.
            `nominal` itself, where it is given and not None, replaces the weights' own.

    Raises:
        ValueError: There is no such preset, a value is out of its range, or
            `init_weights` cannot be loaded.
    """
    if name not in _PRESETS:
        raise ValueError(
            f"preset must be one of {', '.join(_PRESETS)}; received {name!r}"
        )
    values, trajectories, unroll = (dict(part) for part in _PRESETS[name])
    nominal = {}
    if changes.get("optimizer", HierarchicalRule.name) != HierarchicalRule.name:
        values.pop("nominal", None)
    for key, value in changes.items():
        if key in _TRAJECTORY_FIELDS:
            trajectories[key] = value
        elif key in _UNROLL_FIELDS:
            unroll[key] = value
        elif key in _NOMINAL_FIELDS:
            nominal[key] = value
        else:
            values[key] = value
    if nominal or (values.get("nominal") and not changes.get("nominal")):
        base = changes.get("nominal") or nominal_rate_of(values.get("init_weights"))
        base = base or values.get("nominal") or NominalRate()
        values["nominal"] = dataclasses.replace(base, **nominal)
    unroll["max_steps"] = trajectories["max_window_steps"]
    return TrainingConfig(
        **values,
        trajectories=TrajectoryOptions(**trajectories),
        unroll=UnrollOptions(**unroll),
    )


_TRAJECTORY_FIELDS = {f.name for f in dataclasses.fields(TrajectoryOptions)}
_UNROLL_FIELDS = {f.name for f in dataclasses.fields(UnrollOptions)}
# The settings of the nominal rate, which a run has if one of them is given.
_NOMINAL_FIELDS = {f.name for f in dataclasses.fields(NominalRate)}
_PRESETS: dict[str, tuple[dict, dict, dict]] = {
    "released": (
        {
            "task_set": "released",
            "parts": 2,
            "meta_optimizer": "rmsprop",
            "meta_learning_rate": 1e-6,
            "clip_value": 1e4,
        },
        {"mean_window_steps": 250.0, "max_window_steps": 1000},
        {},
    ),
    "default": (
        {
            "task_set": "default",
            "parts": 2,
            "minibatch_weight": 2.0,
            "deterministic_weight": 0.5,
            "meta_optimizer": "adam",
            "meta_learning_rate": 1e-3,
            "cosine_decay": True,
            "clip_norm": 1.0,
            "block_size": 32,
            "objective_rows": 64,
            "nominal": NominalRate(),
        },
        {
            "min_window_steps": 50,
            "mean_window_steps": 150.0,
            "max_window_steps": 300,
            "mean_horizon": 3000.0,
            "low_learning_rate": 1e-6,
            "high_learning_rate": 1e-1,
            "spread_over_elements": False,
            "scale_range": 10.0,
            "scale_jitter": 0.3,
            "redraw_probability": 0.1,
        },
        {"clip_through_time": 0.06, "second_derivatives": False},
    ),
}

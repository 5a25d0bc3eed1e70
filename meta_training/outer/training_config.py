"""What a meta-training run is: every setting, the presets, and their file.

A run's settings are in `config.json` in its folder. A run resumes only with the same
settings, apart from those in `MAY_CHANGE`.
"""

import dataclasses
import pathlib
from typing import Any

from learned_optimizer.rule.nominal_rate import NominalRate
from learned_optimizer.utils import run_folder
from learned_optimizer.utils.flags import check_settings, require_member, setting
from meta_training import estimators
from meta_training.inner.trajectories import TrajectoryConfig
from meta_training.inner.windows import UnrollConfig
from meta_training.optimizers import (
    HierarchicalRule,
    list_optimizers,
    nominal_rate_of,
    trainable_optimizer,
)
from meta_training.outer.meta_optimizers import META_OPTIMIZERS
from meta_training.tasks import list_task_sets, task_set

FILE = "config.json"
# What may differ when a run resumes. Another number of outer steps stretches the decay
# of the learning rate from there on.
MAY_CHANGE = ("outer_steps", "checkpoint_every", "validate_every")
# A setting that earlier versions had: names of arrays, empty for all.
_EARLIER = {"trained_arrays": []}


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The settings of a run; `setting` documents each field.

    Attributes:
        nominal: The nominal learning rate of the architecture, see
            `learned_optimizer.rule.nominal_rate`, or None for what the weights have.
            Weights without one are widened.
        trajectories: How trajectories start and end.
        unroll: How windows are unrolled.
    """

    optimizer: str = setting(
        "hierarchical_rnn", f"What is trained: {', '.join(list_optimizers())}."
    )
    task_set: str = setting(
        "released", f"The set of tasks: {', '.join(list_task_sets())}."
    )
    copies: int = setting(
        1, "Instances of each task that train side by side.", at_least=1
    )
    cohorts: int = setting(
        1,
        "Cohorts of trajectories, each of all tasks and copies with a separate seed; "
        "the meta-gradient is the mean over them. A distribution divides them among "
        "its replicas or workers; by default one for each.",
        at_least=1,
    )
    minibatch_weight: float = setting(
        1.0, "Weight of tasks that draw minibatches.", at_least=0
    )
    noisy_weight: float = setting(
        1.0, "Weight of tasks with noise or zeroed gradients.", at_least=0
    )
    deterministic_weight: float = setting(1.0, "Weight of all other tasks.", at_least=0)
    estimator: str = setting(
        "truncated", f"Of the meta-gradient: {', '.join(estimators.list_estimators())}."
    )
    pes_sigma: float = setting(
        0.01, "Standard deviation of the perturbations of pes.", above=0
    )
    init_weights: str | None = setting(
        None, "Name or path of the weights to start from; by default fresh ones."
    )
    nominal: NominalRate | None = None
    outer_steps: int = setting(1000, "Updates of the meta-parameters.", at_least=1)
    seed: int = setting(0, "Of everything random.", at_least=0)
    meta_optimizer: str = setting(
        "rmsprop", "The optimizer of the meta-parameters.", choices=META_OPTIMIZERS
    )
    meta_learning_rate: float = setting(
        1e-6, "Learning rate of the meta-optimizer at the first outer step.", above=0
    )
    cosine_decay: bool = setting(
        False, "Whether the meta learning rate falls to a fiftieth over the run."
    )
    clip_value: float | None = setting(
        None, "Bound on each element of the meta-gradient.", above=0, zero_is_none=True
    )
    clip_norm: float | None = setting(
        None, "Bound on the norm of the meta-gradient.", above=0, zero_is_none=True
    )
    block_size: int = setting(
        16, "Elements per block of the packed layout.", at_least=1
    )
    parts: int = setting(
        1,
        "Shards of a window's problems, one for each core; what is drawn at random "
        "depends on it.",
        at_least=1,
    )
    objective_rows: int | None = setting(
        None,
        "Rows of data on which objectives are recorded; by default all.",
        at_least=1,
        zero_is_none=True,
    )
    checkpoint_every: int = setting(10, "Outer steps between checkpoints.", at_least=1)
    validate_every: int = setting(
        50, "Outer steps between validations; 0: never.", at_least=0
    )
    trajectories: TrajectoryConfig = TrajectoryConfig()
    unroll: UnrollConfig = UnrollConfig(max_steps=500)

    def __post_init__(self):
        check_settings(self)
        trainable_optimizer(self.optimizer)
        estimators.estimator(self.estimator)
        if self.trajectories.max_window_steps != self.unroll.max_steps:
            raise ValueError(
                "max_steps of the unroll must be max_window_steps. Received: "
                f"{self.unroll.max_steps} and {self.trajectories.max_window_steps}"
            )
        if self.nominal is not None and self.optimizer != HierarchicalRule.name:
            raise ValueError(
                f"optimizer must be {HierarchicalRule.name} where nominal is set. "
                f"Received: {self.optimizer}"
            )

    def tasks(self):
        """The tasks, each `copies` times."""
        return [task for task in task_set(self.task_set) for _ in range(self.copies)]

    def weight(self, task) -> float:
        """How much a task counts."""
        if task.batch_size is not None:
            return self.minibatch_weight
        if task.noise_stdev > 0 or task.gradient_zero_probability > 0:
            return self.noisy_weight
        return self.deterministic_weight

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON types."""
        return dataclasses.asdict(self)

    def write_or_verify(self, folder: pathlib.Path) -> None:
        """Writes `config.json`, or verifies that the one there is of this run."""
        run_folder.write_or_verify(*self._identity(folder))

    def verify(self, folder: pathlib.Path) -> None:
        """Raises ValueError unless `folder` is new, empty or that of this run."""
        run_folder.verify(*self._identity(folder))

    def _identity(self, folder):
        # A run of an earlier version had the defaults of settings that came later.
        defaults = TrainingConfig().to_dict()
        defaults["nominal"] = dataclasses.asdict(NominalRate())
        if (run_folder.read_identity(folder / FILE) or {}).get("nominal") is None:
            defaults["nominal"] = None
        return folder / FILE, self.to_dict() | _EARLIER, defaults | _EARLIER, MAY_CHANGE


def preset(name: str, **changes) -> TrainingConfig:
    """The settings of a preset, with changes.

    `released`: the released command line: windows of 50 + Exp(200) steps (cut off at
    1,000, which bounds the memory), about 41 windows a trajectory, learning rates from
    1e-6 to 1e-2, RMSProp at 1e-6, elements of the meta-gradient within 1e4, nothing
    clipped through time. Its architecture differs from the released one in one switch:
    `global_rnn_input="all_tensors"`, where the global RNN of the released code takes in
    the last tensor alone (`"last_tensor"`). `default`: what ships: a nominal learning
    rate, cheap windows of 150 steps on average, see docs/meta_training.md.

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
    require_member("preset", name, PRESETS)
    values = {**PRESETS[name], **changes}

    def take(config_class):
        fields = [field.name for field in dataclasses.fields(config_class)]
        return {name: values.pop(name) for name in fields if name in values}

    trajectories = TrajectoryConfig(**take(TrajectoryConfig))
    unroll = UnrollConfig(
        **{**take(UnrollConfig), "max_steps": trajectories.max_window_steps}
    )
    if (
        values.get("optimizer", HierarchicalRule.name) != HierarchicalRule.name
        and "nominal" not in changes
    ):
        values.pop("nominal", None)
    nominal = take(NominalRate)
    if nominal or (values.get("nominal") and not changes.get("nominal")):
        base = changes.get("nominal") or nominal_rate_of(values.get("init_weights"))
        base = base or values.get("nominal") or NominalRate()
        values["nominal"] = dataclasses.replace(base, **nominal)
    return TrainingConfig(**values, trajectories=trajectories, unroll=unroll)


PRESETS: dict[str, dict[str, Any]] = {
    "released": {
        "task_set": "released",
        "parts": 2,
        "meta_optimizer": "rmsprop",
        "meta_learning_rate": 1e-6,
        "clip_value": 1e4,
        "mean_window_steps": 250.0,
        "max_window_steps": 1000,
    },
    "default": {
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
        "clip_through_time": 0.06,
        "second_derivatives": False,
    },
}

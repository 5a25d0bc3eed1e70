"""The optimizers that are compared, each as networks on ImageNet are trained with it.

`HierarchicalRNN` has nothing to set. The baselines come with the rate, warm-up,
schedule and weight decay of the works that are named beside them; the rates are
proportional to the batch size (Goyal et al. 2017, section 2.1; for RMSProp that is our
extension, and the gradient clipping of its work is left out).
"""

import dataclasses
from collections.abc import Callable

import keras

from learned_optimizer import HierarchicalRNN
from learned_optimizer.utils.flags import require_member

SCHEDULES = ("usual", "cosine", "constant")


@dataclasses.dataclass(frozen=True)
class OptimizerDefaults:
    """An optimizer and how it is usually run.

    Attributes:
        make: From the learning rate (or a schedule) and further arguments.
        learning_rate: The usual rate, at `batch_size` images a step.
        source: Where that is from.
        batch_size: To which the rate belongs; None: it does not follow the batch.
        schedule: `"constant"`, `"cosine"` (half a cosine from the rate to 0), or
            `"exponential"` (a factor of 0.94 every two epochs).
        warmup_epochs: In which the rate rises from 0.
        warmup_fraction: Of the run's steps, in which the rate rises from 0; beside
            `warmup_epochs` the longer of the two counts.
        weight_decay: Of convolution and dense kernels.
        decoupled: Whether the decay is taken off the kernels by the optimizer; else
            it is added to their gradients, as an L2 term of the loss does.
    """

    make: Callable[..., keras.optimizers.Optimizer]
    learning_rate: float
    source: str
    batch_size: int | None = None
    schedule: str = "cosine"
    warmup_epochs: float = 0
    warmup_fraction: float = 0.0
    weight_decay: float = 0.0
    decoupled: bool = True


OPTIMIZERS = {
    "hierarchical_rnn": OptimizerDefaults(
        HierarchicalRNN, 1.0, "nothing to set", schedule="constant"
    ),
    "rmsprop": OptimizerDefaults(
        lambda learning_rate: keras.optimizers.RMSprop(
            learning_rate, rho=0.9, momentum=0.9, epsilon=1.0
        ),
        0.045,
        "Szegedy et al. 2016, section 8; decay of kernels as TF-Slim's Inception V3",
        batch_size=32,
        schedule="exponential",
        weight_decay=4e-5,
        decoupled=False,
    ),
    "adam": OptimizerDefaults(
        keras.optimizers.Adam,
        1e-3,
        "Keras's default rate, with warm-up and cosine decay",
        warmup_epochs=5,
    ),
    "adamw": OptimizerDefaults(
        keras.optimizers.AdamW,
        5e-4,
        "Touvron et al. 2021 (DeiT), table 9",
        batch_size=512,
        warmup_epochs=5,
        weight_decay=0.05,
    ),
    "nadamw": OptimizerDefaults(
        keras.optimizers.Nadam,
        1e-3,
        "Dozat 2016 with decoupled decay; warm-up over 5% of the run and cosine as the "
        "baseline of Dahl et al. 2023 (AlgoPerf)",
        warmup_fraction=0.05,
        weight_decay=0.05,
    ),
    "momentum": OptimizerDefaults(
        lambda learning_rate: keras.optimizers.SGD(learning_rate, momentum=0.9),
        0.1,
        "Goyal et al. 2017, section 5.1; cosine of He et al. 2019, section 5.1",
        batch_size=256,
        warmup_epochs=5,
        weight_decay=1e-4,
        decoupled=False,
    ),
}


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer with every setting resolved for a run, see `OptimizerDefaults`.

    Args:
        name: A key of `OPTIMIZERS`.
        batch_size: Images a step, over all devices.
        train_steps: Steps of the run, to which a cosine is stretched.
        steps_per_epoch: Steps of an epoch.
        learning_rate: The highest one, above 0; None: the usual one for that batch.
        schedule: One of `SCHEDULES`.
        warmup_steps: None: as usual, but a tenth of the run at most.
        weight_decay: 0 or more; None: the usual one.
        weights: Of the learned optimizer.
        state_dtype: Of the learned optimizer.

    Raises:
        ValueError: A name is unknown, or the warm-up is longer than the run.
    """

    name: str
    _: dataclasses.KW_ONLY
    batch_size: int
    train_steps: int
    steps_per_epoch: float
    learning_rate: float | None = None
    schedule: str = "usual"
    warmup_steps: int | None = None
    weight_decay: float | None = None
    weights: str = "default"
    state_dtype: str = "float32"

    def __post_init__(self):
        require_member("optimizer", self.name, OPTIMIZERS)
        defaults = OPTIMIZERS[self.name]
        # What "usual" has become is known, too, where a copy is made.
        known = dict.fromkeys((*SCHEDULES, defaults.schedule))
        require_member("schedule", self.schedule, known)
        rate = defaults.learning_rate
        if defaults.batch_size:
            rate *= self.batch_size / defaults.batch_size
        warmup_steps = max(
            round(defaults.warmup_epochs * self.steps_per_epoch),
            round(defaults.warmup_fraction * self.train_steps),
        )
        for name, usual in (
            ("learning_rate", float(rate)),
            ("warmup_steps", min(warmup_steps, self.train_steps // 10)),
            ("weight_decay", defaults.weight_decay),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual)
        if self.schedule == "usual":
            object.__setattr__(self, "schedule", defaults.schedule)
        if not 0 <= self.warmup_steps <= self.train_steps:
            raise ValueError(
                "the warm-up must lie within the run. Received: "
                f"{self.warmup_steps} steps of {self.train_steps}"
            )

    @property
    def is_learned(self) -> bool:
        """Whether it is `HierarchicalRNN`."""
        return self.name == "hierarchical_rnn"

    @property
    def gradient_decay(self) -> float:
        """The part of the weight decay that goes into the gradients."""
        return 0.0 if OPTIMIZERS[self.name].decoupled else self.weight_decay

    def describe(self) -> str:
        """One line for logs and reports."""
        defaults = OPTIMIZERS[self.name]
        if self.is_learned:
            parts = [f"HierarchicalRNN(weights={self.weights!r})"]
            if self.learning_rate != 1.0:
                parts.append(f"learning_rate {self.learning_rate:.4g}")
            if self.state_dtype != "float32":
                parts.append(f"state in {self.state_dtype}")
        else:
            parts = [f"{self.name}: rate {self.learning_rate:.4g}"]
        if self.warmup_steps:
            parts.append(f"warm-up over {self.warmup_steps} steps")
        if self.schedule == "cosine":
            parts.append(f"cosine to 0 at step {self.train_steps}")
        elif self.schedule == "exponential":
            parts.append("times 0.94 every two epochs")
        if self.weight_decay:
            how = "decoupled" if defaults.decoupled else "in the gradient"
            parts.append(f"weight decay of kernels {self.weight_decay:g}, {how}")
        return ", ".join(parts) + f" ({defaults.source})"

    def rate(self) -> "float | WarmUp":
        """The learning rate, or its schedule."""
        if self.schedule == "constant" and not self.warmup_steps:
            return self.learning_rate
        names = ("learning_rate", "schedule", "warmup_steps", "train_steps")
        return WarmUp(*(getattr(self, n) for n in (*names, "steps_per_epoch")))

    def rate_at(self, step: int) -> float:
        """What multiplies the step after `step` others."""
        rate = self.rate()
        return float(rate(step) if callable(rate) else rate)

    def make(self, model: keras.Model) -> keras.optimizers.Optimizer:
        """The optimizer, built for the model's variables.

        Under a strategy this is to be called in its scope.

        Raises:
            ValueError: The weights are unknown or damaged.
        """
        arguments = {}
        if self.is_learned:
            arguments = {"weights": self.weights, "state_dtype": self.state_dtype}
        optimizer = OPTIMIZERS[self.name].make(self.rate(), **arguments)
        if self.weight_decay and OPTIMIZERS[self.name].decoupled:
            optimizer.weight_decay = self.weight_decay
            kernels = {id(variable) for variable in kernels_of(model)}
            optimizer.exclude_from_weight_decay(
                [v for v in model.trainable_variables if id(v) not in kernels]
            )
        elif hasattr(optimizer, "weight_decay"):
            # AdamW has its own decay unless it is told otherwise.
            optimizer.weight_decay = None
        optimizer.build(model.trainable_variables)
        return optimizer


@keras.saving.register_keras_serializable(package="imagenet")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise from 0, then a cosine, an exponential decay, or nothing."""

    def __init__(
        self, learning_rate, schedule, warmup_steps, train_steps, steps_per_epoch
    ):
        super().__init__()
        self.learning_rate, self.schedule = learning_rate, schedule
        self.warmup_steps, self.train_steps = warmup_steps, train_steps
        self.steps_per_epoch = steps_per_epoch
        schedules = keras.optimizers.schedules
        if schedule == "cosine":
            steps = max(1, train_steps - warmup_steps)
            self._after = schedules.CosineDecay(learning_rate, steps)
        elif schedule == "exponential":
            steps = max(1, round(2 * steps_per_epoch))
            self._after = schedules.ExponentialDecay(
                learning_rate, steps, 0.94, staircase=True
            )
        else:
            self._after = lambda step: learning_rate

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        after = keras.ops.cast(
            self._after(keras.ops.maximum(step - self.warmup_steps, 0.0)), "float32"
        )
        if not self.warmup_steps:
            return after
        # The first step already moves: a rate of 0 would waste it.
        rising = self.learning_rate * (step + 1.0) / self.warmup_steps
        return keras.ops.where(step < self.warmup_steps, rising, after)

    def get_config(self):
        public = vars(self).items()
        return {name: value for name, value in public if not name.startswith("_")}


def with_loss_scale(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, precision: str
) -> keras.optimizers.Optimizer:
    """The optimizer, under a dynamic loss scale where gradients are float16.

    Keras does so by itself only where the whole model has that policy, and the logits
    here are float32. Under a strategy this is to be called in its scope.
    """
    if precision != "mixed_float16":
        return optimizer
    scaled = keras.optimizers.LossScaleOptimizer(optimizer)
    scaled.build(model.trainable_variables)
    return scaled


def unwrapped(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, out of a loss scale's wrapping if need be."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def kernels_of(model: keras.Model) -> list:
    """The variables that weight decay is for: kernels, not biases and scales."""
    return [v for v in model.trainable_variables if v.name.endswith("kernel")]

"""The settings of a training run, checked before anything is computed."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from imagenet.input.config import DataConfig
from imagenet.models import MODELS, PRECISIONS, checked_image_size
from imagenet.optimizers import OPTIMIZERS, SCHEDULES
from learned_optimizer import load_weights
from learned_optimizer.keras_step.arguments import STATE_DTYPES
from learned_optimizer.utils import run_folder
from learned_optimizer.utils.flags import check_settings, setting

STRATEGIES = ("one_device", "mirrored", "multi_worker", "parameter_server", "tpu")
SETTINGS_FILE = "settings.json"
# Held by the process that trains there.
LOCK_FILE = ".lock"
TRAIN_COLUMNS = ("step", "loss", "accuracy", "learning_rate", "images_per_second")
EVAL_COLUMNS = ("step", "top_1", "top_5", "loss", "images")
STATUS_TERMINATED = 75  # EX_TEMPFAIL of sysexits.h: try again later.
# What a run may change when it goes on: how long it is, what it logs and on which
# devices it is. All other settings belong to it, and the learned weights by their own
# name and sha256.
MAY_CHANGE = (
    *("data_dir", "model_dir", "train_steps", "epochs", "steps_per_loop"),
    *("eval_every", "eval_batch_size", "eval_images", "checkpoint_every"),
    *("keep_checkpoints", "strategy", "replicas", "jit_compile", "weights"),
    "horizon",
)


class Terminated(Exception):
    """SIGTERM came; the run is saved and can be started again."""


@dataclasses.dataclass(frozen=True)
class RunConfig(DataConfig):
    """All that decides what a run computes; the help of each field says what it is.

    Raises:
        ValueError: A setting is out of its range, or two contradict each other.
    """

    model: str = setting("resnet_v2_50", "The network.", choices=MODELS)
    model_dir: str = setting(
        "", "Folder of the run: checkpoints, CSVs, TensorBoard, the model."
    )
    image_size: int | None = setting(
        None, "Height and width in pixels; by default those of the model."
    )
    batch_size: int = setting(32, "Images a step, over all devices.", at_least=1)
    accumulation_steps: int = setting(
        1, "Microbatches in which a device takes its share of the batch.", at_least=1
    )
    train_steps: int | None = setting(
        None, "Steps in all; or give --epochs.", at_least=1
    )
    epochs: float | None = setting(
        None, "Passes over the training images; or give --train_steps.", above=0
    )
    steps_per_loop: int = setting(
        10, "Steps between two looks at the clock, the logs and signals.", at_least=1
    )
    eval_every: int = setting(
        0, "Steps between evaluations; 0: at the end alone.", at_least=0
    )
    eval_batch_size: int | None = setting(
        None, "By default as many as training takes at a time.", at_least=1
    )
    eval_images: int | None = setting(
        None, "Evaluate on the first images alone, this number of them.", at_least=1
    )
    checkpoint_every: int = setting(1000, "Steps between checkpoints.", at_least=1)
    keep_checkpoints: int = setting(2, "How many checkpoints stay.", at_least=1)
    optimizer: str = setting("hierarchical_rnn", "The optimizer.", choices=OPTIMIZERS)
    weights: str = setting("default", "Of the learned optimizer: a name or a path.")
    state_dtype: str = setting(
        "float32",
        "Of the learned optimizer's state; bfloat16 takes half the memory.",
        choices=STATE_DTYPES,
    )
    horizon: bool | None = setting(
        None,
        "Whether the learned rates follow a schedule to the last step. By default with "
        "weights that have a nominal rate, unless `schedule` falls or the run began "
        "without.",
    )
    learning_rate: float | None = setting(
        None, "By default the usual one of the optimizer.", above=0
    )
    schedule: str = setting("usual", "Of the learning rate.", choices=SCHEDULES)
    warmup_steps: int | None = setting(
        None, "In which the rate rises; by default the usual number."
    )
    weight_decay: float | None = setting(
        None, "Of kernels; by default the usual one of the optimizer.", at_least=0
    )
    label_smoothing: float = setting(
        0.1, "Share of a label that goes to all classes alike.", at_least=0, below=1
    )
    strategy: str = setting(
        "one_device", "How steps are distributed.", choices=STRATEGIES
    )
    replicas: int | None = setting(
        None, "Devices of mirrored; by default all GPUs, or logical CPUs.", at_least=1
    )
    precision: str = setting(
        "float32", "Policy of the network's layers.", choices=PRECISIONS
    )
    synchronized_batch_normalization: bool = setting(
        False, "Batch statistics over all replicas."
    )
    input_shards: int | None = setting(
        None,
        "Data shards, each read in its own order; by default one a worker.",
        at_least=1,
    )
    jit_compile: bool = setting(
        False, "Whether XLA compiles forward and backward pass."
    )

    def __post_init__(self):
        check_settings(self)
        size = checked_image_size(self.model, self.image_size)
        object.__setattr__(self, "image_size", size)
        super().__post_init__()
        if (self.train_steps is None) == (self.epochs is None):
            raise ValueError(
                "either train_steps or epochs must be given. Received: "
                f"train_steps={self.train_steps}, epochs={self.epochs}"
            )
        if not self.model_dir or "://" in self.model_dir:
            # `pathlib` would make a bucket a folder of that name on this machine.
            raise ValueError(
                "model_dir must name a folder of a file system, not of a bucket. "
                f"Received: model_dir={self.model_dir!r}"
            )
        if self.strategy == "parameter_server":
            # Its variables are elsewhere, and its workers step without each other.
            self._refuse(
                "strategy=parameter_server",
                accumulation_steps=1,
                input_shards=None,
                jit_compile=False,
                synchronized_batch_normalization=False,
            )
        if self.jit_compile:
            # XLA compiles what one replica does by itself.
            self._refuse("jit_compile", synchronized_batch_normalization=False)
        if self.strategy != "mirrored":
            self._refuse(f"strategy={self.strategy}", replicas=None)

    def _refuse(self, under, **allowed):
        for name, value in allowed.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name} must be {value} under {under}. "
                    f"Received: {name}={getattr(self, name)}"
                )

    def identity(self) -> dict[str, Any]:
        """What a run keeps when it goes on, with the errors of `weights_identity`."""
        found = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in MAY_CHANGE
        }
        if self.optimizer == "hierarchical_rnn":
            found |= weights_identity(self.weights)
        return found

    def verify(self, folder: pathlib.Path) -> None:
        """Finds out whether the folder can be this run's; writes nothing.

        Raises:
            ValueError: It is that of another run, or holds other files; or see
                `identity`.
        """
        run_folder.verify(folder / SETTINGS_FILE, self.identity(), _DEFAULTS)

    def write_or_verify(self, folder: pathlib.Path) -> None:
        """Makes the folder this run's, with the errors of `verify`."""
        run_folder.write_or_verify(folder / SETTINGS_FILE, self.identity(), _DEFAULTS)


# Runs from before a setting came had its default.
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(RunConfig)}


def weights_identity(weights: str) -> dict[str, str]:
    """Which weights of the learned optimizer a run has: their own name and sha256.

    An alias as `default` moves on with better weights, and a file may be replaced.

    Raises:
        ValueError: They are unknown or damaged.
    """
    loaded = load_weights(weights)
    sha256 = loaded.card.get("sha256")
    if sha256 is None:
        # Exported from memory: no npz was ever written.
        content = json.dumps(loaded.to_dict(), sort_keys=True)
        sha256 = hashlib.sha256(content.encode()).hexdigest()
    return {"weights": loaded.name, "weights_sha256": sha256}

"""The settings of a training run, checked before anything is computed."""

import dataclasses
import hashlib
import json
import math
import pathlib

from imagenet.models import PRECISIONS, checked_image_size, model_kind
from imagenet.optimizers import OPTIMIZERS, SCHEDULES
from learned_optimizer import load_weights
from learned_optimizer.utils.atomic_write import atomic_write

STRATEGIES = ("one_device", "mirrored", "multi_worker", "parameter_server", "tpu")
SETTINGS_FILE = "settings.json"
# Held by the process that trains there.
LOCK_FILE = ".lock"

IMAGENET_CLASSES = 1000
# What a checkpoint depends on: a run may go on longer, log differently or on other
# devices, but not with another network, optimizer or data. The learned weights belong
# to it, too, see `weights_identity`.
IDENTITY = (
    "model",
    "dataset",
    "image_size",
    "num_classes",
    "num_images",
    "num_validation_images",
    "min_crop_area",
    "colour_distortion",
    "batch_size",
    "accumulation_steps",
    "optimizer",
    "learning_rate",
    "schedule",
    "warmup_steps",
    "weight_decay",
    "label_smoothing",
    "precision",
    "synchronized_batch_normalization",
    "input_shards",
    "seed",
)


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """All that decides what a run computes.

    Attributes:
        model: A key of `imagenet.models.MODELS`.
        dataset: `"imagenet2012"` or `"generated"`.
        data_dir: Folder of the data.
        model_dir: Folder of the run.
        image_size: Height and width in pixels; None: that of the model.
        num_classes: Of the generated data; None: its default. `"imagenet2012"` has
            1,000.
        num_images: Training images of the generated data; None: its default.
        num_validation_images: Of the generated data; None: its default.
        min_crop_area: Least part of an image that a training crop covers.
        colour_distortion: Whether training distorts colours.
        batch_size: Images a step, over all devices.
        accumulation_steps: Parts in which each device takes its share of the batch;
            the gradient is the mean over all, memory that of one part.
        train_steps: Steps in all; None: `epochs` decide.
        epochs: Passes over the training images; None: `train_steps` decide.
        steps_per_loop: Steps between two looks at the clock, the logs and signals.
        eval_every: Steps between evaluations; 0: at the end alone.
        eval_batch_size: Images that are evaluated at a time, over all devices; None:
            as many as training takes at a time.
        eval_images: Evaluate on the first so many; None: on all.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of them stay.
        optimizer: A key of `imagenet.optimizers.OPTIMIZERS`.
        weights: Of the learned optimizer.
        learning_rate: None: the usual one.
        schedule: One of `imagenet.optimizers.SCHEDULES`.
        warmup_steps: None: the usual number.
        weight_decay: None: the usual one.
        label_smoothing: Share of the label that goes to all classes alike.
        strategy: One of `STRATEGIES`.
        replicas: Devices of `mirrored`; None: all GPUs, or all logical CPUs.
        precision: One of `imagenet.models.PRECISIONS`.
        synchronized_batch_normalization: Batch statistics over all replicas.
        input_shards: Parts of the training images, each read in its own order; None:
            one a worker. A run on one device with as many shards as another has
            workers sees the same batches.
        jit_compile: Whether XLA compiles forward and backward pass.
        seed: Of initial weights, order and augmentation.

    Raises:
        ValueError: A setting breaks a rule.
    """

    model: str = "resnet_v2_50"
    dataset: str = "generated"
    data_dir: str = ""
    model_dir: str = ""
    image_size: int | None = None
    num_classes: int | None = None
    num_images: int | None = None
    num_validation_images: int | None = None
    min_crop_area: float = 0.08
    colour_distortion: bool = False
    batch_size: int = 32
    accumulation_steps: int = 1
    train_steps: int | None = None
    epochs: float | None = None
    steps_per_loop: int = 10
    eval_every: int = 0
    eval_batch_size: int | None = None
    eval_images: int | None = None
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    optimizer: str = "hierarchical_rnn"
    weights: str = "default"
    learning_rate: float | None = None
    schedule: str = "usual"
    warmup_steps: int | None = None
    weight_decay: float | None = None
    label_smoothing: float = 0.1
    strategy: str = "one_device"
    replicas: int | None = None
    precision: str = "float32"
    synchronized_batch_normalization: bool = False
    input_shards: int | None = None
    jit_compile: bool = False
    seed: int = 0

    def __post_init__(self):
        model_kind(self.model)
        size = checked_image_size(self.model, self.image_size)
        object.__setattr__(self, "image_size", size)
        for name, allowed in (
            ("dataset", ("imagenet2012", "generated")),
            ("optimizer", tuple(OPTIMIZERS)),
            ("schedule", SCHEDULES),
            ("strategy", STRATEGIES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}. "
                    f"Received: {getattr(self, name)!r}"
                )
        for name in (
            "batch_size",
            "accumulation_steps",
            "steps_per_loop",
            "checkpoint_every",
            "keep_checkpoints",
            "train_steps",
            "epochs",
            "num_images",
            "num_validation_images",
            "eval_batch_size",
            "eval_images",
            "replicas",
            "input_shards",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive. Received: {value}")
        if self.eval_every < 0:
            raise ValueError(
                f"eval_every must be 0 or more. Received: {self.eval_every}"
            )
        if (self.train_steps is None) == (self.epochs is None):
            raise ValueError(
                "a run is as long as either train_steps or epochs say. Received: "
                f"train_steps={self.train_steps}, epochs={self.epochs}"
            )
        if not 0 < self.min_crop_area <= 1:
            raise ValueError(
                f"min_crop_area must be in (0, 1]. Received: {self.min_crop_area}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be in [0, 1). Received: {self.label_smoothing}"
            )
        for name in ("data_dir", "model_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} must name a folder. Received: nothing")
        if "://" in self.model_dir:
            # `pathlib` would make it a folder of that name on this machine.
            raise ValueError(
                "model_dir must be a folder of a file system, not of a bucket. "
                f"Received: {self.model_dir!r}"
            )
        self._check_counts()
        if self.strategy == "parameter_server" and self.accumulation_steps > 1:
            raise ValueError(
                "parameter_server takes no accumulation_steps: its workers step "
                f"without each other. Received: {self.accumulation_steps}"
            )
        if self.strategy == "parameter_server" and self.input_shards is not None:
            raise ValueError(
                "parameter_server takes no input_shards: its workers draw their own "
                f"order. Received: {self.input_shards}"
            )
        if self.strategy == "parameter_server":
            for name in ("jit_compile", "synchronized_batch_normalization"):
                if getattr(self, name):
                    raise ValueError(
                        f"parameter_server takes no {name}: its variables are "
                        "elsewhere, and its workers step without each other. "
                        f"Received: {name}=True"
                    )
        if self.jit_compile and self.synchronized_batch_normalization:
            raise ValueError(
                "jit_compile goes without synchronized_batch_normalization: XLA "
                "compiles what one replica does by itself. Received: both"
            )
        if self.replicas is not None and self.strategy != "mirrored":
            raise ValueError(
                "replicas is for strategy mirrored. Received: "
                f"replicas={self.replicas}, strategy={self.strategy}"
            )

    def _check_counts(self):
        """The real ImageNet is as large as it is."""
        if self.dataset != "imagenet2012":
            return
        for name in ("num_classes", "num_images", "num_validation_images"):
            value = getattr(self, name)
            allowed = (None, IMAGENET_CLASSES if name == "num_classes" else None)
            if value not in allowed:
                raise ValueError(
                    f"{name} is for dataset generated; imagenet2012 has all its images "
                    f"and {IMAGENET_CLASSES} classes. Received: {name}={value}"
                )

    def identity(self) -> dict:
        """What all sittings of one run must have in common.

        Raises:
            ValueError: The weights of the learned optimizer are unknown or damaged.
        """
        found = {name: getattr(self, name) for name in IDENTITY}
        if self.optimizer == "hierarchical_rnn":
            found |= weights_identity(self.weights)
        return found

    def check(self, folder: pathlib.Path) -> None:
        """Finds out whether the folder can be this run's; writes nothing.

        Raises:
            ValueError: It is that of another run, or holds other files; or see
                `identity`.
        """
        check_folder(folder, self.identity())

    def settle(self, folder: pathlib.Path) -> None:
        """Makes the folder this run's, or finds that it is already.

        Raises:
            ValueError: See `check`.
        """
        settle_folder(folder, self.identity())


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


def identity_in(folder: pathlib.Path) -> dict | None:
    """What `settle_folder` wrote, None where there is nothing.

    Raises:
        ValueError: It is not readable.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must be the settings of a run. Received: no JSON")
    return found


def check_folder(folder: pathlib.Path, identity: dict) -> None:
    """Finds out whether a folder can be that of a run; writes nothing.

    Raises:
        ValueError: It is that of another run, or holds other files.
    """
    found = identity_in(folder)
    if found is None:
        if not _is_free(folder):
            raise ValueError(
                "model_dir must be new, empty, or that of a run to go on with. "
                f"Received: {folder}, which holds other things"
            )
        return
    differing = [name for name in identity if found.get(name) != identity[name]]
    if differing:
        raise ValueError(
            f"{folder} is the model_dir of another run; choose another one, "
            "or go on with the same settings. They differ in "
            + ", ".join(
                f"{name} ({found.get(name)!r} there, {identity[name]!r} now)"
                for name in differing
            )
        )


def _is_free(folder):
    if not folder.exists():
        return True
    # Who was killed while it settled left the file that it wrote aside.
    return folder.is_dir() and all(
        path.name.startswith(f".{SETTINGS_FILE}.") for path in folder.iterdir()
    )


def settle_folder(folder: pathlib.Path, identity: dict) -> None:
    """Makes a folder that of a run, or finds that it is already.

    Raises:
        ValueError: See `check_folder`.
    """
    check_folder(folder, identity)
    if identity_in(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps(identity, indent=2) + "\n"
        atomic_write(folder / SETTINGS_FILE, content.encode())

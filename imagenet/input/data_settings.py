"""Which images, and what is done to them: every choice, validated."""

import dataclasses

from imagenet.synthetic.generated import GeneratedSettings

DATASETS = ("imagenet2012", "generated")
MIN_IMAGE_SIZE = 32
# From 0..255: `keras.applications` calls them by the same names.
SCALINGS = {
    "tf": lambda images: images / 127.5 - 1.0,
    "none": lambda images: images,
}
_MAX_SEED = 2**31 - 2


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What `imagenet.input.data.open_images` opens and how its batches are made.

    Attributes:
        dataset: "imagenet2012", the real one, or "generated".
        data_dir: TFDS's folder.
        image_size: side of the square that the model sees, in pixels.
        scaling: "tf", to [-1, 1], what Inception V3 and ResNet V2 of
            `keras.applications` take, or "none", 0 to 255.
        seed: of the order and the augmentation.
        min_crop_area: least part of an image that a training crop covers.
        colour_distortion: whether training distorts colours.
        num_classes, num_images, num_validation_images, generated_seed: of generated
            images, see `GeneratedSettings`.

    Raises:
        ValueError: one of them is out of its range.
    """

    dataset: str
    data_dir: str
    image_size: int
    scaling: str = "tf"
    seed: int = 0
    min_crop_area: float = 0.08
    colour_distortion: bool = False
    num_classes: int = GeneratedSettings.num_classes
    num_images: int = GeneratedSettings.num_images
    num_validation_images: int = GeneratedSettings.num_validation_images
    generated_seed: int = GeneratedSettings.seed

    def __post_init__(self):
        if self.dataset not in DATASETS:
            raise ValueError(
                f"`dataset` must be one of {', '.join(DATASETS)}. "
                f"Received: {self.dataset!r}"
            )
        if not self.data_dir:
            raise ValueError(
                f"`data_dir` must name a folder. Received: {self.data_dir!r}"
            )
        if self.image_size < MIN_IMAGE_SIZE:
            raise ValueError(
                f"`image_size` must be {MIN_IMAGE_SIZE} pixels or more. "
                f"Received: {self.image_size}"
            )
        if self.scaling not in SCALINGS:
            raise ValueError(
                f"`scaling` must be one of {', '.join(SCALINGS)}. "
                f"Received: {self.scaling!r}"
            )
        if not 0 <= self.seed <= _MAX_SEED:
            raise ValueError(
                f"`seed` must be from 0 to {_MAX_SEED}. Received: {self.seed}"
            )
        if not 0 < self.min_crop_area <= 1:
            raise ValueError(
                "`min_crop_area` must be above 0 and at most 1. "
                f"Received: {self.min_crop_area}"
            )
        if self.dataset == "generated":
            self.generated()

    def generated(self) -> GeneratedSettings:
        """The settings of the generated set."""
        return GeneratedSettings(
            num_classes=self.num_classes,
            num_images=self.num_images,
            num_validation_images=self.num_validation_images,
            seed=self.generated_seed,
        )

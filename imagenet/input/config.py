"""Which images, and what is done to them: every setting, checked."""

import dataclasses

from imagenet.synthetic.config import GeneratedConfig
from learned_optimizer.utils.flags import check_settings, same_setting, setting

GENERATED, IMAGENET, FOLDER = "generated", "imagenet2012", "folder:"
MIN_IMAGE_SIZE = 32
_GENERATED_ALONE = ("num_classes", "num_images", "num_validation_images")
_MAX_SEED = 2**31 - 2


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What `imagenet.input.data.open_images` opens and how its batches are made.

    The help of each field says what it is.

    Raises:
        ValueError: A setting is out of its range, or two contradict each other.
    """

    dataset: str = setting(
        GENERATED,
        "`generated`, `imagenet2012`, any data set of TFDS with the features `image` "
        "and `label`, or `folder:PATH`, images in class folders.",
    )
    data_dir: str = setting("", "Folder of TFDS's records; made where it is missing.")
    image_size: int = setting(
        64, "Height and width in pixels.", at_least=MIN_IMAGE_SIZE
    )
    train_split: str | None = setting(
        None, "Split to train on, as TFDS names it; by default `train`."
    )
    validation_split: str | None = setting(
        None, "Split to evaluate on; by default `validation`, else `test`."
    )
    num_classes: int | None = same_setting(GeneratedConfig, "num_classes", None)
    num_images: int | None = same_setting(GeneratedConfig, "num_images", None)
    num_validation_images: int | None = same_setting(
        GeneratedConfig, "num_validation_images", None
    )
    min_crop_area: float = setting(
        0.08, "Least part of an image that a training crop covers.", above=0, at_most=1
    )
    horizontal_flip: bool = setting(True, "Whether training mirrors half the images.")
    colour_distortion: bool = setting(False, "Whether training distorts colours.")
    seed: int = setting(
        0, "Of initial weights, order and augmentation.", at_least=0, at_most=_MAX_SEED
    )

    def __post_init__(self):
        check_settings(self)
        if not self.data_dir:
            raise ValueError("data_dir must name a folder. Received: data_dir=''")
        given = self._given()
        if self.dataset == GENERATED:
            self.generated()
        elif given:
            raise ValueError(
                f"{', '.join(given)} must be left out: only dataset={GENERATED} is "
                "drawn as asked for, another has its own images and classes. "
                f"Received: dataset={self.dataset!r}, {given}"
            )

    def _given(self):
        """The settings of generated images that were given."""
        values = {name: getattr(self, name) for name in _GENERATED_ALONE}
        return {name: value for name, value in values.items() if value is not None}

    def generated(self) -> GeneratedConfig:
        """The settings of the generated set, checked."""
        return GeneratedConfig(**self._given())

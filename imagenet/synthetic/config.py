"""What a set of drawn images holds; no TensorFlow is imported."""

import dataclasses

from imagenet.synthetic.drawing import MAX_CLASSES
from learned_optimizer.utils.flags import check_settings, setting


@dataclasses.dataclass(frozen=True)
class GeneratedConfig:
    """What a generated set holds; the help of each field says what it is.

    Each class has as many training images as any other, or one more; no validation
    image is also a training image.

    Raises:
        ValueError: A number is out of its range.
    """

    num_classes: int = setting(
        100,
        "Classes of the generated images; by default 100.",
        at_least=2,
        at_most=MAX_CLASSES,
    )
    num_images: int = setting(
        10_000, "Training images of the generated data; by default 10,000.", at_least=1
    )
    num_validation_images: int = setting(
        1_000, "Validation images of the generated data; by default 1,000.", at_least=1
    )
    seed: int = setting(0, "Draws other images of the same classes.", at_least=0)

    def __post_init__(self):
        check_settings(self)
        if self.num_images < self.num_classes:
            raise ValueError(
                "num_images must be num_classes or more. Received: "
                f"num_images={self.num_images}, num_classes={self.num_classes}"
            )

"""The one backend of Keras that meta-training runs on."""

import keras


def check_backend() -> None:
    """Refuses another backend than TensorFlow, whose graphs are differentiated here.

    Raises:
        ValueError: Keras runs on another one.
    """
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            "meta_training needs the Keras backend 'tensorflow'. "
            f"Received: {keras.config.backend()!r}"
        )

"""The one backend of Keras that meta-training, strategies and `export` run on."""

import keras


def check_backend() -> None:
    """Refuses other backends than TensorFlow, of whose graphs these programs are."""
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            "The backend of Keras must be 'tensorflow' here. "
            f"Received: {keras.config.backend()!r}"
        )

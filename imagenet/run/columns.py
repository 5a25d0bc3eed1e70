"""Columns of `train.csv` and `eval.csv`; no TensorFlow is imported."""

TRAIN_COLUMNS = ("step", "loss", "accuracy", "learning_rate", "images_per_second")
EVAL_COLUMNS = ("step", "top_1", "top_5", "loss", "images")

"""The outer loop: settings, meta-objectives, meta-optimizers, checkpoints, logs."""

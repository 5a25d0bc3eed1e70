"""What the three packages share: files, logs and clusters. Nothing of the optimizer."""

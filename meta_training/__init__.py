"""Meta-training of the learned optimizer: tasks, trainer, evaluation."""

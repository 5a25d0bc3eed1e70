"""Held-out networks: `validation` chooses checkpoints, `test` judges weights."""

from meta_training.networks.groups import (
    large_network,
    list_network_groups,
    network_group,
)

__all__ = ["large_network", "list_network_groups", "network_group"]

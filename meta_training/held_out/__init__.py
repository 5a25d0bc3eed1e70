"""Held-out networks: `validation` and `test` choose, `final` evaluates what ships."""

from meta_training.held_out.groups import list_network_groups, network_group

__all__ = ["list_network_groups", "network_group"]

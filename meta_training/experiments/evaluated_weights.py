"""The weights that an experiment evaluated, as `done.json` describes them.

So a report needs neither the weights nor what an alias meant at that time.
"""

from collections.abc import Mapping
from typing import Any

from learned_optimizer import list_weights
from meta_training.optimizers import TrainedWeights, content_sha256


def sha256_of(weights: TrainedWeights) -> str:
    """The sha256 of the card; without one, that of the settings and all numbers."""
    return weights.card.get("sha256") or content_sha256(weights)


def entry_of(weights: TrainedWeights) -> dict[str, Any]:
    """What `done.json` says of the weights that were evaluated."""
    return {
        "name": weights.name,
        "sha256": sha256_of(weights),
        "training": _training_of(weights.card),
    }


def sentence(entry: Mapping[str, Any]) -> str:
    """A sentence about how the weights of an entry were meta-trained, by their card."""
    # Earlier versions did not note it.
    training = entry.get("training") or _training_of({})
    parts = []
    if training["task_set"]:
        parts.append(f"meta-trained on the task set `{training['task_set']}`")
        if training["outer_steps"]:
            parts[0] += f" for {training['outer_steps']} outer steps"
        if training["start"]:
            parts[0] += f", from `{training['start']}`"
    if training["calibrated"]:
        parts.append("calibrated")
    if not parts:
        return f"How `{entry['name']}` was meta-trained, its card does not say."
    return f"By its card, `{entry['name']}` was {', then '.join(parts)}."


def _training_of(card) -> dict[str, Any]:
    """The entries of a card for a report."""
    settings = card.get("settings", {})
    runs = [run["outer_steps"] for run in card.get("runs", [])]
    start = settings.get("init_weights")
    return {
        "task_set": settings.get("task_set"),
        "outer_steps": sum(runs) or card.get("outer_step"),
        # A path means nothing on another machine.
        "start": start if start in list_weights() else None,
        "calibrated": bool(card.get("calibrations")),
    }

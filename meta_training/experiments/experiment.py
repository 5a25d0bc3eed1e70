"""What an experiment is, and the register of those that exist.

An experiment is a class: what the paper claims, in our words, and what we infer from
that; the settings of each budget; `run`, which leaves CSV files and figures in a
folder; `findings` and `describe`, which say what came out and what was run, from those
CSV files alone. So each number of a report can be found in a file beside it.
"""

import abc
import copy
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from meta_training.optimizers import TrainedWeights
from meta_training.registry import Registry

BUDGETS = ("small", "full")
# A file in `Job.work`: some meta-training was done before, for another job.
SHARED_TRAINING = "shared_training"


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of an experiment.

    Attributes:
        settings: All that its result depends on, beside the weights.
        weights: Of the hierarchical RNN that is judged.
        folder: For CSV files and figures; it is new, and kept only if the run ends.
        work: For what a later call with the same settings goes on from; it stays.
        cache: Of evaluations, shared by all experiments.
        log: Is told what is done.
    """

    settings: Mapping[str, Any]
    weights: TrainedWeights
    folder: pathlib.Path
    work: pathlib.Path
    cache: pathlib.Path
    log: Callable[[str], None] = lambda message: None

    @property
    def trained(self) -> pathlib.Path:
        """For runs of meta-training, which other settings of an evaluation share."""
        return self.work.parent / "trained"


class Experiment(abc.ABC):
    """One of the paper's experiments.

    Attributes:
        name: What the command line calls it.
        title: What reports call it.
        claim: What the paper claims, in our words: its abstract and introduction are
            all that we know of it.
        inference: What we infer from that, if anything.
        budgets: The settings of each budget, as JSON types.
        has_budget: Whether it computes anything that a budget bounds.
        judges_weights: Whether the weights that the command line names play a part.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]
    inference: ClassVar[str] = ""
    budgets: ClassVar[Mapping[str, Mapping[str, Any]]]
    has_budget: ClassVar[bool] = True
    judges_weights: ClassVar[bool] = True

    def settings(self, budget: str, seeds: int | None = None) -> dict[str, Any]:
        """The settings of a budget.

        Args:
            budget: One of `BUDGETS`.
            seeds: Draws of each task instead of the budget's, where there are any.
        """
        found = copy.deepcopy(dict(self.budgets[budget]))
        if seeds is not None and "seeds" in found:
            found["seeds"] = seeds
        return found

    @abc.abstractmethod
    def run(self, job: Job) -> None:
        """Leaves CSV files and PNG figures in `job.folder`."""

    @abc.abstractmethod
    def findings(self, folder: pathlib.Path, settings: Mapping[str, Any]) -> str:
        """What came out, as Markdown, from the CSV files in `folder`."""

    @abc.abstractmethod
    def describe(self, folder: pathlib.Path, settings: Mapping[str, Any]) -> str:
        """What was run in words, a sentence or two.

        Counts come from the CSV files in `folder`: what exists today may be more.
        """

    def inputs(self) -> dict[str, str]:
        """The sha256 of files that the result depends on, by path."""
        return {}


# The paper's, in the order of a report, whichever is imported first.
_ORDER = (
    "earlier_optimizers",
    "training_corpus",
    "unseen_networks",
    "imagenet",
    "initial_learning_rate",
    "ablations",
    "cost",
)
_experiments: Registry[Experiment] = Registry("an experiment")


def register_experiment(experiment_class: type[Experiment]):
    """A decorator that adds an experiment under its `name`.

    Raises:
        ValueError: The name is taken, or a budget is missing.
    """
    name = experiment_class.name
    if name in ("all", "report"):
        raise ValueError(
            "The name of an experiment must be none of the command's words all and "
            f"report. Received: {name!r}"
        )
    if set(experiment_class.budgets) != set(BUDGETS):
        raise ValueError(
            f"An experiment must have the budgets {', '.join(BUDGETS)}. "
            f"Received: {sorted(experiment_class.budgets)}"
        )
    _experiments.add(name, experiment_class())
    return experiment_class


def list_experiments() -> list[str]:
    """The names of all experiments, in the order of a report: others come last."""
    names = _experiments.names()
    others = [name for name in names if name not in _ORDER]
    return [name for name in _ORDER if name in names] + others


def experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: There is none; the message lists those that exist.
    """
    return _experiments[name]

"""The interface of experiments, and their registry.

An experiment is a class with the paper's claim in our words, our inference from it, and
the settings of each budget. `run` writes CSV files and figures to a folder; `findings`
and `describe` state the result and the computation from those CSV files alone. So each
number of a report can be found in a file beside it.
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
        settings: Everything the result depends on, besides the weights.
        weights: The weights of the hierarchical RNN to evaluate.
        folder: A new folder for CSV files and figures, kept only if the run completes.
        work: A folder that stays, from which a later call with the same settings
            resumes.
        cache: The cache of evaluations, shared by all experiments.
        log: Receives progress messages.
    """

    settings: Mapping[str, Any]
    weights: TrainedWeights
    folder: pathlib.Path
    work: pathlib.Path
    cache: pathlib.Path
    log: Callable[[str], None] = lambda message: None


class Experiment(abc.ABC):
    """One of the paper's experiments.

    Attributes:
        name: Its name on the command line.
        title: Its title in reports.
        claim: The paper's claim in our words; we know its abstract and introduction
            only.
        inference: Our inference from that, if any.
        budgets: The settings of each budget, as JSON types.
        evaluates_weights: Whether it evaluates the weights named on the command line.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    claim: ClassVar[str]
    inference: ClassVar[str] = ""
    budgets: ClassVar[Mapping[str, Mapping[str, Any]]]
    evaluates_weights: ClassVar[bool] = True

    def settings(self, budget: str, seeds: int | None = None) -> dict[str, Any]:
        """The settings of a budget; with other draws per task, if it has any."""
        found = copy.deepcopy(dict(self.budgets[budget]))
        if seeds is not None and "seeds" in found:
            found["seeds"] = seeds
        return found

    @abc.abstractmethod
    def run(self, job: Job) -> None:
        """Writes CSV files and PNG figures to `job.folder`."""

    @abc.abstractmethod
    def findings(self, folder: pathlib.Path, settings: Mapping[str, Any]) -> str:
        """The result as Markdown, from the CSV files in `folder`."""

    @abc.abstractmethod
    def describe(self, folder: pathlib.Path, settings: Mapping[str, Any]) -> str:
        """A sentence or two about what was computed.

        Counts come from the CSV files in `folder`, since task sets may have changed.
        """


# Those of a report, in its order.
_experiments: Registry[Experiment] = Registry("an experiment", sort=False)
list_experiments = _experiments.names
experiment = _experiments.get


def register_experiment(experiment_class: type[Experiment]):
    """A decorator that adds an experiment under its `name`.

    Raises:
        ValueError: The name is taken, or a budget is missing.
    """
    name, budgets = experiment_class.name, experiment_class.budgets
    if name in ("all", "report") or set(budgets) != set(BUDGETS):
        raise ValueError(
            f"An experiment must have the budgets {', '.join(BUDGETS)}, and none of "
            f"the command's words all and report as its name. Received: {name!r} with "
            f"the budgets {sorted(budgets)}"
        )
    _experiments.register(name)(experiment_class())
    return experiment_class

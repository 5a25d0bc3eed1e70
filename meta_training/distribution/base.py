"""The interface of distributions: where the windows of cohorts are computed."""

import abc
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from meta_training.distribution.cohort import Cohort, Report

Arrays = dict[str, np.ndarray]


class Distribution(abc.ABC):
    """Says where windows are run. The outer loop is the same for all.

    `check_agreement` and `gather` do nothing where one process has everything.

    Attributes:
        name: What the command line calls it.
        num_replicas: Windows that are computed at a time, in all processes together.
        is_chief: Whether this process writes checkpoints and logs and validates.
    """

    name: ClassVar[str]
    num_replicas: int = 1
    is_chief: bool = True

    def check(self, cohorts: int) -> None:
        """Raises ValueError unless the cohorts divide among the replicas."""
        if cohorts % self.num_replicas:
            raise ValueError(
                "cohorts must be a multiple of the number of replicas of strategy "
                f"{self.name}. Received: cohorts={cohorts} and {self.num_replicas} "
                "replicas"
            )

    def numbers(self, cohorts: int) -> range:
        """The numbers of those of `cohorts` cohorts that this process holds."""
        return range(cohorts)

    @abc.abstractmethod
    def start(self, cohorts: Sequence[Cohort], estimate: Callable[..., Any]) -> None:
        """Takes the cohorts of this process, ready for their next windows.

        `estimate` is the compiled one of the estimator.
        """

    @abc.abstractmethod
    def next_outcome(
        self, meta_parameters: Mapping[str, np.ndarray]
    ) -> tuple[list[Report], dict[str, float]]:
        """Runs windows, or waits for one, until there is enough for an outer step.

        Returns:
            A report for each window; the meta-gradient is the mean of theirs. Further
            figures for the log. Every process returns the same.
        """

    def check_agreement(self, settings: str, file: pathlib.Path) -> None:  # noqa: B027
        """Raises ValueError unless processes have the same settings and share a folder.

        `file` is one in the folder, which the chief has just written.
        """

    def gather(self, arrays: Arrays, folder: pathlib.Path) -> Arrays:
        """Those of all processes together, on the chief at least.

        They may pass through the run's folder.
        """
        return arrays

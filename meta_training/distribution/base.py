"""What a distribution of meta-training is: where the windows of cohorts are run."""

import abc
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from meta_training.distribution.cohort import Cohort, Report

Arrays = dict[str, np.ndarray]


class Outcome(NamedTuple):
    """What one outer step goes by.

    Attributes:
        reports: One a window; the meta-gradient is the mean of theirs.
        figures: More for the log.
    """

    reports: list[Report]
    figures: dict[str, float]


class Distribution(abc.ABC):
    """Says where windows are run. The outer loop is the same for all.

    `check_agreement` and `gather` do nothing where one process has everything.

    Attributes:
        name: What the command line calls it.
        num_replicas: Windows that are run at a time, in all processes together.
        is_chief: Whether this process keeps checkpoints and logs and validates.
    """

    name: ClassVar[str]
    num_replicas: int = 1
    is_chief: bool = True

    def check(self, cohorts: int) -> None:
        """Refuses a number of cohorts that cannot be divided among the replicas.

        Raises:
            ValueError: it cannot.
        """
        if cohorts % self.num_replicas:
            raise ValueError(
                "the cohorts of trajectories must divide among the replicas of "
                f"strategy {self.name}: `cohorts` must be a multiple of their number. "
                f"Received: cohorts={cohorts} and {self.num_replicas} replicas"
            )

    def numbers(self, cohorts: int) -> range:
        """The numbers of those of `cohorts` cohorts that this process holds."""
        return range(cohorts)

    @abc.abstractmethod
    def start(self, cohorts: Sequence[Cohort], estimate: Callable[..., Any]) -> None:
        """Takes what it needs to run windows.

        Args:
            cohorts: Those that this process holds, ready for their next windows.
            estimate: The estimator's `estimate`, compiled.
        """

    @abc.abstractmethod
    def next_outcome(self, meta_parameters: Mapping[str, np.ndarray]) -> Outcome:
        """Runs windows, or waits for one, until an outer step can be made.

        Args:
            meta_parameters: Those after the last outer step.

        Returns:
            The outcome, the same in every process.
        """

    def check_agreement(self, settings: str, file: pathlib.Path) -> None:  # noqa: B027
        """Checks that all processes have the same settings and share a folder.

        Args:
            settings: Those of this process.
            file: A file in the folder, which the chief has just written.

        Raises:
            ValueError: They have not, or do not.
        """

    def gather(self, arrays: Arrays, folder: pathlib.Path) -> Arrays:
        """The named arrays of all processes together, on the chief at least.

        Args:
            arrays: Those of this process.
            folder: The run's folder.
        """
        return arrays

    def close(self) -> None:  # noqa: B027
        """Ends what runs in the background."""

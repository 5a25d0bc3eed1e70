"""Everything in one process on one device."""

from meta_training.distribution.base import Distribution, Outcome


class OneDevice(Distribution):
    """Runs the windows of all cohorts one after the other."""

    name = "one_device"

    def start(self, cohorts, estimate):
        self._cohorts = cohorts
        self._estimate = estimate

    def next_outcome(self, meta_parameters) -> Outcome:
        reports = [
            cohort.end(self._estimate(meta_parameters, *cohort.begin()))
            for cohort in self._cohorts
        ]
        return Outcome(reports, {})

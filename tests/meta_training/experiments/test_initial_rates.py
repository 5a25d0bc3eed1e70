"""Each number that is said, by another way from the same CSV."""

from meta_training.experiments.catalogue import experiment
from tests.meta_training.experiments_by_hand import cells, mean_of, write_runs


def test_initial_rates(tmp_path):
    tasks, rates = ["a_net", "b"], [0.001, 0.01, 0.1]
    rows = write_runs(tmp_path, ["ours", "Adam"], tasks, rates)
    settings = experiment("initial_learning_rate").settings("small")
    text = experiment("initial_learning_rate").findings(tmp_path, settings)
    assert [line[0] for line in cells(text)] == tasks
    for line in cells(text):
        wanted = [line[0]]
        for optimizer in ("ours", "Adam"):
            losses = [
                mean_of(
                    rows, "final_loss", optimizer=optimizer, task=line[0], rate=rate
                )
                for rate in rates
            ]
            wanted += [f"{min(losses):.3g}", f"{max(losses):.3g}"]
            wanted += [f"{max(losses) / min(losses):.3g}"]
        assert line == wanted

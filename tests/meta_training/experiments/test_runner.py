"""An experiment is done once, and written whole or not at all."""

import dataclasses
import json

import pytest

from learned_optimizer import load_weights
from learned_optimizer.utils.csv_log import read_csv
from learned_optimizer.weights import ALIASES
from meta_training.experiments import runner
from meta_training.experiments.catalogue import experiment
from meta_training.experiments.experiment import SHARED_TRAINING
from meta_training.experiments.runner import Request, collect, run_experiment
from meta_training.optimizers import as_trained
from tests.meta_training.experiments_by_hand import Counted


@pytest.mark.parametrize(
    "name, written",
    [
        ("default", ALIASES["default"]),
        ("default-v1", "default-v1"),
        ("runs/a/weights.npz", "runs/a/weights.npz"),
    ],
)
def test_a_command_names_weights_by_version(name, written, weights):
    command = Request("full", 2, weights, name).command(experiment("cost"))
    assert command == (
        "python -m meta_training.experiments cost --budget=full --seeds=2 "
        f"--weights={written}"
    )


def test_a_command_names_only_what_plays_a_part(request_of):
    found = experiment("ablations")
    command = request_of().command(found)
    assert command == "python -m meta_training.experiments ablations --budget=small"
    assert "weights_sha256" not in request_of().settings(found)


def test_done_once(tmp_path, request_of):
    counted = Counted()
    assert run_experiment(counted, request_of(), tmp_path)
    assert not run_experiment(counted, request_of(), tmp_path)
    assert counted.runs == 1
    done = json.loads((tmp_path / "counted" / "done.json").read_text())
    assert done["budget"] == "small"
    wanted = "python -m meta_training.experiments counted --budget=small"
    assert done["command"] == f"{wanted} --weights={ALIASES['default']}"
    assert done["weights"]["sha256"] == load_weights("default").card["sha256"]
    assert set(done["files"]) == {"numbers.csv", "figure.png"}
    paragraph = (tmp_path / "counted" / "paragraph.md").read_text()
    assert "A claim." in paragraph and "It took 5 steps" in paragraph


def test_large_csv_files_are_compressed(tmp_path, request_of, monkeypatch):
    monkeypatch.setattr(runner, "LARGEST_CSV", 3)
    methods = {"findings": lambda *_: "", "describe": lambda *_: "x"}
    found = type("Large", (Counted,), methods)
    run_experiment(found(), request_of(), tmp_path)
    done = runner.read_done(tmp_path / "counted")
    assert set(done["files"]) == {"numbers.csv.xz", "figure.png"}
    assert read_csv(tmp_path / "counted" / "numbers.csv") == [{"steps": 5.0}]


def test_other_settings_run_again_and_take_the_place(tmp_path, request_of):
    counted = Counted()
    run_experiment(counted, request_of(), tmp_path)
    assert run_experiment(counted, request_of(seeds=3), tmp_path)
    done = runner.read_done(tmp_path / "counted")
    assert done["settings"]["seeds"] == 3
    assert " --budget=small --seeds=3 " in done["command"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["counted", "work"]


def test_what_failed_leaves_what_was_there(tmp_path, request_of):
    counted = Counted()
    counted.fails = True
    with pytest.raises(RuntimeError):
        run_experiment(counted, request_of(), tmp_path)
    assert not (tmp_path / "counted").exists()
    counted.fails = False
    run_experiment(counted, request_of(), tmp_path)
    counted.fails = True
    with pytest.raises(RuntimeError):
        run_experiment(counted, request_of(seeds=2), tmp_path)
    assert runner.read_done(tmp_path / "counted")["settings"]["seeds"] == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "figure.png").unlink(),
        lambda folder: (folder / "numbers.csv").write_text("steps\n6\n"),
        lambda folder: (folder / "done.json").write_text('{"files": '),
        lambda folder: (folder / "done.json").write_text("[]"),
        lambda folder: (folder / "done.json").unlink(),
    ],
)
def test_what_is_damaged_is_run_again(tmp_path, request_of, damage):
    counted = Counted()
    run_experiment(counted, request_of(), tmp_path)
    damage(tmp_path / "counted")
    assert run_experiment(counted, request_of(), tmp_path)
    assert counted.runs == 2


def test_seconds_are_not_all_where_an_attempt_failed_or_runs_are_shared(
    tmp_path, request_of, monkeypatch
):
    def done(seeds):
        run_experiment(counted, request_of(seeds=seeds), tmp_path)
        found = runner.read_done(tmp_path / "counted")
        return found["seconds"], found["seconds_are_all"]

    class Sharing(Counted):
        def run(self, job):
            super().run(job)
            if job.settings["seeds"] == 3:
                (job.work / SHARED_TRAINING).touch()

    # The clock is read when a run begins and when it ends.
    clock = iter([10.0, 13.0, 20.0, 30.0, 34.0, 40.0, 45.0])
    monkeypatch.setattr(runner.time, "monotonic", lambda: next(clock))
    counted = Sharing()
    assert done(1) == (3.0, True)
    counted.fails = True
    with pytest.raises(RuntimeError):
        done(2)
    counted.fails = False
    assert done(2) == (4.0, False)
    assert done(3) == (5.0, False)


def test_one_process_at_a_time(tmp_path, request_of):
    class Started(Counted):
        """Starts itself again while it runs."""

        def run(self, job):
            super().run(job)
            # To flock, another opening of the file is another process.
            with pytest.raises(ValueError, match="one process.*Received.*counted"):
                run_experiment(Counted(), request_of(), tmp_path)

    assert run_experiment(Started(), request_of(), tmp_path)
    assert runner.read_done(tmp_path / "counted")


def test_what_was_whole_when_it_was_killed_takes_its_place(tmp_path, request_of):
    counted = Counted()
    run_experiment(counted, request_of(), tmp_path)
    (tmp_path / "counted").rename(tmp_path / ".counted")
    assert not run_experiment(counted, request_of(), tmp_path)
    assert counted.runs == 1 and runner.read_done(tmp_path / "counted")


def test_what_is_there_of_a_later_day_stays(tmp_path, request_of):
    output, results = tmp_path / "output", tmp_path / "results"
    run_experiment(Counted(), request_of(), output)
    collect(output, results, ["counted"])
    path = results / "small" / "counted" / "done.json"
    done = json.loads(path.read_text())
    for finished, copied in (("2999-01-01", []), ("2001-01-01", ["counted"])):
        path.write_text(json.dumps({**done, "finished": finished}))
        assert collect(output, results, ["counted"]) == copied
        later = finished if not copied else done["finished"]
        assert json.loads(path.read_text())["finished"] == later


def test_only_what_is_done_is_collected(tmp_path, request_of):
    output, results = tmp_path / "output", tmp_path / "results"
    run_experiment(Counted(), request_of(), output)
    (output / "cost").mkdir()
    (output / "cost" / "batch_sizes.csv").write_text("optimizer\n")
    assert collect(output, results, ["counted", "cost", "ablations"]) == ["counted"]
    assert runner.read_done(results / "small" / "counted")
    assert [p.name for p in (results / "small").iterdir()] == ["counted"]


def test_weights_without_a_card_are_named_by_their_numbers(weights):
    unsaved = dataclasses.replace(weights, card={})
    again = dataclasses.replace(weights, card={}, name="other")
    values = dict(weights.meta_parameters)
    values["learning_rate_bias"] = values["learning_rate_bias"] + 1
    changed = dataclasses.replace(unsaved, meta_parameters=values)
    slower = dataclasses.replace(unsaved, initial_learning_rate=1e-6)
    found = [
        Request("small", None, w).settings(experiment("cost"))["weights_sha256"]
        for w in (weights, unsaved, again, changed, slower)
    ]
    assert found[0] == load_weights("default").card["sha256"]
    assert found[1] == found[2]
    assert len(set(found)) == 4 and all(len(sha256) == 64 for sha256 in found)


@pytest.mark.parametrize(
    "name, said",
    [
        (
            "default-v1",
            " on the task set `default_networks` for 100 outer steps, from "
            "`bootstrap-v1`, then calibrated.",
        ),
        (
            "no_neural_networks-v1",
            " on the task set `no_neural_networks` for 200 outer steps.",
        ),
        ("released-v1", " on the task set `released` for 960 outer steps."),
        ("bootstrap-v1", ", its card does not say."),
    ],
)
def test_the_training_of_weights_is_what_the_card_says(name, said):
    trained = as_trained(load_weights(name))
    entry = runner.entry_of(trained)
    wanted = f"`{trained.name}` was meta-trained{said}"
    assert runner.sentence(entry).endswith(wanted)
    # An earlier version noted name and sha256 alone.
    del entry["training"]
    assert "does not say" in runner.sentence(entry)


def test_the_training_of_weights_stands_beside_what_was_found(tmp_path, request_of):
    run_experiment(Counted(), request_of(), tmp_path)
    paragraph = (tmp_path / "counted" / "paragraph.md").read_text()
    assert f"`{ALIASES['default']}` was meta-trained on" in paragraph

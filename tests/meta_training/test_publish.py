"""Publishing: cards that say where weights come from, and nothing of other weights."""

import csv
import dataclasses
import functools
import json

import pytest
from absl import app

from learned_optimizer import load_weights, save_weights
from meta_training import publish
from meta_training.evaluation import comparison
from meta_training.tasks.released.algebraic import Bowl
from tests.arrays import assert_equal
from tests.commands import run_command

command = functools.partial(run_command, publish)


@pytest.fixture
def made(tmp_path):
    """Weights, the folder of their run, and that of their evaluation."""
    weights = load_weights("bootstrap-v1")
    meta = {name: value + 0.5 for name, value in weights.meta_parameters.items()}
    weights = dataclasses.replace(weights, name="weights", meta_parameters=meta)
    run, report = tmp_path / "run", tmp_path / "report"
    run.mkdir(), report.mkdir()
    path = run / "weights.npz"
    sha256 = save_weights(weights, path, {"settings": {"seed": 7}})
    with open(run / "train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["outer_step", "loss", "window_steps", "seconds"])
        writer.writerows([step, -0.1 * step, 50, 36.0] for step in range(100))
    (run / "validation.csv").write_text("outer_step,score\n0,1.5\n50,-0.25\n")
    (report / "weights.txt").write_text(f"weights {sha256}\n")
    (report / "report.md").write_text(
        "# Evaluation\n\n    the command\n\n## All tasks\n\nWords.\n\n"
        "| a | b |\n|---|---:|\n| c | 1 |\n\n## Wall clock\n\n| d |\n"
    )
    return path, run, report


def test_a_card_says_where_weights_come_from(made, tmp_path):
    path, run, report = made
    command(
        *(f"--weights={path}", "--name=some-v3", f"--train_dirs={run}"),
        *(f"--reports={report}", "--commands=first", "--limits=few"),
        *("--commands=second, with a comma", f"--output={tmp_path}"),
    )
    found, start = (load_weights(x) for x in (tmp_path / "some-v3.npz", path))
    assert found.name == "some-v3"
    assert found.initial_learning_rate == start.initial_learning_rate
    assert_equal(found.meta_parameters, start.meta_parameters)
    card = json.loads((tmp_path / "some-v3.json").read_text())
    assert card["commands"] == ["first", "second, with a comma"]
    assert card["settings"] == {"seed": 7}
    assert card["known_limits"] == "few"
    (curve,) = card["runs"]
    assert curve["outer_steps"] == 100
    assert curve["hours"] == 1.0
    assert curve["inner_steps_of_a_task"] == 5000
    assert curve["loss"]["40"] == -4.0
    assert curve["validation_score"] == {"0": 1.5, "50": -0.25}
    table = ["| a | b |", "|---|---:|", "| c | 1 |"]
    assert card["evaluations"] == [{"command": "the command", "All tasks": table}]


def test_a_curve_ends_where_the_weights_of_the_run_do(made):
    path, run, _ = made
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, "outer_step": 40}))
    # The run goes on, and is killed within a row.
    with open(run / "train.csv", "a") as file:
        file.write("10")
    found = publish.curve(run)
    assert found["outer_steps"] == 40
    assert found["inner_steps_of_a_task"] == 2000
    assert found["hours"] == 0.4
    assert list(found["loss"]) == [str(step) for step in range(40)]
    assert found["loss"]["39"] == -3.9
    assert found["validation_score"] == {"0": 1.5}
    path.with_suffix(".json").write_text(json.dumps({**card, "outer_step": 50}))
    assert publish.curve(run)["validation_score"] == {"0": 1.5, "50": -0.25}
    path.with_suffix(".json").unlink()
    assert publish.curve(run)["outer_steps"] == 100


def test_the_best_weights_of_a_run_end_their_own_curve(made, tmp_path):
    path, run, _ = made
    for name, step in (("best", 30), ("weights", 80)):
        save_weights(load_weights(str(path)), run / f"{name}.npz", {"outer_step": step})
    for name, steps in (("best", 30), ("weights", 80)):
        command(
            *(f"--weights={run / name}.npz", f"--name={name}-v1"),
            *(f"--train_dirs={run}", "--commands=made", "--limits=few"),
            f"--output={tmp_path}",
        )
        (curve,) = load_weights(str(tmp_path / f"{name}-v1.npz")).card["runs"]
        assert curve["outer_steps"] == steps


def test_what_is_refused(made, tmp_path):
    path, run, report = made
    bare = (f"--weights={path}", "--name=some-v1", f"--output={tmp_path}")
    base = (*bare, "--commands=made", "--limits=few")
    command(*base)
    sha256 = (report / "weights.txt").read_text().split()[1]
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "report.md").write_text((report / "report.md").read_text())
    (parts / "weights.txt").write_text(f"a {sha256}0\nb-{sha256} c\nd {sha256[:-1]}\n")
    new = (*base, "--name=some-v2")
    others = ("--weights=bootstrap-v1", f"--reports={report}")
    bare = (*bare, "--name=some-v2")
    for arguments, message in (
        (base, "must stay as they are"),
        ((*base, "--name=Some"), "lower-case words and a version"),
        ((*new, f"--reports={run}"), "with a report.md"),
        ((*new, *others), "is of others"),
        ((*new, f"--train_dirs={report}"), "train.csv"),
        ((*new, f"--reports={parts}"), "is of others"),
        ((*bare, "--limits=few"), r"must be given.*commands \[\]"),
        ((*bare, "--commands=made"), "must be given.*limits ''"),
        (
            (*bare, "--commands=", "--limits=few"),
            "--commands and --limits must be given",
        ),
    ):
        with pytest.raises(app.UsageError, match=message):
            command(*arguments)
    assert not (tmp_path / "some-v2.npz").exists()


def test_the_final_group_judges_once_and_goes_on_record(made, tmp_path, monkeypatch):
    """On a small task in its place: resumed in its folder, refused in another."""
    path, run, _ = made
    task = Bowl(1.0)
    monkeypatch.setattr(publish, "network_group", lambda name: {"final": [task]}[name])
    monkeypatch.setattr(Bowl, "data_set", "spirals", raising=False)
    arguments = [
        *(f"--weights={path}", "--commands=train", "--limits=None known."),
        *("--steps=4", "--seeds=2", "--records=3", "--learning_rates=0.1,0.01"),
        *("--baselines=Adam", "--beside=bootstrap-v1", f"--output={tmp_path}"),
    ]
    final = tmp_path / "final"
    command(*arguments, "--name=judged-v1", f"--final={final}")
    card = json.loads((tmp_path / "judged-v1.json").read_text())
    rows = "\n".join(card["evaluations"][0]["All tasks"])
    # Under the name that they ship with.
    names = ("| judged-v1, ", "| bootstrap-v1, ", "| Adam, ")
    assert all(name in rows for name in names)
    sha256 = load_weights(path).card["sha256"]
    header, row = (tmp_path / "openings.csv").read_text().splitlines()
    assert header == "sha256,folder,day" and row.startswith(f"{sha256},final,")
    # What was stopped goes on: nothing is run again, nothing is recorded again.
    monkeypatch.setattr(comparison, "TrainingLoop", None)
    command(*arguments, "--name=judged-v2", f"--final={final}")
    assert len((tmp_path / "openings.csv").read_text().splitlines()) == 2
    with pytest.raises(app.UsageError, match="must evaluate weights once. Received:"):
        command(*arguments, "--name=judged-v3", f"--final={tmp_path / 'again'}")
    assert not (tmp_path / "judged-v3.npz").exists()
    # Published without: the report comes to the card, and comes once.
    command(*arguments, "--name=judged-v4")
    before = (tmp_path / "judged-v4.npz").read_bytes()
    assert not load_weights(tmp_path / "judged-v4.npz").card["evaluations"]
    for _ in range(2):
        completed = [f"--weights={path}", *arguments[2:-1], f"--output={tmp_path}"]
        command(*completed, "--name=judged-v4", f"--final={final}", "--limits=Few.")
        added = load_weights(tmp_path / "judged-v4.npz").card
        assert len(added["evaluations"]) == 1
        assert "| judged-v4, " in "".join(added["evaluations"][0]["All tasks"])
        assert (added["known_limits"], added["commands"]) == ("Few.", ["train"])
    assert (tmp_path / "judged-v4.npz").read_bytes() == before
    others = ("--name=judged-v4", "--weights=bootstrap-v1", f"--final={final}")
    with pytest.raises(app.UsageError, match="must stay as they are"):
        command(*arguments, *others)

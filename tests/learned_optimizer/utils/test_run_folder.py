"""A folder belongs to one run, whose settings it is known again by."""

import json

import pytest

from learned_optimizer.utils.run_folder import read_identity, verify, write_or_verify

DEFAULTS = {"seed": 0, "rate": 0.1, "unroll": {"steps": 5, "bound": None}}
RUN = {"seed": 3, "rate": 0.1, "unroll": {"steps": 7, "bound": None}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "one" / "settings.json"


def test_a_new_folder_is_made_the_runs_and_known_again(path):
    verify(path, RUN, DEFAULTS)
    assert not path.parent.exists()
    write_or_verify(path, RUN, DEFAULTS)
    assert read_identity(path) == json.loads(path.read_text()) == RUN
    before = path.stat().st_mtime_ns
    write_or_verify(path, dict(RUN), DEFAULTS)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "there, may_change, message",
    [
        (RUN, None, None),
        # What an older file lacks had its default, in nested settings, too.
        ({"seed": 3, "unroll": {"steps": 7}}, None, None),
        ({"rate": 0.1, "unroll": RUN["unroll"]}, None, r"seed \(0 there, 3 now\)"),
        ({"seed": 3, "unroll": {}}, None, r"unroll \(\{'steps': 5.* there"),
        ({**RUN, "rate": 0.2}, None, r"others for rate \(0.2 there, 0.1 now\)$"),
        ({**RUN, "rate": 0.2}, ["rate"], None),
        ({**RUN, "rate": 0.2, "seed": 1}, ["rate"], r"others for seed \(1 there"),
        # A setting that is unknown here.
        ({**RUN, "later": True}, None, None),
        ({**RUN, "later": True}, [], r"others for later \(True there, None now\)"),
    ],
)
def test_a_run_goes_on_under_its_settings(path, there, may_change, message):
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(there))
    for function in (verify, write_or_verify):
        if message is None:
            function(path, RUN, DEFAULTS, may_change)
        else:
            with pytest.raises(ValueError, match=f"must be new.*Received: .*{message}"):
                function(path, RUN, DEFAULTS, may_change)
    # What may change is written as it is now; else the file stays as it was.
    changes = message is None and may_change is not None
    assert read_identity(path) == (RUN if changes else there)


@pytest.mark.parametrize(
    "name, is_free",
    [
        (".settings.json.12.ab", True),
        (".lock", True),
        (".settings", False),
        ("a", False),
    ],
)
def test_a_folder_of_something_else_is_refused(path, name, is_free):
    path.parent.mkdir(parents=True)
    (path.parent / name).touch()
    if is_free:
        write_or_verify(path, RUN, DEFAULTS)
        assert read_identity(path) == RUN
        return
    with pytest.raises(ValueError, match="must be new, empty, .*other things"):
        write_or_verify(path, RUN, DEFAULTS)
    assert read_identity(path) is None


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_damaged_settings_are_refused(path, content):
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match="must be the settings of a run. Received: no"):
        verify(path, RUN, DEFAULTS)

"""One field gives the flag, the check and the row of the table."""

import dataclasses
import math

import pytest
from absl import flags

from learned_optimizer.utils.flags import (
    check_settings,
    define_flags,
    flag_settings,
    setting,
)

COLOURS = {"red": 0, "blue": 1}


@dataclasses.dataclass(frozen=True)
class Config:
    count: int = setting(3, "How many.", at_least=1)
    share: float = setting(0.5, "Which part.", above=0, at_most=1)
    rest: float = setting(0.0, "What stays.", at_least=0, below=1)
    colour: str = setting("red", "Which colour.", choices=COLOURS)
    name: str | None = setting(None, "Its name.")
    bound: float | None = setting(2.0, "A bound.", above=0, zero_is_none=True)
    sizes: tuple[int, ...] = setting((1, 4), "Which sizes.", at_least=1)
    fast: bool = setting(False, "Whether it is fast.")
    inner: object = None

    def __post_init__(self):
        check_settings(self)


def parsed(*arguments, **options):
    values = flags.FlagValues()
    define_flags(Config, flag_values=values, **options)
    values(["program", *arguments])
    return values


def test_flags_without_values_are_the_defaults():
    assert Config(**flag_settings(Config, flag_values=parsed())) == Config()


@pytest.mark.parametrize(
    "argument, name, value",
    [
        ("--count=7", "count", 7),
        ("--share=1", "share", 1.0),
        ("--colour=blue", "colour", "blue"),
        ("--name=x", "name", "x"),
        ("--bound=0", "bound", None),
        ("--sizes=2,8", "sizes", (2, 8)),
        ("--fast", "fast", True),
    ],
)
@pytest.mark.parametrize("unset", [False, True])
def test_flags(argument, name, value, unset):
    values = parsed(argument, unset=unset)
    found = flag_settings(Config, flag_values=values, unset=unset)
    assert found[name] == value
    assert Config(**found) == dataclasses.replace(Config(), **{name: value})
    assert not unset or list(found) == [name]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"count": 0}, "count must be a whole number, 1 or more. Received: count=0"),
        ({"count": 1.5}, "count must be a whole number"),
        ({"count": True}, "count must be a whole number"),
        ({"share": 0}, "share must be a finite number, above 0 and at most 1. Rec"),
        ({"share": 1.5}, "at most 1. Received: share=1.5"),
        ({"share": "1"}, "Received: share='1'"),
        ({"rest": 1}, "rest must be a finite number, 0 or more and below 1"),
        ({"bound": math.nan}, "Received: bound=nan"),
        ({"bound": math.inf}, "Received: bound=inf"),
        ({"colour": "pink"}, "colour must be one of red, blue. Received: colour='pi"),
        ({"colour": None}, "Received: colour=None"),
        ({"name": 3}, "name must be text. Received: name=3"),
        ({"sizes": (1, 0)}, "sizes must be a whole number, 1 or more. Received"),
        ({"fast": 1}, "fast must be a bool. Received: fast=1"),
    ],
)
def test_checks(changes, message):
    with pytest.raises(ValueError, match=message):
        Config(**changes)


def test_a_list_of_something_else_is_refused():
    with pytest.raises(ValueError, match="sizes must be a list.* Received: 1,a"):
        flag_settings(Config, flag_values=parsed("--sizes=1,a"))
    with pytest.raises(flags.IllegalFlagValueError):
        parsed("--colour=pink")


def test_choices_are_asked_when_they_are_needed(monkeypatch):
    monkeypatch.setitem(COLOURS, "green", 2)
    assert Config(colour="green").colour == "green"
    assert parsed("--colour=green").colour == "green"


def test_settings_without_a_flag():
    values = parsed(without=("count",))
    # What the caller defines counts as the caller's.
    assert len(values.get_key_flags_for_module(__name__)) == 7
    assert "count" not in values and "inner" not in values
    assert "count" not in flag_settings(Config, flag_values=values)

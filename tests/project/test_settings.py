"""Defaults and ranges of all settings are those of a table, so that none moves unseen.

    python -m tests.project.test_settings > tests/project/settings.csv

writes the table anew. A default that moves is a change for users: `CHANGELOG.md`.
"""

import csv
import dataclasses
import importlib
import io
import pathlib
import sys

from absl import flags

from learned_optimizer.utils.flags import settings_of
from tests.conftest import run_python
from tests.mutate import PACKAGES, ROOT

TABLE = pathlib.Path(__file__).with_name("settings.csv")


def modules_with(text):
    """The modules whose source has a text."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if text in path.read_text(encoding="utf-8"):
                name = path.relative_to(ROOT).with_suffix("").as_posix()
                yield importlib.import_module(name.replace("/", "."))


def rows():
    """Yields `where, name, default, what it must be` of every setting and flag."""
    for module in modules_with("setting("):
        for name, value in vars(module).items():
            if dataclasses.is_dataclass(value) and value.__module__ == module.__name__:
                where = f"{module.__name__}.{name}"
                for field, rule, kind, _, may_be_none in settings_of(value):
                    has_none = field.default is dataclasses.MISSING
                    default = "" if has_none else repr(field.default)
                    rule = rule.describe(kind) + (" or None" if may_be_none else "")
                    yield where, field.name, default.replace(str(ROOT), "."), rule
    for module in modules_with("def define_flags(values"):
        values = flags.FlagValues()
        module.define_flags(values)
        for name in values:
            default = repr(values[name].default).replace(str(ROOT), ".")
            yield module.__name__, f"--{name}", default, ""


def test_settings_are_those_of_the_table():
    # In a process of its own: other tests register tasks and optimizers to choose from.
    output = run_python("-m", "tests.project.test_settings").stdout
    with TABLE.open(encoding="utf-8", newline="") as file:
        expected = list(csv.reader(file))
    assert list(csv.reader(io.StringIO(output))) == expected
    assert {row[0].partition(".")[0] for row in expected} == set(PACKAGES)


if __name__ == "__main__":
    csv.writer(sys.stdout, lineterminator="\n").writerows(rows())

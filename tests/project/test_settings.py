"""Defaults and ranges of all settings are those of a table, so that none moves unseen.

    python -m tests.project.test_settings

writes the table anew. A default that moves is a change for users: `CHANGELOG.md`.
"""

import csv
import dataclasses
import importlib
import pathlib

from absl import flags

from learned_optimizer.utils.flags import settings_of

ROOT = pathlib.Path(__file__).parents[2]
TABLE = pathlib.Path(__file__).with_name("settings.csv")
PACKAGES = ("learned_optimizer", "meta_training", "imagenet")


def modules_with(text):
    """The modules whose source has a text."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if text in path.read_text(encoding="utf-8"):
                name = path.relative_to(ROOT).with_suffix("").as_posix()
                yield importlib.import_module(name.replace("/", "."))


def rows():
    """`[where, name, default, what it must be]` of every setting and flag."""
    found = []
    for module in modules_with("setting("):
        for name, value in vars(module).items():
            if dataclasses.is_dataclass(value) and value.__module__ == module.__name__:
                where = f"{module.__name__}.{name}"
                for field, rule, kind, _, may_be_none in settings_of(value):
                    default = (
                        "" if field.default is dataclasses.MISSING else field.default
                    )
                    rule = rule.describe(kind) + (" or None" if may_be_none else "")
                    found.append([where, field.name, repr(default), rule])
    for module in modules_with("def define_flags(values"):
        values = flags.FlagValues()
        module.define_flags(values)
        for name in values:
            default = repr(values[name].default)
            found.append([module.__name__, f"--{name}", default, ""])
    return found


def test_settings_are_those_of_the_table():
    with TABLE.open(encoding="utf-8", newline="") as file:
        expected = list(csv.reader(file))
    mine = [[text.replace(str(ROOT), ".") for text in row] for row in rows()]
    assert mine == expected


def test_every_package_has_settings():
    assert {row[0].partition(".")[0] for row in rows()} == set(PACKAGES)


if __name__ == "__main__":
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        written = [[text.replace(str(ROOT), ".") for text in row] for row in rows()]
        csv.writer(file, lineterminator="\n").writerows(written)

"""Settings that are written once: a dataclass field with its help and its range.

    @dataclasses.dataclass(frozen=True)
    class RunConfig:
        batch_size: int = setting(32, "Images a step.", at_least=1)
        schedule: str = setting("cosine", "Of the rate.", choices=SCHEDULES)

        def __post_init__(self):
            check_settings(self)

The flags (`define_flags`, `flag_settings`) and checks (`check_settings`) follow from
the fields. A field that is not made by `setting` has no flag and is not checked.
"""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Collection, Iterator
from typing import Any

from absl import flags

# The flags are those of the module that calls `define_flags`, for `--help` as well.
flags.disclaim_key_flags()

_RULE = "setting"
_FLAGS = {int: "integer", float: "float", str: "string", bool: "boolean"}
_KINDS = {int: "a whole number", float: "a finite number", str: "text", bool: "a bool"}


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What the metadata of a field say of its values."""

    help: str
    choices: Collection[str] | None = None
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    zero_is_none: bool = False

    def describe(self, kind: type) -> str:
        """What a value must be, to go on after "must be"."""
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}"
        limits = {
            "above {}": self.above,
            "{} or more": self.at_least,
            "below {}": self.below,
            "at most {}": self.at_most,
        }
        given = [text.format(x) for text, x in limits.items() if x is not None]
        return f"{_KINDS[kind]}, {' and '.join(given)}" if given else _KINDS[kind]

    def allows(self, value: Any, kind: type) -> bool:
        """Whether it is one."""
        if self.choices is not None:
            return value in self.choices
        if kind in (str, bool):
            return isinstance(value, kind)
        number = numbers.Integral if kind is int else numbers.Real
        if not isinstance(value, number) or isinstance(value, bool):
            return False
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )


def setting(default: Any, help: str, **limits) -> Any:
    """A field of a dataclass, with its help and what its values must be.

    The type of the field is `int`, `float`, `str`, `bool`, a tuple of one of them
    (`tuple[int, ...]`), or one of these or None.

    Args:
        default: Of the field; `dataclasses.MISSING`: it has none.
        help: A sentence, for the flag and the documentation.
        **limits: `above`, `at_least`, `below` and `at_most` for numbers, `choices` for
            text (a collection, asked anew each time). With `zero_is_none` a flag of 0
            stands for None, which no flag can say.
    """
    return dataclasses.field(default=default, metadata={_RULE: _Rule(help, **limits)})


def same_setting(config_class: type, name: str, default: Any) -> Any:
    """A setting of another class once more, with another default."""
    (field,) = (f for f in dataclasses.fields(config_class) if f.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


def settings_of(
    config_class: type,
) -> Iterator[tuple[dataclasses.Field, _Rule, type, bool, bool]]:
    """Each setting: its field and rule, its type, whether a tuple, whether None too."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if _RULE in field.metadata:
            hint, may_be_none = hints[field.name], False
            if isinstance(hint, types.UnionType):
                kinds = typing.get_args(hint)
                may_be_none = types.NoneType in kinds
                (hint,) = (kind for kind in kinds if kind is not types.NoneType)
            is_tuple = typing.get_origin(hint) is tuple
            kind = typing.get_args(hint)[0] if is_tuple else hint
            yield field, field.metadata[_RULE], kind, is_tuple, may_be_none


def check_settings(config: Any) -> None:
    """Raises a ValueError unless every setting by itself is what it must be."""
    for field, rule, kind, is_tuple, may_be_none in settings_of(type(config)):
        value = getattr(config, field.name)
        if value is None and may_be_none:
            continue
        for each in value if is_tuple else [value]:
            if not rule.allows(each, kind):
                raise ValueError(
                    f"{field.name} must be {rule.describe(kind)}. "
                    f"Received: {field.name}={each!r}"
                )


def require_member(name: str, value: Any, known: Collection[str]) -> None:
    """Raises a ValueError unless `value`, called `name`, is one of `known`."""
    if value not in known:
        choices = ", ".join(known)
        raise ValueError(f"{name} must be one of {choices}. Received: {value!r}")


def check_order(config: Any, *pairs: tuple[str, str]) -> None:
    """Raises a ValueError unless the first of each pair is at most the second."""
    for low, high in pairs:
        if getattr(config, low) > getattr(config, high):
            raise ValueError(
                f"{low} must be at most {high}. Received: "
                f"{low}={getattr(config, low)!r}, {high}={getattr(config, high)!r}"
            )


def define_flags(
    *config_classes: type,
    without: Collection[str] = (),
    unset: bool = False,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Defines a flag for each setting but those `without`.

    Of settings of one name, that of the first dataclass counts. With `unset` flags have
    no defaults, so that a preset may have its own.
    """
    names = set(without)
    for config_class in config_classes:
        for field, rule, kind, is_tuple, _ in settings_of(config_class):
            if field.name in names:
                continue
            names.add(field.name)
            missing = unset or field.default is dataclasses.MISSING
            default = None if missing else field.default
            arguments: list[Any] = [field.name, default]
            text, define = rule.help, getattr(flags, f"DEFINE_{_FLAGS[kind]}")
            if is_tuple:
                define = flags.DEFINE_list
                arguments[1] = None if missing else [str(each) for each in default]
                if rule.choices is not None:
                    text += f" Of {', '.join(rule.choices)}."
            elif rule.choices is not None:
                define = flags.DEFINE_enum
                arguments.append(list(rule.choices))
            if rule.zero_is_none:
                text += " 0: none."
            define(*arguments, text, flag_values=flag_values)


def flag_settings(
    *config_classes: type,
    unset: bool = False,
    flag_values: flags.FlagValues = flags.FLAGS,
) -> dict[str, Any]:
    """The settings that the flags give, by name; those without a flag are left out.

    With `unset`, as given to `define_flags`, so are those without a value.

    Raises:
        ValueError: A member of a list is not of its type.
    """
    found: dict[str, Any] = {}
    for config_class in config_classes:
        for field, rule, kind, is_tuple, _ in settings_of(config_class):
            if field.name not in flag_values or field.name in found:
                continue
            value = flag_values[field.name].value
            if unset and value is None:
                continue
            if is_tuple and value is not None:
                try:
                    value = tuple(kind(each) for each in value)
                except ValueError as error:
                    raise ValueError(
                        f"{field.name} must be a list, each {rule.describe(kind)}. "
                        f"Received: {','.join(value)}"
                    ) from error
            if rule.zero_is_none and value == 0:
                value = None
            found[field.name] = value
    return found

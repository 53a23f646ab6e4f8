"""Check a configuration against the source of the classes that it names.

The keys of a group are the constructor parameters of its `_target_`. Their types and ranges are the
annotations of `__init__`, or the fields of a dataclass. The source is parsed and never imported: a
mistake is reported before torch is loaded, and an untrusted configuration runs nothing.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Literal, Optional, Union, get_args, get_origin

from crgan_cli.config.bounds import Bound, NamedGroups, PositiveInt, Words
from crgan_cli.config.resolve import format_setting, format_typed
from crgan_cli.config.signatures import ROOT, Parameter, parameters
from crgan_cli.errors import UserError, missing_value, unknown_name, wrong_value

MISSING = "???"  # OmegaConf's mark of a value that the user must give

READ_BY_OTHERS: dict[str, dict[str, object]] = {
    # Keys that are not read by the group's own classes.
    "architecture": {"prior": Literal["uniform", "normal"]},
    # metrics=none accepts them too, so that an experiment that sets them can be run without metrics
    "metrics": {
        "every": PositiveInt,
        "num_samples": Optional[PositiveInt],  # noqa: UP045 - a value
        "batch_norm": Literal["running", "standing", "batch"],
        "measures": list[str],
    },
}

FILLED_BY_CODE: dict[str, tuple[str, ...]] = {
    # Parameters that look like keys, but that the code fills from another group.
    "task": ("n_dis", "channels_in", "stages"),  # of other groups: see Task.arguments
    # the channels of the two sides of an image-to-image data set, and of what D sees of them; the
    # columns of the labels that G sees, and the labels that D classifies
    "architecture": ("in_channels", "out_channels", "d_in_channels", "label_planes", "d_labels"),
}


Hint = Callable[[str], str]
"""Says of an unknown dotted key where it comes from; "" if that is plain."""


def find_problems(config: Mapping[str, object], hint: Hint = lambda key: "") -> list[str]:
    """List everything that is wrong with a resolved configuration."""
    groups = {
        key: value
        for key, value in config.items()
        if isinstance(value, Mapping) and "_target_" in value
    }
    rest = {key: value for key, value in config.items() if key not in groups}
    problems = list(_check_keys("", rest, parameters(ROOT), others=[*groups]))
    for group, settings in groups.items():
        problems += _check_group(group, settings, hint)
    return problems


def target_paths(settings: Mapping[str, object]) -> list[str]:
    """The dotted paths in a group's `_target_`."""
    target = settings["_target_"]
    if isinstance(target, str):
        return [target]
    if isinstance(target, Mapping) and all(isinstance(path, str) for path in target.values()):
        return [str(path) for path in target.values()]
    raise UserError(
        wrong_value(
            "_target_", "a dotted path or a mapping of names to dotted paths", format_typed(target)
        )
    )


def _check_group(
    group: str, settings: Mapping[str, object], hint: Hint = lambda key: ""
) -> Iterator[str]:
    extra = {
        name: Parameter(name, kind, True) for name, kind in READ_BY_OTHERS.get(group, {}).items()
    }
    try:
        known = {name: p for path in target_paths(settings) for name, p in parameters(path).items()}
    except UserError as error:
        yield f"{group}: {error}"
        return
    known = {name: p for name, p in known.items() if name not in FILLED_BY_CODE.get(group, ())}
    rest = {key: value for key, value in settings.items() if key != "_target_"}
    yield from _check_keys(group, rest, extra | known, hint=hint)


def _check_keys(
    where: str,
    settings: Mapping[str, object],
    known: Mapping[str, Parameter],
    others: list[str] | None = None,
    hint: Hint = lambda key: "",
) -> Iterator[str]:
    """Check one mapping. `others`: valid names that are not checked here."""
    keys: dict[str, object] = {name: p.kind for name, p in known.items() if p.kind is not None}
    for key, value in settings.items():
        path = f"{where}.{key}" if where else key
        if key not in keys:
            kind, prefix = ("key", f"{where}.") if where else ("setting", "")
            names = [*(others or []), *keys]
            yield unknown_name(
                kind, str(key), sorted(names), where=where, prefix=prefix, hint=hint(path)
            )
        elif isinstance(keys[key], dict):
            yield from _check_nested(path, value, keys[key])
        elif keys[key] == NamedGroups and isinstance(value, Mapping):
            yield from _check_named_groups(path, value)
        elif value == MISSING:
            yield missing_value(path, _placeholder(keys[key]))
        elif not matches(value, keys[key]):
            yield _wrong_value(path, value, keys[key])
    for name in keys.keys() - settings.keys():
        if not known[name].optional:
            path = f"{where}.{name}" if where else name
            yield missing_value(path, _placeholder(keys[name]))


def _check_named_groups(path: str, groups: Mapping[str, object]) -> Iterator[str]:
    for name, settings in groups.items():
        if isinstance(settings, Mapping) and isinstance(settings.get("_target_"), str):
            yield from _check_group(f"{path}.{name}", settings)
        else:
            yield wrong_value(
                f"{path}.{name}", "a group of settings with a _target_", format_typed(settings)
            )


def _check_nested(path: str, value: object, known: object) -> Iterator[str]:
    assert isinstance(known, dict)
    if isinstance(value, Mapping):
        yield from _check_keys(path, value, known)
    else:
        remedy = f"Type for example {path}.{next(iter(known))}=..."
        yield wrong_value(path, "a group of settings", format_typed(value), remedy)


def _wrong_value(path: str, value: object, kind: object) -> str:
    remedy = ""
    if isinstance(value, float) and value.is_integer() and matches(int(value), kind):
        remedy = f"Type {path}={int(value)}"
    elif isinstance(value, (int, float)) and matches(str(value), kind):
        remedy = f"Put it in quotes twice: {path}='\"{value}\"'"
    return wrong_value(path, describe_type(kind), format_typed(value), remedy)


def matches(value: object, kind: object) -> bool:
    """Whether a value from YAML has an annotation's type and lies in its range."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return (
            matches(value, args[0])
            and all(
                bound.holds(value)  # type: ignore[arg-type]  # a number, by the line above
                for bound in args[1:]
                if isinstance(bound, Bound) and value is not None
            )
        )
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if origin in (Union, UnionType):
        return any(matches(value, arg) for arg in args)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and _members_fit(value, origin, args)
    if kind is float:
        return type(value) in (int, float) and not math.isnan(value)  # type: ignore[arg-type]
    return type(value) is kind  # a bool is no int here


def _members_fit(
    value: list[object] | tuple[object, ...], origin: type, args: tuple[object, ...]
) -> bool:
    if origin is list or args[-1:] == (Ellipsis,):
        return all(matches(member, args[0]) for member in value)
    return len(value) == len(args) and all(map(matches, value, args))


_WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "names with a group of settings each",
    NoneType: "null",
    None: "null",
}


def describe_type(kind: object) -> str:
    """Describe an annotation for users: "a number of at least 0", "one of zero, reflect"."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        marks = (mark.words for mark in args[1:] if isinstance(mark, (Bound, Words)))
        return next(marks, describe_type(args[0]))
    if origin is Literal:
        return f"one of {', '.join(map(format_setting, args))}"
    if origin in (Union, UnionType):
        return " or ".join(describe_type(arg) for arg in args)
    if origin is list:
        return f"a list [...], each {describe_type(args[0])}"
    if origin is tuple:
        return f"[{', '.join('...' if arg is Ellipsis else describe_type(arg) for arg in args)}]"
    return _WORDS.get(kind, str(kind))


def _placeholder(kind: object) -> str:
    if get_origin(kind) is Literal:
        return str(get_args(kind)[0])
    if matches("", kind):
        return "TEXT"
    return "NUMBER" if matches(1, kind) or matches(0.5, kind) else "VALUE"

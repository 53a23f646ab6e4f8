"""Build objects from checked settings."""

import importlib
from inspect import isclass, signature
from typing import Any

from crgan_cli.config import schema
from crgan_cli.config.resolve import Settings, to_plain
from crgan_cli.config.signatures import ALLOWED, trusted
from crgan_cli.errors import UserError


def import_class(dotted: str) -> type:
    """The class at a dotted path, if it is *defined* in crgan_cli, torch.optim or a plug-in.

    A checkpoint carries its configuration, and a stranger's must not run what it names.
    """
    module, _, name = dotted.rpartition(".")
    refusal = UserError(f"'{dotted}' is no class that crgan may build. {ALLOWED}")
    if not trusted(module):
        raise refusal
    try:
        found = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise refusal from error
    if not isclass(found) or not trusted(found.__module__):
        raise refusal
    return found


def build_from(cls: type, settings: Settings, **injected: Any) -> Any:
    """Build a `cls`. Each parameter comes by name from `injected`, or else from `settings`."""
    values = {**to_plain(settings), **injected}
    known = signature(cls).parameters
    missing = [n for n, p in known.items() if p.default is p.empty and n not in values]
    if missing:
        raise UserError(f"{cls.__name__} has no value for {', '.join(missing)}.")
    return cls(**{name: values[name] for name in known if name in values})


def import_classes(settings: Settings) -> tuple[dict[str, type], dict[str, Any]]:
    """Return name -> class of a group's `_target_`, and its other settings.

    The name is "" if the group is one class. UserError for a setting that none of them takes.
    """
    values = to_plain(settings)
    target = values.pop("_target_")
    paths = {"": target} if isinstance(target, str) else dict(target)
    classes = {name: import_class(path) for name, path in paths.items()}
    used = {name for cls in classes.values() for name in signature(cls).parameters}
    used = used.union(*schema.READ_BY_OTHERS.values())
    if unused := [key for key in values if key not in used]:
        names = ", ".join(cls.__name__ for cls in classes.values()) or "nothing"
        raise UserError(f"{', '.join(unused)}: no setting of {names}.")
    return classes, values


def build_group(settings: Settings, **injected: Any) -> Any:
    """Build what a group's `_target_` names: an object, or name -> object for a mapping."""
    classes, values = import_classes(settings)
    objects = {name: build_from(cls, values, **injected) for name, cls in classes.items()}
    return objects[""] if classes.keys() == {""} else objects

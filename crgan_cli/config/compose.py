"""The one place where YAML becomes objects: compose, check, build.

Composition is Hydra's, through its public compose API. What a composed configuration may hold is
`schema.py`'s; how a failure is put into words is `explain.py`'s. Importing this imports no torch.
"""

import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import isclass, signature
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.config import messages, schema
from crgan_cli.config.choices import Choices
from crgan_cli.config.choices import conf_dir as conf_dir  # it is asked for here
from crgan_cli.config.signatures import ALLOWED, trusted
from crgan_cli.errors import UserError

IGNORED = (
    "out",
    "resume",
    "device",
    "data_root",
    "dataset.root",
    "checkpoint",
    "published",
    "steps",
    "sweep",
    "engine",
)
"""Keys that may change when a run is resumed: they say where, by what means and how long it is
trained."""

BRINGS = {"metrics": "extractor"}
"""Group -> the group that its files override: a protocol names the extractor it is defined by."""

Settings = Mapping[str, Any]

_ABSENT = object()


def folder_name(number: int, overrides: str) -> str:
    """A job's folder in a sweep: legal on every system, and of at most 80 characters."""
    name = re.sub(r"[^\w.,=+\[\]-]+", "-", f"{number}_{overrides}").rstrip("._-")
    if len(name) <= 80:
        return name
    return f"{name[:70]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


OmegaConf.register_new_resolver("crgan.folder", folder_name, replace=True)


def compose(
    overrides: Sequence[str], config_dir: str | None = None, config_name: str = "train"
) -> DictConfig:
    """The configuration that `overrides` ask for, whole and checked; UserError if it is not."""
    choices = Choices(config_dir)
    with searching(choices) as parser:
        for override in messages.parse(overrides, choices, parser):
            messages.single(override, choices)
        return checked(without_hydra(draft(overrides, choices, config_name)))


@contextmanager
def searching(choices: Choices) -> Iterator[OverridesParser]:
    """Opens Hydra's search path over crgan's folder, and gives a parser that knows its files."""
    hydra = GlobalHydra.instance()
    hydra.clear()  # one that an earlier, interrupted call has left
    with initialize_config_dir(str(choices.folders[0]), job_name="train", version_base="1.3"):
        yield OverridesParser.create(config_loader=hydra.config_loader())


def draft(overrides: Sequence[str], choices: Choices, config_name: str = "train") -> DictConfig:
    """Composed, hydra's own node included, and not yet checked. Inside `searching`."""
    try:
        return _hydra(overrides, choices, config_name)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        keys = _known_keys(overrides, choices, config_name)
        raise UserError(messages.explain(error, choices, keys)) from error


def _hydra(overrides: Sequence[str], choices: Choices, config_name: str) -> DictConfig:
    added = [
        str(folder).replace("\\", "\\\\").replace("'", "\\'") for folder in choices.folders[1:]
    ]
    path = [f"hydra.searchpath=['file://{folder}']" for folder in added]
    return hydra_compose(config_name, [*path, *overrides], return_hydra_config=True)


def _known_keys(overrides: Sequence[str], choices: Choices, config_name: str) -> list[str]:
    """The dotted keys that there are once the groups are chosen; none if that is what fails."""
    groups = [text for text in overrides if text.partition("=")[0] in choices.groups]
    try:
        config = without_hydra(_hydra(groups, choices, config_name))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
        return []
    return list(_flat(OmegaConf.to_container(config, resolve=False)))


def without_hydra(config: DictConfig) -> DictConfig:
    """The configuration proper, with its interpolations."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def checked(config: DictConfig) -> DictConfig:
    """The same configuration, known to be right; UserError with all that is wrong with it."""
    found = schema.check(plain(config))
    if len(found) == 1:
        raise UserError(found[0])
    if found:
        lines = "".join(f"\n  - {problem}" for problem in found)
        raise UserError(f"{len(found)} things are wrong with the configuration:{lines}")
    return config


def plain(settings: Settings) -> dict[str, Any]:
    """Plain dictionaries and lists, interpolations resolved."""
    if not isinstance(settings, DictConfig):
        return dict(settings)
    try:
        return OmegaConf.to_container(settings, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(_interpolation(error)) from error


def complete(config: DictConfig) -> bool:
    """Whether no value is left that only the user can give."""
    try:
        return not OmegaConf.missing_keys(config)
    except OmegaConfBaseException:  # a value interpolated from one that is missing
        return False


def _interpolation(error: OmegaConfBaseException) -> str:
    said = str(error).splitlines()[0].rstrip(".")
    if lacking := re.search(r"Missing mandatory value: ([\w.]+)", said):
        return schema.missing(lacking[1])
    if not (name := re.search(r"Interpolation key '([^']+)' not found", said)):
        return f"{error.full_key or 'A value'} cannot be worked out: {said}."
    return f"{error.full_key} is to be taken from '{name[1]}', which there is not: type its value."


def to_text(config: DictConfig) -> str:
    """A configuration as YAML, interpolations resolved; `from_text` reads it."""
    return OmegaConf.to_yaml(OmegaConf.create(plain(config)))


def from_text(text: str, source: str = "this configuration") -> DictConfig:
    """Reads what `to_text` wrote, and checks it as if it had been typed."""
    try:
        config = OmegaConf.create(text)
    except (
        yaml.YAMLError,
        OmegaConfBaseException,
        AssertionError,
        RecursionError,
    ) as error:  # its own, of a "3"
        raise UserError(f"{source} cannot be read as YAML settings.") from error
    if not isinstance(config, DictConfig) or not config:
        raise UserError(f"{source} holds no configuration of crgan.")
    try:
        return checked(config)
    except UserError as error:
        raise UserError(f"In {source}: {error}") from error


def amended(
    config: DictConfig, overrides: Sequence[str], changeable: Sequence[str], purpose: str
) -> DictConfig:
    """A run's own configuration with some values typed anew, checked again.

    Only the keys and groups in `changeable` may be; `purpose` tells the user what they are for.
    """
    choices = Choices()
    with searching(choices) as parser:
        parsed = messages.parse(overrides, choices, parser)
        for override in parsed:
            _require_one_of(changeable, override, f"{purpose} takes the run's own settings")
            messages.single(override, choices)
        groups = {each.key_or_group for each in parsed if each.key_or_group in choices.groups}
        new = OmegaConf.create(plain(config))
        if groups:
            lines = [str(o.input_line) for o in parsed if o.key_or_group.split(".")[0] in groups]
            drafted = plain(without_hydra(draft(lines, choices)))
            for group in groups | {BRINGS[each] for each in groups & BRINGS.keys()}:
                new[group] = drafted[group]
        for override in parsed:
            key = override.key_or_group
            if key.split(".")[0] in groups:
                continue
            if OmegaConf.select(new, key, default=_ABSENT) is _ABSENT:
                raise UserError(messages.no_key(key, choices, list(flat(new))))
            OmegaConf.update(new, key, override.value())
        if new.dataset.get("root") == config.data_root:  # which it was taken from
            new.dataset.root = new.data_root
    return checked(new)


def partly(overrides: Sequence[str], changeable: Sequence[str], purpose: str) -> DictConfig:
    """A new configuration of which only the keys and groups in `changeable` matter."""
    choices = Choices()
    with searching(choices) as parser:
        for override in messages.parse(overrides, choices, parser):
            _require_one_of(changeable, override, f"{purpose} trains nothing")
    return compose(overrides)


def _require_one_of(changeable: Sequence[str], override: Override, reason: str) -> None:
    key = override.key_or_group
    if not any(key == name or key.startswith(f"{name}.") for name in changeable):
        *most, last = (f"{name}=" for name in changeable)
        listed = f"{', '.join(most)} and {last}" if most else last
        raise UserError(f"'{override.input_line}': {reason}; only {listed} may be given with it.")


def difference(old: Settings, new: Settings) -> list[str]:
    """Lines "key: old -> new" of what differs, but for `IGNORED`."""
    before, after = flat(old), flat(new)
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
        and not any(key == name or key.startswith(f"{name}.") for name in IGNORED)
    ]


def flat(settings: Settings) -> dict[str, Any]:
    """Dotted key -> value, interpolations resolved, lists whole."""
    return _flat(plain(settings))


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict) or (prefix and not settings):
        return {prefix: settings}
    return {
        dotted: value
        for key, child in settings.items()
        for dotted, value in _flat(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }


# --- building -------------------------------------------------------------------------------------


def locate(dotted: str) -> type:
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


def pick(cls: type, settings: Settings, **injected: Any) -> Any:
    """An object of `cls`, each parameter taken by its name from `injected` or else `settings`."""
    offered = {**plain(settings), **injected}
    known = signature(cls).parameters
    missing = [n for n, p in known.items() if p.default is p.empty and n not in offered]
    if missing:
        raise UserError(f"{cls.__name__} has no value for {', '.join(missing)}.")
    return cls(**{name: offered[name] for name in known if name in offered})


def build_group(settings: Settings, **injected: Any) -> Any:
    """What a group's `_target_` names: an object, or name -> object where it is a mapping."""
    given = plain(settings)
    target = given.pop("_target_")
    paths = {"": target} if isinstance(target, str) else dict(target)
    classes = {name: locate(path) for name, path in paths.items()}
    used = {name for cls in classes.values() for name in signature(cls).parameters}
    spare = [key for key in given if key not in used and not _read_elsewhere(key)]
    if spare:
        names = ", ".join(cls.__name__ for cls in classes.values()) or "nothing"
        raise UserError(f"{', '.join(spare)}: no setting of {names}.")
    built = {name: pick(cls, given, **injected) for name, cls in classes.items()}
    return built[""] if isinstance(target, str) else built


def _read_elsewhere(key: str) -> bool:
    return any(key in keys for keys in schema.EXTRA.values())

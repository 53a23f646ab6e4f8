"""Write, read, change and compare the configuration of a run on disk."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.config import messages, unknown
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import (
    compose,
    compose_unchecked,
    drop_hydra_node,
    expand_paths,
    hydra_search_path,
    require_valid,
)
from crgan_cli.config.resolve import Settings, flatten, format_setting, to_plain
from crgan_cli.config.settings import Run
from crgan_cli.config.signatures import NO_DEFAULT, parameters
from crgan_cli.config.trust import path_keys, printable, require_code_typed, show_data_paths
from crgan_cli.errors import UserError, conflict

MAY_CHANGE_ON_RESUME = (
    "out",
    "resume",
    "device",
    "data_root",
    "dataset.root",
    "dataset.labels_file",
    "dataset.parts.*.root",
    "dataset.parts.*.labels_file",
    "checkpoint",
    "samples",
    "log",
    "logger",
    "metrics.every",
    "published",
    "steps",
    "sweep",
    "engine",
    "accumulate",
    "early_stop",
)
"""Keys that may change when a run is resumed: where, by what means and how long to train, and how
often to look at it."""

NEVER_ON_RESUME = ("optimizer._target_", "optimizer.n_dis")
"""Of keys that a command lets change: another optimizer has other moments, and the images that D
has seen are counted by n_dis."""

ALSO_SETS = {"metrics": "extractor"}
"""Group -> the group that its files override: a protocol chooses its extractor."""

NEWER_GROUPS: dict[str, Any] = {
    "augment_both": {"_target_": {}},
    "measure": {"_target_": {}},
    "sampler": {"_target_": "crgan_cli.data.Shuffle"},
    "logger": {"_target_": {"tensorboard": "crgan_cli.runs.loggers.TensorBoard"}},
}
"""Groups that runs of older versions lack -> what these runs did."""

ABSENT = object()


def to_text(config: DictConfig) -> str:
    """Write a configuration as YAML, with interpolations resolved."""
    values = to_plain(config)
    _require_values(values, "this configuration")
    return OmegaConf.to_yaml(OmegaConf.create(values))


class Typed(NamedTuple):
    """What the user typed for a stored configuration, and what a command lets them change."""

    overrides: Sequence[str]
    changeable: Sequence[str]  # keys and groups; paths may always be typed
    purpose: str  # the command, for messages


def from_text(
    text: str,
    source: str = "this configuration",
    *,
    builds: Collection[str] | None = None,
    typed: Typed | None = None,
) -> DictConfig:
    """Read what `to_text` wrote, change it as typed, and check it as if all had been typed.

    `builds`: the groups that the caller builds; None for all. Others are left out, and need not be
    known. UserError also for keys that may not change, and for files that a stranger may not name
    (`trust.py`).
    """
    config, choices = read_stored(text, source), Choices()
    with hydra_search_path(choices) as parser:
        overrides = _parse_typed(typed, config, choices, parser) if typed else []
        if builds is not None:
            kept = {*builds, *(each.key_or_group.partition(".")[0] for each in overrides)}
            config = {k: v for k, v in config.items() if k in kept or not _is_group(k, v, choices)}
        new, own = _apply(config, overrides, choices)
    needed = choices.groups.keys() - {"experiment"} if builds is None else builds
    missing = sorted(group for group in needed if group not in new)
    try:
        if missing:
            raise UserError(f"there is no {' and no '.join(missing)}.")
        require_valid(new)
    except UserError as error:
        changed = ", changed as typed" if overrides else ""
        raise UserError(f"In {source}{changed}: {error}") from error
    require_code_typed(new, own, source)
    show_data_paths(new, own, source)
    expand_paths(new)
    return new


def read_stored(text: str, source: str) -> dict[str, Any]:
    """Read the values that `to_text` wrote, unchecked: to compare them, never to build from them.

    Interpolations are refused and not resolved: a stranger's could read the environment.
    """
    unreadable = (yaml.YAMLError, OmegaConfBaseException, AssertionError, RecursionError)
    try:
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except unreadable as error:  # an AssertionError for "3"
        raise UserError(f"{source} cannot be read as YAML settings.") from error
    if not isinstance(values, dict) or not values:
        raise UserError(f"{source} holds no configuration of crgan.")
    config = {str(key): value for key, value in values.items()}
    _require_values(config, source)
    older = "augment" in config  # a run's; whoever wrote less, meant less
    return {**NEWER_GROUPS, **config} if older else config


def _require_values(config: Settings, source: str) -> None:
    """UserError for an interpolation, which would be resolved when the text is read again."""
    for key, value in flatten(config).items():
        if "${" in str(value):
            raise UserError(
                f"In {source}: {printable(f'{key} is {value}')}. A stored configuration holds "
                "values and no interpolation ${...}, and crgan did not resolve it. Write a value."
            )


def _is_group(key: str, value: object, choices: Choices) -> bool:
    return key in choices.groups or (isinstance(value, dict) and "_target_" in value)


def _parse_typed(
    typed: Typed, config: Settings, choices: Choices, parser: OverridesParser
) -> list[Override]:
    """Parse what was typed. UserError for what may not be changed, or has several values."""
    quoted = messages.quote_overrides(typed.overrides)
    parsed = messages.parse_overrides(quoted, choices, parser)
    changeable = (*typed.changeable, *path_keys(config))
    for override in parsed:
        if not is_below(override.key_or_group, changeable):
            reason = "takes the run's own settings"
            raise _cannot_change(typed.changeable, override, typed.purpose, reason)
        messages.require_one_value(override, choices)
        if override.is_delete():  # a run has the keys of its own choices only
            raise UserError(messages.cannot_delete(override.key_or_group, choices))
    return parsed


def _apply(
    config: Settings, overrides: Sequence[Override], choices: Choices
) -> tuple[DictConfig, set[str]]:
    """Apply overrides. Return also the keys whose values are the user's, or crgan's files'."""
    new, own = OmegaConf.create(dict(config)), {each.key_or_group for each in overrides}
    groups = own & choices.groups.keys()
    if groups:
        lines = [str(o.input_line) for o in overrides if o.key_or_group.split(".")[0] in groups]
        chosen = to_plain(drop_hydra_node(compose_unchecked(lines, choices)))
        for group in groups | {ALSO_SETS[each] for each in groups & ALSO_SETS.keys()}:
            new[group] = chosen[group]
            own |= {f"{group}.{key}" for key in chosen[group]}
            own |= {*flatten({group: chosen[group]})}  # also what is in groups inside of it
    for override in overrides:
        key = override.key_or_group
        if key.split(".")[0] in groups:
            continue
        if OmegaConf.select(new, key, default=ABSENT) is ABSENT:
            raise UserError(unknown.unknown_key(key, choices, list(flatten(new))))
        OmegaConf.update(new, key, override.value())
    for key in path_keys({"dataset": new.dataset}) if "data_root" in own else ():
        if OmegaConf.select(new, key) == config.get("data_root"):
            OmegaConf.update(new, key, new.data_root)
            own.add(key)
    return new, own


def compose_partial(
    overrides: Sequence[str], changeable: Sequence[str], purpose: str
) -> DictConfig:
    """Compose a new configuration of which only the keys and groups in `changeable` matter."""
    choices, overrides = Choices(), messages.quote_overrides(overrides)
    with hydra_search_path(choices) as parser:
        for override in messages.parse_overrides(overrides, choices, parser):
            if not is_below(override.key_or_group, changeable):
                raise _cannot_change(changeable, override, purpose, "trains nothing")
    return compose(overrides)


def _cannot_change(
    changeable: Sequence[str], override: Override, purpose: str, reason: str
) -> UserError:
    *most, last = (f"{name}=" for name in changeable)
    listed = f"{', '.join(most)} and {last}" if most else last
    what, remedy = f"'{override.input_line}'", f"Give only {listed} with it."
    return UserError(conflict(what, purpose, f"{purpose} {reason}", remedy))


def is_below(key: str, names: Collection[str]) -> bool:
    """Whether a dotted key is one of the names, or lies below one. A * in one is any name."""
    words = key.split(".")
    patterns = (name.split(".") for name in names)
    return any(
        len(pattern) <= len(words)
        and all(one in ("*", word) for one, word in zip(pattern, words, strict=False))
        for pattern in patterns
    )


def difference(
    old: Settings, new: Settings, allowed: Collection[str] = MAY_CHANGE_ON_RESUME
) -> list[str]:
    """List "key: old -> new" for all differences outside the `allowed` keys.

    A key that an older crgan did not have counts with its default.
    """
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {format_setting(before.get(key, '(absent)'))} -> "
        f"{format_setting(after.get(key, '(absent)'))}"
        for key in differing_keys(before, after)
        if not is_below(key, allowed) or is_below(key, NEVER_ON_RESUME)
    ]


def differing_keys(before: Settings, after: Settings) -> list[str]:
    """List the keys whose values differ between two configurations that `flatten` returned."""
    return [
        key
        for key in dict.fromkeys([*before, *after])
        if before.get(key, default_value(before, key)) != after.get(key, default_value(after, key))
    ]


def default_value(settings: Settings, key: str) -> object:
    """Return the default of a key in flat settings, of a group or of the run; `ABSENT` if none."""
    if key in (newer := flatten(NEWER_GROUPS)):
        return newer[key]
    group, _, name = key.partition(".")
    for field in fields(Run):
        if field.name == group and field.default is not MISSING:
            return getattr(field.default, name, ABSENT) if name else field.default
    for other, path in settings.items():
        if other.startswith(f"{group}._target_") and isinstance(path, str):
            with suppress(UserError):  # a class that is no longer there
                parameter = parameters(path).get(name)
                if parameter is not None and parameter.default is not NO_DEFAULT:
                    return parameter.default
    return ABSENT


def make_paths_absolute(config: DictConfig) -> None:
    """Make the paths of data absolute: a run may be resumed from another folder."""
    expand_paths(config)
    config.data_root = str(Path(config.data_root).absolute())
    if config.get("init_from") is not None:
        config.init_from = str(Path(config.init_from).absolute())
    keys = set(path_keys({"dataset": config.dataset}))
    if config.dataset.get("root") is not None:  # also of a class that is no longer there
        keys.add("dataset.root")
    for key in keys:
        path = str(Path(OmegaConf.select(config, key)).absolute())
        OmegaConf.update(config, key, path)

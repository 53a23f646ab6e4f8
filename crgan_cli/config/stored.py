"""Write, read, change and compare the configuration of a run on disk."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.config import messages
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import (
    compose,
    compose_unchecked,
    drop_hydra_node,
    hydra_search_path,
    require_valid,
)
from crgan_cli.config.resolve import Settings, flatten, to_plain
from crgan_cli.errors import UserError, conflict

MAY_CHANGE_ON_RESUME = (
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
"""Keys that may change when a run is resumed: where, by what means and how long to train."""

ALSO_SETS = {"metrics": "extractor"}
"""Group -> the group that its files override: a protocol chooses its extractor."""

_ABSENT = object()


def to_text(config: DictConfig) -> str:
    """Write a configuration as YAML, with interpolations resolved."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(config)))


def from_text(text: str, source: str = "this configuration") -> DictConfig:
    """Read what `to_text` wrote, and check it as if it had been typed."""
    unreadable = (yaml.YAMLError, OmegaConfBaseException, AssertionError, RecursionError)
    try:
        config = OmegaConf.create(text)
    except unreadable as error:  # an AssertionError for "3"
        raise UserError(f"{source} cannot be read as YAML settings.") from error
    if not isinstance(config, DictConfig) or not config:
        raise UserError(f"{source} holds no configuration of crgan.")
    try:
        return require_valid(config)
    except UserError as error:
        raise UserError(f"In {source}: {error}") from error


def from_file(path: Path) -> DictConfig:
    """Read a configuration that `to_text` wrote to a file. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as YAML settings ({error}).") from error
    return from_text(text, str(path))


def with_overrides(
    config: DictConfig, overrides: Sequence[str], changeable: Sequence[str], purpose: str
) -> DictConfig:
    """Apply overrides to a run's configuration, and check it again.

    UserError for keys and groups outside `changeable`. `purpose`: the command, for the message.
    """
    choices = Choices()
    with hydra_search_path(choices) as parser:
        parsed = messages.parse_overrides(overrides, choices, parser)
        for override in parsed:
            _require_one_of(changeable, override, purpose, "takes the run's own settings")
            messages.require_one_value(override, choices)
        groups = {each.key_or_group for each in parsed if each.key_or_group in choices.groups}
        new = OmegaConf.create(to_plain(config))
        if groups:
            lines = [str(o.input_line) for o in parsed if o.key_or_group.split(".")[0] in groups]
            chosen = to_plain(drop_hydra_node(compose_unchecked(lines, choices)))
            for group in groups | {ALSO_SETS[each] for each in groups & ALSO_SETS.keys()}:
                new[group] = chosen[group]
        for override in parsed:
            key = override.key_or_group
            if key.split(".")[0] in groups:
                continue
            if OmegaConf.select(new, key, default=_ABSENT) is _ABSENT:
                raise UserError(messages.unknown_key(key, choices, list(flatten(new))))
            OmegaConf.update(new, key, override.value())
        if new.dataset.get("root") == config.data_root:  # follow a change of data_root
            new.dataset.root = new.data_root
    return require_valid(new)


def compose_partial(
    overrides: Sequence[str], changeable: Sequence[str], purpose: str
) -> DictConfig:
    """Compose a new configuration of which only the keys and groups in `changeable` matter."""
    choices = Choices()
    with hydra_search_path(choices) as parser:
        for override in messages.parse_overrides(overrides, choices, parser):
            _require_one_of(changeable, override, purpose, "trains nothing")
    return compose(overrides)


def _require_one_of(
    changeable: Sequence[str], override: Override, purpose: str, reason: str
) -> None:
    if not _is_below(override.key_or_group, changeable):
        *most, last = (f"{name}=" for name in changeable)
        listed = f"{', '.join(most)} and {last}" if most else last
        what, remedy = f"'{override.input_line}'", f"Give only {listed} with it."
        raise UserError(conflict(what, purpose, f"{purpose} {reason}", remedy))


def _is_below(key: str, names: Sequence[str]) -> bool:
    """Whether a dotted key is one of the names, or lies below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def difference(old: Settings, new: Settings) -> list[str]:
    """List "key: old -> new" for all differences outside `MAY_CHANGE_ON_RESUME`."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
        and not _is_below(key, MAY_CHANGE_ON_RESUME)
    ]

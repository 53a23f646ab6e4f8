"""The configuration of a run on disk: written, read back, changed, compared."""

from collections.abc import Sequence

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.config import messages
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import (
    _ABSENT,
    compose,
    compose_unchecked,
    drop_hydra_node,
    hydra_search_path,
    require_valid,
)
from crgan_cli.config.resolve import Settings, flatten, to_plain
from crgan_cli.errors import UserError

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
"""Keys that may change when a run is resumed: they say where, by what means and how long it is
trained."""

ALSO_SETS = {"metrics": "extractor"}
"""Group -> the group that its files override: a protocol names the extractor it is defined by."""


def to_text(config: DictConfig) -> str:
    """A configuration as YAML, interpolations resolved; `from_text` reads it."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(config)))


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
        return require_valid(config)
    except UserError as error:
        raise UserError(f"In {source}: {error}") from error


def with_overrides(
    config: DictConfig, overrides: Sequence[str], changeable: Sequence[str], purpose: str
) -> DictConfig:
    """A run's own configuration with some values typed anew, checked again.

    Only the keys and groups in `changeable` may be; `purpose` tells the user what they are for.
    """
    choices = Choices()
    with hydra_search_path(choices) as parser:
        parsed = messages.parse_overrides(overrides, choices, parser)
        for override in parsed:
            _require_one_of(changeable, override, f"{purpose} takes the run's own settings")
            messages.require_one_value(override, choices)
        groups = {each.key_or_group for each in parsed if each.key_or_group in choices.groups}
        new = OmegaConf.create(to_plain(config))
        if groups:
            lines = [str(o.input_line) for o in parsed if o.key_or_group.split(".")[0] in groups]
            drafted = to_plain(drop_hydra_node(compose_unchecked(lines, choices)))
            for group in groups | {ALSO_SETS[each] for each in groups & ALSO_SETS.keys()}:
                new[group] = drafted[group]
        for override in parsed:
            key = override.key_or_group
            if key.split(".")[0] in groups:
                continue
            if OmegaConf.select(new, key, default=_ABSENT) is _ABSENT:
                raise UserError(messages.unknown_key(key, choices, list(flatten(new))))
            OmegaConf.update(new, key, override.value())
        if new.dataset.get("root") == config.data_root:  # which it was taken from
            new.dataset.root = new.data_root
    return require_valid(new)


def compose_partial(
    overrides: Sequence[str], changeable: Sequence[str], purpose: str
) -> DictConfig:
    """A new configuration of which only the keys and groups in `changeable` matter."""
    choices = Choices()
    with hydra_search_path(choices) as parser:
        for override in messages.parse_overrides(overrides, choices, parser):
            _require_one_of(changeable, override, f"{purpose} trains nothing")
    return compose(overrides)


def _require_one_of(changeable: Sequence[str], override: Override, reason: str) -> None:
    key = override.key_or_group
    if not any(key == name or key.startswith(f"{name}.") for name in changeable):
        *most, last = (f"{name}=" for name in changeable)
        listed = f"{', '.join(most)} and {last}" if most else last
        raise UserError(f"'{override.input_line}': {reason}; only {listed} may be given with it.")


def difference(old: Settings, new: Settings) -> list[str]:
    """Lines "key: old -> new" of what differs, but for `MAY_CHANGE_ON_RESUME`."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
        and not any(key == name or key.startswith(f"{name}.") for name in MAY_CHANGE_ON_RESUME)
    ]

"""The configuration of a run on disk: written, read back, changed, compared."""

from collections.abc import Sequence

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.config import messages
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import _ABSENT, checked, compose, draft, searching, without_hydra
from crgan_cli.config.resolve import Settings, flat, plain
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

"""Convert a composed configuration to plain values."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.errors import UserError, missing_value

Settings = Mapping[str, Any]


def to_plain(settings: Settings) -> dict[str, Any]:
    """Return plain dictionaries and lists, with interpolations resolved."""
    if not isinstance(settings, DictConfig):
        return dict(settings)
    try:
        return OmegaConf.to_container(settings, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(_explain_interpolation(error)) from error


def is_complete(config: DictConfig) -> bool:
    """Whether the user has given all values without a default."""
    try:
        return not OmegaConf.missing_keys(config)
    except OmegaConfBaseException:  # a value is interpolated from a missing one
        return False


def _explain_interpolation(error: OmegaConfBaseException) -> str:
    reason = str(error).splitlines()[0].rstrip(".")
    if missing := re.search(r"Missing mandatory value: ([\w.]+)", reason):
        return missing_value(missing[1])
    if name := re.search(r"Interpolation key '([^']+)' not found", reason):
        return f"{error.full_key} refers to '{name[1]}', which does not exist. Type its value."
    return f"{error.full_key or 'A value'} cannot be resolved: {reason}."


def flatten(settings: Settings) -> dict[str, Any]:
    """Return dotted key -> value, with interpolations resolved. Lists stay lists."""
    return _flatten(to_plain(settings))


def _flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict) or (prefix and not settings):
        return {prefix: settings}
    return {
        dotted: value
        for key, child in settings.items()
        for dotted, value in _flatten(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }

"""A composed configuration as plain values, interpolations resolved."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.config import schema
from crgan_cli.errors import UserError

Settings = Mapping[str, Any]


def to_plain(settings: Settings) -> dict[str, Any]:
    """Plain dictionaries and lists, interpolations resolved."""
    if not isinstance(settings, DictConfig):
        return dict(settings)
    try:
        return OmegaConf.to_container(settings, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(_interpolation(error)) from error


def is_complete(config: DictConfig) -> bool:
    """Whether no value is left that only the user can give."""
    try:
        return not OmegaConf.missing_keys(config)
    except OmegaConfBaseException:  # a value interpolated from one that is missing
        return False


def _interpolation(error: OmegaConfBaseException) -> str:
    said = str(error).splitlines()[0].rstrip(".")
    if lacking := re.search(r"Missing mandatory value: ([\w.]+)", said):
        return schema.missing_value(lacking[1])
    if not (name := re.search(r"Interpolation key '([^']+)' not found", said)):
        return f"{error.full_key or 'A value'} cannot be worked out: {said}."
    return f"{error.full_key} is to be taken from '{name[1]}', which there is not: type its value."


def flatten(settings: Settings) -> dict[str, Any]:
    """Dotted key -> value, interpolations resolved, lists whole."""
    return _flat(to_plain(settings))


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict) or (prefix and not settings):
        return {prefix: settings}
    return {
        dotted: value
        for key, child in settings.items()
        for dotted, value in _flat(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }

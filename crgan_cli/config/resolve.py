"""Convert a composed configuration to plain values.

Resolved values go into config.yaml, checkpoints and TensorBoard, which are shared. So `${oc.env:X}`
reads only variables that hold no secrets.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.errors import UserError, missing_value

Settings = Mapping[str, Any]

PUBLIC_VARIABLES = (
    *("HOME", "USER", "LOGNAME", "TMPDIR", "SCRATCH", "WORK"),
    *("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"),
    *("SLURM_SUBMIT_DIR", "SLURM_TMPDIR"),
)
"""The environment variables that a setting may read, besides all CRGAN_*."""

_ABSENT = object()


def read_variable(name: str, default: object = _ABSENT) -> str | None:
    """Resolve `${oc.env:NAME,DEFAULT}`. UserError for a variable that may hold a secret."""
    if not (name.startswith("CRGAN_") or name in PUBLIC_VARIABLES):
        raise UserError(
            f"${{oc.env:{name}}} is not read: its value would be stored in config.yaml and in "
            "checkpoints, which people share. Settings read only the environment variables "
            f"CRGAN_* and {', '.join(PUBLIC_VARIABLES)}. Type the value, if it is no secret."
        )
    if name in os.environ:
        return os.environ[name]
    if default is _ABSENT:
        raise UserError(f"the environment variable {name} is not set.")
    return None if default is None else str(default)


OmegaConf.register_new_resolver("oc.env", read_variable, replace=True)


def to_plain(settings: Settings) -> dict[str, Any]:
    """Return plain dictionaries and lists, with interpolations resolved."""
    if not isinstance(settings, DictConfig):
        return dict(settings)
    with explained_interpolations():
        return OmegaConf.to_container(settings, resolve=True)  # type: ignore[return-value]


@contextmanager
def explained_interpolations() -> Iterator[None]:
    """Raise UserError if the body meets a value that cannot be resolved."""
    try:
        yield
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
    reason = reason.removeprefix("UserError raised while resolving interpolation: ")
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


def format_typed(value: object, quotes: str = "'") -> str:
    """Return a value as it is typed, for messages: a whole number and 1.0 are told apart, and text
    has quotes."""
    if isinstance(value, str):
        return f"{quotes}{value}{quotes}"
    if isinstance(value, list | tuple):
        return f"[{','.join(format_typed(each, '') for each in value)}]"
    if isinstance(value, Mapping):
        pairs = (f"{key}:{format_typed(each, '')}" for key, each in value.items())
        return f"{{{','.join(pairs)}}}"
    return repr(value) if isinstance(value, float) else format_setting(value)


def format_setting(value: object) -> str:
    """Return a setting as it is typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(format_setting, value))}]"
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)

"""The one place where YAML becomes objects: compose, check, build.

Composition is Hydra's, through its public compose API. What a composed configuration may hold is
`schema.py`'s; how a failure is put into words is `explain.py`'s. Importing this imports no torch.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.config import messages, schema
from crgan_cli.config.choices import Choices
from crgan_cli.config.resolve import _flat, to_plain
from crgan_cli.errors import UserError

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
    with hydra_search_path(choices) as parser:
        for override in messages.parse_overrides(overrides, choices, parser):
            messages.require_one_value(override, choices)
        return require_valid(drop_hydra_node(compose_unchecked(overrides, choices, config_name)))


@contextmanager
def hydra_search_path(choices: Choices) -> Iterator[OverridesParser]:
    """Opens Hydra's search path over crgan's folder, and gives a parser that knows its files."""
    hydra = GlobalHydra.instance()
    hydra.clear()  # one that an earlier, interrupted call has left
    with initialize_config_dir(str(choices.folders[0]), job_name="train", version_base="1.3"):
        yield OverridesParser.create(config_loader=hydra.config_loader())


def compose_unchecked(
    overrides: Sequence[str], choices: Choices, config_name: str = "train"
) -> DictConfig:
    """Composed, hydra's own node included, and not yet checked. Inside `hydra_search_path`."""
    try:
        return _hydra(overrides, choices, config_name)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        keys = _known_keys(overrides, choices, config_name)
        raise UserError(messages.explain(error, choices, keys)) from error


def _hydra(overrides: Sequence[str], choices: Choices, config_name: str) -> DictConfig:
    typed = [*search_path_overrides(choices), *overrides]
    return hydra_compose(config_name, typed, return_hydra_config=True)


def search_path_overrides(choices: Choices) -> list[str]:
    """The override that adds the user's folder (`--config-dir`), if there is one."""
    added = [
        str(folder).replace("\\", "\\\\").replace("'", "\\'") for folder in choices.folders[1:]
    ]
    return [f"hydra.searchpath=['file://{folder}']" for folder in added]


def _known_keys(overrides: Sequence[str], choices: Choices, config_name: str) -> list[str]:
    """The dotted keys that there are once the groups are chosen; none if that is what fails."""
    groups = [text for text in overrides if text.partition("=")[0] in choices.groups]
    try:
        config = drop_hydra_node(_hydra(groups, choices, config_name))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
        return []
    return list(_flat(OmegaConf.to_container(config, resolve=False)))


def drop_hydra_node(config: DictConfig) -> DictConfig:
    """The configuration proper, with its interpolations."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def require_valid(config: DictConfig) -> DictConfig:
    """The same configuration, known to be right; UserError with all that is wrong with it."""
    found = schema.find_problems(to_plain(config))
    if len(found) == 1:
        raise UserError(found[0])
    if found:
        lines = "".join(f"\n  - {problem}" for problem in found)
        raise UserError(f"{len(found)} things are wrong with the configuration:{lines}")
    return config

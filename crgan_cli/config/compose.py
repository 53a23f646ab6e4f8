"""Compose a configuration with Hydra's compose API, and check it.

`schema.py` says what a configuration may hold, `messages.py` explains failures. Imports no torch.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.config import messages, schema
from crgan_cli.config.choices import Choices
from crgan_cli.config.hydra_files import require_plain_hydra
from crgan_cli.config.resolve import flatten, to_plain
from crgan_cli.config.trust import path_keys, require_code_typed
from crgan_cli.errors import UserError
from crgan_cli.system.paths import expand_home


def add_up(*numbers: object) -> object:
    """Return the sum; if one of them is no whole number, that one, which the schema refuses."""
    wrong = [number for number in numbers if type(number) is not int]
    return wrong[0] if wrong else sum(numbers)  # type: ignore[arg-type]  # all are int


OmegaConf.register_new_resolver("crgan.sum", add_up, replace=True)

OWN_PATHS: tuple[tuple[str, object, str], ...] = (
    ("job.chdir", False, "every path that you type would then mean another place in each job"),
    ("run.dir", ".", "the folder of a run is out=FOLDER"),
    ("output_subdir", None, "the folder of a run has its settings in config.yaml anyway"),
    ("sweep.subdir", ".", "a job's folder is named after its settings, below out=FOLDER"),
)
"""Hydra's settings of folders -> the value that crgan needs, and why no other."""


def compose(
    overrides: Sequence[str],
    config_dir: str | Path | None = None,
    config_name: str = "train",
) -> DictConfig:
    """Compose and check a complete configuration. UserError if something is wrong with it."""
    choices = Choices(config_dir)
    with hydra_search_path(choices) as parser:
        parsed = messages.parse_overrides(overrides, choices, parser)
        for override in parsed:
            messages.require_one_value(override, choices)
        config = drop_hydra_node(compose_unchecked(overrides, choices, config_name))
    require_valid(config, messages.trace_keys(overrides, choices))
    require_code_typed(config, {o.key_or_group for o in parsed}, "a YAML file")
    expand_paths(config)
    return config


@contextmanager
def hydra_search_path(choices: Choices) -> Iterator[OverridesParser]:
    """Open Hydra's search path on crgan's folder; yield a parser that knows the files there.

    UserError if a file of the user's folder sets what may run code through Hydra.
    """
    hydra = GlobalHydra.instance()
    hydra.clear()  # in case an earlier call was interrupted
    with initialize_config_dir(str(choices.folders[0]), job_name="train", version_base="1.3"):
        for folder in choices.folders[1:]:
            require_plain_hydra(folder)
        yield OverridesParser.create(config_loader=hydra.config_loader())


def compose_unchecked(
    overrides: Sequence[str], choices: Choices, config_name: str = "train"
) -> DictConfig:
    """Compose, with Hydra's own node, without a check. Call it inside `hydra_search_path`."""
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
    """Return the dotted keys that exist for the chosen groups; none if the groups fail."""
    groups = [text for text in overrides if re.split("[@=]", text)[0].lstrip("+") in choices.groups]
    try:
        config = drop_hydra_node(_hydra(groups, choices, config_name))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
        return []
    return list(flatten(OmegaConf.to_container(config, resolve=False)))  # type: ignore[arg-type]


def drop_hydra_node(config: DictConfig) -> DictConfig:
    """Remove Hydra's own node. Interpolations stay."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


RUN_PATHS = {"out": None, "data_root": "data", "init_from": None}
"""Settings outside the groups that are paths, with values that name no machine."""


def expand_paths(config: DictConfig) -> None:
    """Put the home folder in the place of `~`, in every setting that is a path.

    UserError: a user who is not there.
    """
    for key in (*RUN_PATHS, *path_keys(config)):
        value = OmegaConf.select(config, key)
        if isinstance(value, str) and value.startswith("~"):
            OmegaConf.update(config, key, str(expand_home(value)))
        elif isinstance(value, ListConfig):
            OmegaConf.update(config, key, [str(expand_home(each)) for each in value])


def require_own_paths(hydra: DictConfig) -> None:
    """Raise UserError if Hydra would change the working folder, or make folders of its own."""
    for key, needed, reason in OWN_PATHS:
        section, _, name = key.rpartition(".")
        node = hydra[section] if section else hydra
        value = OmegaConf.to_container(node, resolve=False)[name]  # type: ignore[index]
        if value != needed and (value or needed):  # null is false
            shown = str(value).lower() if isinstance(value, bool) else value
            raise UserError(f"hydra.{key}={shown} is not for crgan: {reason}. Leave it out.")


def require_valid(config: DictConfig, hint: schema.Hint = lambda key: "") -> None:
    """UserError with everything that is wrong with a configuration."""
    problems = schema.find_problems(to_plain(config), hint)
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise UserError(f"The configuration has {len(problems)} problems:{lines}")

"""What the YAML files of a user's folder (`--config-dir`) may set of Hydra's own settings.

Such a folder may come from a stranger, and Hydra's callbacks, logging, launchers and environment
can run code. So its files may choose a launcher and a sweeper, and set a few plain values of them.
What the user types is free. All files are checked, used or not: an experiment can be swept over.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crgan_cli.errors import UserError

GROUPS = ("hydra/launcher", "hydra/sweeper", "hydra/sweeper/sampler")
"""The groups of Hydra's of which a file may take a choice."""

VALUES = {
    # None of them is code: a word, a number or null. Slurm's go into a shell script.
    "mode": ("",),
    "sweeper": (
        *("max_batch_size", "n_trials", "n_jobs", "direction", "max_failure_rate"),
        *("sampler.seed", "sampler.n_startup_trials"),
    ),
    "launcher": (
        *("n_jobs", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node"),
        *("gpus_per_task", "mem_gb", "mem_per_cpu", "mem_per_gpu", "cpus_per_gpu"),
        *("partition", "qos", "account", "constraint", "gres", "array_parallelism"),
        *("signal_delay_s", "max_num_timeout"),
    ),
}
PARAMS = "sweeper.params."
"""What is below it are settings of crgan, of any value."""

WORD = r"[\w.,:+-]*"


def require_plain_hydra(folder: Path) -> None:
    """UserError for the first file in a folder that sets what may run code through Hydra."""
    source = FileConfigSource("--config-dir", str(folder))
    for file in list_yaml(folder):
        name = file.relative_to(folder).as_posix()
        try:
            result = source.load_config(name)
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, AssertionError, OSError):
            continue  # Hydra reads it in the same way, and says what is wrong if it is chosen
        content = OmegaConf.to_container(result.config, resolve=False)
        for what in find_refused(name, result.header["package"], content):
            raise UserError(
                f"{file} sets {what}, which can run code. A file may set crgan's settings, "
                f"hydra.mode, hydra.{PARAMS}KEY, the choices of hydra/launcher and hydra/sweeper, "
                "and their plain values (as hydra.launcher.n_jobs). Remove it there; what you "
                "trust you can type."
            )


def list_yaml(folder: Path) -> Iterator[Path]:
    """Yield the YAML files below a folder, in linked folders too: Hydra follows links.

    UserError for a link to a folder where Hydra's own groups are: by it a file has two names.
    """
    seen: set[str] = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(path))
        for name in list(folders):
            each = Path(path, name)
            if is_of_hydra(each.relative_to(folder).as_posix()) and each.is_symlink():
                raise UserError(f"{each} is a link to a folder, and could hide Hydra's settings.")
            if os.path.realpath(each) in seen:
                folders.remove(name)
        yield from (Path(path, name) for name in sorted(files) if name.lower().endswith(".yaml"))


def is_of_hydra(name: str) -> bool:
    """Whether a path in the folder is one of Hydra's groups, on systems that ignore case too."""
    return name.split("/")[0].lower() == "hydra"


def find_refused(name: str, header: str | None, content: Any) -> Iterator[str]:
    """Yield what the file `name` may not set. `header`: its @package, if it has one."""
    content = dict(content) if isinstance(content, dict) else {}
    group = name.rpartition("/")[0]
    is_hydras = is_of_hydra(group)
    if header is not None and (is_hydras or "hydra" in header):
        yield f"@package {header}"
    defaults = content.pop("defaults", None)
    for entry in defaults if isinstance(defaults, list) else []:
        key, value = next(iter(entry.items()), ("", "")) if isinstance(entry, dict) else (entry, "")
        if not is_plain_default(str(key), str(value), inside=is_hydras):
            yield f"{key} in its defaults"
    own = leaves(content, ".".join(group.split("/")[1:])) if is_hydras else iter(())
    # whatever its package is: another file may put it elsewhere (loss@_global_)
    for key, value in (*own, *leaves(content.get("hydra", {}))):
        if not is_plain(key, value):
            yield f"hydra.{key}".rstrip(".")


def is_plain_default(key: str, value: str, *, inside: bool) -> bool:
    """Whether an entry of a defaults list leaves Hydra alone, or takes a choice of `GROUPS`.

    `inside`: the file is one of Hydra's groups itself, and may only name a neighbour.
    """
    if ".." in key + value or "//" in key + value:  # leaves the folder
        return False
    if inside:
        return re.fullmatch(r"\w+", key) is not None and not value
    if re.fullmatch(rf"((override|optional) )*/({'|'.join(GROUPS)})", key):
        return re.fullmatch(r"[\w-]+", value) is not None
    return "hydra" not in key and "${" not in key


def leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield dotted key -> value. A dictionary without keys changes nothing."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def is_plain(key: str, value: object) -> bool:
    """Whether a file may set the key below `hydra` to this value."""
    if key.startswith(PARAMS):
        return "hydra" not in key and not isinstance(value, list)
    node, _, rest = key.partition(".")
    word = value is None or isinstance(value, bool | int | float)
    word = word or (isinstance(value, str) and re.fullmatch(WORD, value) is not None)
    return rest in VALUES.get(node, ()) and word

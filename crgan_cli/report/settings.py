"""In which settings runs differ, and how a row is called by them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from crgan_cli.config.stored import MAY_CHANGE_ON_RESUME
from crgan_cli.report.model import RunFiles, Value

COMPARED_ANYWAY = ("steps", "engine")
"""May change when a run is resumed, and yet a longer run, or one in bf16, is another setting."""

RESUMABLE = tuple(key for key in MAY_CHANGE_ON_RESUME if key not in COMPARED_ANYWAY)

NOT_COMPARED = ("seed", "log", "samples", "engine.threads", *RESUMABLE)
"""Keys in which the runs of a row may differ."""

TITLES = ("dataset", "architecture", "regularizer")
"""Groups that name a row where there is no other."""

Settings = Mapping[str, Value]


def identifying_settings(config: Settings) -> dict[str, Value]:
    """The settings that tell rows apart."""
    return {
        key: value
        for key, value in config.items()
        if not any(key == name or key.startswith(f"{name}.") for name in NOT_COMPARED)
    }


def find_row_settings(runs: Sequence[RunFiles]) -> tuple[list[dict[str, Value]], tuple[str, ...]]:
    """Per row the settings in which rows differ, and the keys of them all.

    A group's choice stands for all that comes with it: `regularizer` -> icr, and a weight beside it
    only where it differs between rows of one choice.
    """
    configs = [identifying_settings(run.config) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    varied = [key for key in keys if len({config.get(key, "") for config in configs}) > 1]
    columns: dict[str, list[Value]] = {}
    told: set[str] = set()
    for group in dict.fromkeys(key.partition(".")[0] for key in varied if "." in key):
        names = [get_choice(run, group) for run in runs]
        if len(set(names)) > 1:
            columns[group] = list(names)
            told |= {key for key in varied if fixed_by_choice(key, group, configs, names)}
    shown = {key for key in varied if key not in told and not copied_from_dataset(key, configs)}
    listed = [*columns, *(key for key in keys if key in shown)]
    table = [
        {
            key: columns[key][row] if key in columns else config[key]
            for key in listed
            if key in columns or key in config
        }
        for row, config in enumerate(configs)
    ]
    return table, tuple(listed)


def get_choice(run: RunFiles, group: str) -> str:
    """A group's choice, as it is typed; else the classes that it built."""
    if chosen := run.choices.get(group):
        return chosen.strip("[]").replace(",", "+")
    targets = [
        str(value).rpartition(".")[2]
        for key, value in run.config.items()
        if key.startswith(f"{group}._target_") and value is not None
    ]
    return "+".join(targets) or "none"


def fixed_by_choice(
    key: str, group: str, configs: Sequence[Settings], names: Sequence[str]
) -> bool:
    """Whether a key of the group has one value for each of its choices."""
    if not key.startswith(f"{group}."):
        return False
    values: dict[str, set[Value]] = {}
    for config, name in zip(configs, names, strict=True):
        values.setdefault(name, set()).add(config.get(key, ""))
    return all(len(found) == 1 for found in values.values())


def copied_from_dataset(key: str, configs: Sequence[Settings]) -> bool:
    """Whether a key is the data set's: architectures take theirs from it."""
    original = f"dataset.{key.rpartition('.')[2]}"
    return key != original and all(
        original in config and config.get(key) == config[original] for config in configs
    )


def shorten_names(keys: Sequence[str], runs: Sequence[RunFiles]) -> dict[str, str]:
    """Key -> its last part, where no other key of any run ends so."""
    endings = Counter(key.rpartition(".")[2] for key in {key for run in runs for key in run.config})
    tails = {key: key.rpartition(".")[2] for key in keys}
    return {key: tail if endings[tail] < 2 else key for key, tail in tails.items()}


def format_setting(value: Value) -> str:
    """A setting as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def make_row_title(run: RunFiles) -> str:
    """The name of a row that is the only one."""
    return " ".join(f"{group}={get_choice(run, group)}" for group in TITLES)


def find_swept_key(varied: Sequence[str], table: Sequence[Settings]) -> str:
    """The one key in which rows differ by a number."""
    numeric = [
        key
        for key in varied
        if all(is_number(row[key]) for row in table if key in row)
        and len({row[key] for row in table if key in row}) > 1
    ]
    return numeric[0] if len(numeric) == 1 else ""


def is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

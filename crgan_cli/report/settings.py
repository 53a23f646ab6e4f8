"""In which settings runs differ, and the names of the rows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from crgan_cli.config.stored import ABSENT, MAY_CHANGE_ON_RESUME, default_value, is_below
from crgan_cli.report.model import RunFiles, Value

COMPARED_ANYWAY = ("steps", "engine", "accumulate", "early_stop")
"""May change when a run is resumed; but a longer run, or one in bf16, is another setting."""

NOT_COMPARED = (
    "seed",
    "engine.threads",
    "engine.images_gib",
    "metrics.batch_size",  # where it changes numbers, the protocol has it too
    *(key for key in MAY_CHANGE_ON_RESUME if key not in COMPARED_ANYWAY),
)
"""Keys in which the runs of a row may differ."""

TITLE_GROUPS = ("dataset", "architecture", "regularizer")
"""The choices that name the only row of a report."""

Settings = Mapping[str, Value]


def to_value(value: object) -> Value:
    """Return a value that can be compared and shown. A list becomes text, as it is typed."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return value if isinstance(value, str | int | float) else None


def fill_config(config: Settings, keys: Iterable[str]) -> dict[str, Value]:
    """Give a configuration the defaults of those of the keys that it lacks."""
    defaults = {key: default_value(config, key) for key in keys if key not in config}
    return {**config, **{k: to_value(v) for k, v in defaults.items() if v is not ABSENT}}


def identifying_settings(config: Settings) -> dict[str, Value]:
    """Return the settings in which rows may differ."""
    return {key: value for key, value in config.items() if not is_below(key, NOT_COMPARED)}


def find_row_settings(runs: Sequence[RunFiles]) -> tuple[list[dict[str, Value]], tuple[str, ...]]:
    """Return, per row, the settings in which rows differ, and the keys of all of them.

    The choice of a group stands for all its settings: `regularizer` -> icr. A weight appears next
    to it only if it differs between rows of the same choice.
    """
    configs = [identifying_settings(run.config) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    varied = [key for key in keys if len({config.get(key, "") for config in configs}) > 1]
    choices: dict[str, list[str]] = {}
    implied: set[str] = set()
    for group in dict.fromkeys(key.partition(".")[0] for key in varied if "." in key):
        names = [get_choice(run, group) for run in runs]
        if len(set(names)) > 1:
            choices[group] = names
            implied |= {key for key in varied if fixed_by_choice(key, group, configs, names)}
    rest = {key for key in varied if key not in implied and not copied_from_dataset(key, configs)}
    shown = [*choices, *(key for key in keys if key in rest)]
    table = [
        {
            key: choices[key][row] if key in choices else config[key]
            for key in shown
            if key in choices or key in config
        }
        for row, config in enumerate(configs)
    ]
    return table, tuple(shown)


def get_choice(run: RunFiles, group: str) -> str:
    """Return a group's choice as it is typed, or else the classes that it built."""
    if chosen := run.choices.get(group):
        return chosen
    targets = [
        str(value).rpartition(".")[2]
        for key, value in run.config.items()
        if key.startswith(f"{group}._target_") and value is not None
    ]
    return "+".join(targets) or "none"


def fixed_by_choice(
    key: str, group: str, configs: Sequence[Settings], names: Sequence[str]
) -> bool:
    """Return whether a key of the group has one value for each of the group's choices."""
    if not key.startswith(f"{group}."):
        return False
    values: dict[str, set[Value]] = {}
    for config, name in zip(configs, names, strict=True):
        values.setdefault(name, set()).add(config.get(key, ""))
    return all(len(each) == 1 for each in values.values())


def copied_from_dataset(key: str, configs: Sequence[Settings]) -> bool:
    """Return whether a key repeats the data set's, as architectures do."""
    original = f"dataset.{key.rpartition('.')[2]}"
    return key != original and all(
        original in config and config.get(key) == config[original] for config in configs
    )


def shorten_names(keys: Sequence[str], runs: Sequence[RunFiles]) -> dict[str, str]:
    """Return key -> its last part, or the whole key if another key of any run ends the same."""
    endings = Counter(key.rpartition(".")[2] for key in {key for run in runs for key in run.config})
    tails = {key: key.rpartition(".")[2] for key in keys}
    return {key: tail if endings[tail] < 2 else key for key, tail in tails.items()}


def make_row_title(run: RunFiles) -> str:
    """Return the name of the only row of a report."""
    return " ".join(f"{group}={get_choice(run, group)}" for group in TITLE_GROUPS)


def find_swept_key(varied: Sequence[str], table: Sequence[Settings]) -> str:
    """Return the one key in which rows differ by a number. It is empty if there is no such key."""
    columns = {key: [row[key] for row in table if key in row] for key in varied}
    numeric = [
        key
        for key, values in columns.items()
        if all(type(value) in (int, float) for value in values) and len(set(values)) > 1
    ]
    return numeric[0] if len(numeric) == 1 else ""

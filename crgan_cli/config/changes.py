"""In what a stored configuration differs from the defaults of its choices."""

import re
from collections.abc import Mapping

from omegaconf import OmegaConf

from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose_unchecked, drop_hydra_node, hydra_search_path
from crgan_cli.config.resolve import Settings, flatten
from crgan_cli.config.stored import default_value

PLACES = ("out", "resume", "data_root")
"""Keys that say where a run is, not what it is."""


def list_changes(stored: Settings, chosen: Mapping[str, str]) -> dict[str, object]:
    """Return dotted key -> value, of the settings that differ from the defaults.

    `stored` is a run's whole configuration, `chosen` its group -> choice. Of a choice that is not
    crgan's the defaults are those of its classes' constructors; of a group without a choice, see
    `list_unchosen`, nothing is told. A setting that follows another one,
    as architecture.resolution does, is told only if it does not follow.
    """
    choices, run = Choices(), flatten(stored)
    known = {group: name for group, name in chosen.items() if is_known(choices, group, name)}
    with hydra_search_path(choices):
        typed = [f"{group}={name}" for group, name in known.items()]
        defaults = drop_hydra_node(compose_unchecked(typed, choices))
    written = flatten(OmegaConf.to_container(defaults, resolve=False))  # type: ignore[arg-type]
    plain = {key for key, value in written.items() if "${" not in str(value)}
    for key in {*plain, "data_root"} & run.keys():
        OmegaConf.update(defaults, key, run[key])
    followed, unchosen = flatten(defaults), list_unchosen(stored, chosen)

    def default(key: str) -> object:
        group = key.partition(".")[0]
        if key not in written or (group in choices.groups and group not in known):
            return default_value(run, key)
        return written[key] if key in plain else followed[key]

    return {
        key: value
        for key, value in run.items()
        if key not in PLACES
        and "_target_" not in key
        and key.partition(".")[0] not in unchosen
        and value != default(key)
    }


def list_unchosen(stored: Settings, chosen: Mapping[str, str]) -> list[str]:
    """Return the groups with settings of which it is not known which choice they come from."""
    used = {key.partition(".")[0] for key in flatten(stored) if "._target_" not in key}
    return sorted(used & Choices().groups.keys() - chosen.keys())


def is_known(choices: Choices, group: str, name: str) -> bool:
    """Whether these are choices of crgan's own files; of `[cr,gp]` both."""
    names = re.findall(r"[^\[\],\s]+", name)
    return group != "experiment" and {*names} <= {*choices.groups.get(group, [])}

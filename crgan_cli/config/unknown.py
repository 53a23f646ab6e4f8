"""What to answer to a choice or a key that does not exist: the place where it does."""

import re
from collections.abc import Sequence

from crgan_cli.config.choices import Choices
from crgan_cli.config.topic_help import read_choice
from crgan_cli.errors import closest_name, unknown_name


def unknown_choice(group: str, name: str, choices: Choices) -> str:
    """The message for a misspelt choice."""
    name = "null" if name == "None" else name
    known = choices.groups.get(group, [])
    same = [each for each in known if name in peer_names(read_choice(choices, group, each).about)]
    hint = did_you_mean([f"{group}={each}" for each in same])
    return unknown_name("choice", name, known, where=group, prefix=f"{group}=", hint=hint)


def unknown_key(key: str, choices: Choices, keys: Sequence[str]) -> str:
    """The message for a misspelt key or group. `keys`: the dotted keys that exist."""
    group, _, last = key.partition(".")
    if last and group in choices.groups:
        known = [name.partition(".")[2] for name in keys if name.startswith(f"{group}.")]
        known = [name for name in known if name.partition(".")[0] != "_target_"]
        owners = " and ".join(f"{group}={name}" for name in choices.with_key(group, last))
        hint = did_you_mean(find_peer_keys(group, last, choices, known))
        hint = hint or (f"It is a key of {owners}." if owners else "")
        begun = [f"{group}.{name}" for name in known if name.startswith(f"{last}_")]
        if not hint and (begun or not closest_name(last, known)):
            hint = did_you_mean(begun) or guess_place(last, choices, keys)
        return unknown_name("key", last, known, where=group, prefix=f"{group}.", hint=hint)
    hint = guess_place(key, choices, keys)
    hint = f" {hint}" if hint else ""
    return f"Unknown setting '{key}'.{hint} 'crgan train --help' lists the groups and settings."


def guess_place(key: str, choices: Choices, keys: Sequence[str]) -> str:
    """Say where a key that was typed without its group, or with another one, may belong.

    The first of these that there is: its places in the configuration; in choices that were not
    made; a name like it; names that it begins (lr: lr_g, lr_d); a last word like it.
    """
    known = [name for name in keys if "_target_" not in name]
    lasts = {name: name.rpartition(".")[2] for name in known}
    if places := [name for name, last in lasts.items() if last == key]:
        return did_you_mean(places)
    if elsewhere := find_elsewhere(key, choices):
        return elsewhere
    if guess := closest_name(key, [*choices.groups, *known]):
        return did_you_mean([guess])
    if places := [name for name, last in lasts.items() if last.startswith(f"{key}_")]:
        return did_you_mean(places)
    near = closest_name(key, lasts.values())
    return did_you_mean([name for name, last in lasts.items() if last == near])


def find_peer_keys(group: str, key: str, choices: Choices, known: Sequence[str]) -> list[str]:
    """Find the keys, of those `known` in a group, that other programs call `key`."""
    files = (read_choice(choices, group, name) for name in choices.groups[group])
    found = [
        f"{group}.{setting.key}"
        for file in files
        for setting in file.settings
        if setting.key in known and key in peer_names(setting.comment)
    ]
    return list(dict.fromkeys(found))


def peer_names(comment: str) -> set[str]:
    """Return what other programs call a setting: "(elsewhere: NAME, NAME)" in its comment."""
    listed = ", ".join(re.findall(r"\(elsewhere: ([^)]*)\)", comment))
    return {name.partition("=")[0] for name in listed.split(", ") if name}


def did_you_mean(names: Sequence[str]) -> str:
    """Ask for one of these settings; "" if there is none."""
    quoted = " or ".join(f"'{name}'" for name in names)
    return f"Did you mean {quoted}?" if names else ""


def find_elsewhere(key: str, choices: Choices) -> str:
    """Say which choices, of any group, have a key of this name; "" if none has."""
    owners = [
        (group, choice)
        for group in choices.groups
        if group != "experiment"
        for choice in choices.with_key(group, key)
    ]
    if not owners:
        return ""
    named = ", ".join(f"{group}={choice}" for group, choice in owners)
    group, choice = owners[0]
    return f"It is a key of {named}: type {group}={choice} {group}.{key}=VALUE."

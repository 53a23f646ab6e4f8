"""The texts of `crgan train --help GROUP` and `--help GROUP=CHOICE`, built from the YAML files.

Imports no Hydra and no torch.
"""

import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from crgan_cli.config.choices import Choices
from crgan_cli.config.schema import READ_BY_OTHERS, describe_type
from crgan_cli.config.signatures import parameters
from crgan_cli.errors import UserError, unknown_name

WIDTH = 100

MARKS = """\
Marks: [code: FILE] was read in that code, [abstract] in the paper's abstract, [log] in a published
training log, [review] and [secondary] in what others write of the paper; [derived] follows from
these, [unverified] is to be confirmed."""

SETTING = re.compile(r"(\w+):\s*((?:'[^']*'|\"[^\"]*\"|[^#'\"])*?)\s*(?:#\s*(.*))?$")
"""key, value, comment of a line of YAML that is not indented."""


class Setting(NamedTuple):
    """A key of a choice as its file gives it."""

    key: str
    default: str  # as it is written
    comment: str  # beside it and above it, with the marks of sources


class ChoiceFile(NamedTuple):
    """What a choice's file says."""

    about: str
    parents: tuple[str, ...]
    settings: tuple[Setting, ...]


def describe_topic(choices: Choices, topic: str) -> str:
    """Return what is to be known of a group, or of a choice. Raises UserError if there is none."""
    group, _, name = topic.partition("=")
    if group not in choices.groups:
        raise UserError(unknown_name("group", group, choices.groups, where="--help"))
    if not name:
        return "\n".join(list_choices(choices, group))
    if name not in choices.groups[group]:
        raise UserError(
            unknown_name("choice", name, choices.groups[group], where=group, prefix=f"{group}=")
        )
    if group == "experiment":
        return choices.read_text(group, name).strip()
    return "\n".join(describe_choice(choices, group, name))


def list_choices(choices: Choices, group: str) -> Iterator[str]:
    """Yield the choices of a group, each with the first sentence of its file."""
    default = choices.defaults().get(group)
    for name in choices.groups[group]:
        about = read_choice(choices, group, name).about
        first = re.split(r"(?<=\.) (?=[A-Z])", about, maxsplit=1)[0]
        mark = "*" if name == default else ""
        yield wrap(f"{group}={name}{mark}", first)
    if default:
        yield "\n* is the default."
    yield f"Every setting of a choice, with its source: crgan train --help {group}=CHOICE"


def describe_choice(choices: Choices, group: str, name: str) -> Iterator[str]:
    """Yield what a choice is, and each setting with its default, range, meaning and source."""
    yield f"{group}={name}\n"
    yield textwrap.fill(read_choice(choices, group, name).about, width=WIDTH)
    kinds = find_kinds(choices, group, name)
    settings = gather_settings(choices, group, name)
    if settings:
        yield "\nsettings, with their defaults:"
    for each in settings.values():
        kind = kinds.get(each.key)
        said = f"{each.comment} ({describe_type(kind)})" if kind is not None else each.comment
        yield wrap(f"{group}.{each.key}={each.default}", said)
    yield f"\n{MARKS}"


def gather_settings(choices: Choices, group: str, name: str) -> dict[str, Setting]:
    """Return the settings of a choice by key: those of its parents first, then its own."""
    found: dict[str, Setting] = {}
    read = read_choice(choices, group, name)
    for parent in read.parents:
        found |= gather_settings(choices, group, parent)
    for each in read.settings:
        known = found.get(each.key)
        found[each.key] = each._replace(comment=each.comment or (known.comment if known else ""))
    return found


def find_kinds(choices: Choices, group: str, name: str) -> dict[str, object]:
    """Return the type of each key, as the constructors of the choice annotate it."""
    settings = choices.settings(group, name)
    paths = [path for key, path in settings.items() if key.startswith("_target_")]
    kinds = dict(READ_BY_OTHERS.get(group, {}))
    for path in paths:
        kinds |= {key: each.kind for key, each in parameters(str(path)).items() if each.kind}
    return kinds


def read_choice(choices: Choices, group: str, name: str) -> ChoiceFile:
    """Read the comments and the top-level settings of a choice's file."""
    about: list[str] = []
    above: list[str] = []
    parents: list[str] = []
    settings: list[Setting] = []
    begun = in_defaults = False
    for line in choices.read_text(group, name).splitlines():
        if line.startswith("#"):
            (above if begun else about).append(line.lstrip("# "))
            continue
        begun = begun or bool(line.strip())
        if in_defaults and re.match(r"\s*- ", line):
            parents += re.findall(r"^\s*- (\w+)\s*(?:#.*)?$", line)
            continue
        match = SETTING.match(line)
        in_defaults = bool(match) and match[1] == "defaults"
        if in_defaults and match:
            parents += re.findall(r"\w+", match[2])
        elif match and match[1] != "_target_" and match[2]:
            settings.append(Setting(match[1], match[2], " ".join([*above, match[3] or ""]).strip()))
        if line.strip():
            above = []
    kept = [parent for parent in parents if parent in choices.groups[group]]
    return ChoiceFile(
        " ".join(about).removeprefix("@package _global_ "), tuple(kept), tuple(settings)
    )


def wrap(setting: str, comment: str) -> str:
    """Return a name with the words about it."""
    return (
        textwrap.fill(
            comment,
            width=WIDTH,
            initial_indent=f"  {setting:30}" + ("" if len(setting) < 30 else " "),
            subsequent_indent=" " * 32,
            break_on_hyphens=False,
            break_long_words=False,
        )
        or f"  {setting}"
    )

"""What is wrong with a command line or a YAML file, in one paragraph with the remedy.

Hydra's own advice for a misspelt key is to put a plus sign in front, which then trains the default
without a word: no text of Hydra's reaches the user unread.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from crgan_cli.config.choices import Choices
from crgan_cli.config.schema import nearest
from crgan_cli.errors import UserError

if TYPE_CHECKING:
    pass

EMPTY = "'{}' has nothing on one side: type key=value, without spaces around '='."


def parse_overrides(
    overrides: Sequence[str], choices: Choices, parser: OverridesParser
) -> list[Override]:
    """The overrides, parsed. UserError where Hydra would misread one or follow it silently."""
    for text, following in itertools.zip_longest(overrides, overrides[1:], fillvalue="="):
        if text.startswith("=") or (text.endswith("=") and "=" not in following):
            raise UserError(EMPTY.format(text))
    parsed = [_parse(text, choices, parser) for text in overrides]
    for override in parsed:
        _check(override, choices)
    return parsed


def quote_if_needed(override: str, parser: OverridesParser) -> str:
    """An override whose value Hydra cannot read (a path with spaces or accents), in quotes.

    What has quotes, brackets or commas is left as it is: there the grammar was meant.
    """
    try:
        parser.parse_override(override)
    except HydraException:
        key, equals, value = override.partition("=")
        if equals and not set(value) & set("'\"[]{}(),$\\"):
            return f"{key}='{value}'"
    return override


def require_one_value(override: Override, choices: Choices) -> None:
    """UserError where an override of one run has several values."""
    if override.is_sweep_override():
        text, key = override.input_line, override.key_or_group
        value = text.partition("=")[2] if text else ""
        both = f", or {key}=[{value}] for their sum in one run" if key in choices.groups else ""
        raise UserError(
            f"'{text}' gives {key} several values: add -m to make one run of each{both}. "
            f"A comma that belongs to the value is put in quotes: '{key}=\"{value}\"'."
        )


def _parse(text: str, choices: Choices, parser: OverridesParser) -> Override:
    try:
        return parser.parse_overrides([text])[0]
    except (OverrideParseException, HydraException) as error:
        raise UserError(_unreadable(text, choices, str(error))) from error


def _unreadable(text: str, choices: Choices, reason: str) -> str:
    key, equals, value = text.partition("=")
    if text.startswith("~"):
        return _no_deletion(text[1:], choices)
    if not equals:
        owners = [group for group, names in choices.groups.items() if text in names]
        guess = f"did you mean {owners[0]}={text}?" if owners else f"type {text}=VALUE."
        return f"'{text}' is not a setting, which has the form key=value: {guess}"
    if not key:
        return EMPTY.format(text)
    first = reason.splitlines()[0]
    return f"The value in '{text}' cannot be read ({first}): put it in quotes, '{key}=\"{value}\"'."


def _check(override: Override, choices: Choices) -> None:
    key, text = override.key_or_group, override.input_line or ""
    if text.endswith("=") or not key:
        raise UserError(EMPTY.format(text))
    if key == "hydra.searchpath":
        raise UserError("crgan sets hydra.searchpath itself: type --config-dir DIR instead.")
    if override.is_hydra_override():
        return
    if override.is_delete():
        raise UserError(_no_deletion(key, choices))
    if override.package is not None:
        raise UserError(f"'{text}': crgan's groups stay where they are: type it without '@...'.")
    if key in choices.groups:
        _refuse_choice(override, choices)
    elif "/" in key:
        raise UserError(f"There is no group '{key}'. The groups are: {', '.join(choices.groups)}.")


def _refuse_choice(override: Override, choices: Choices) -> None:
    group, text = override.key_or_group, override.input_line or ""
    if text.startswith("+"):
        raise UserError(f"'{text}': {group} is always there: type {text.lstrip('+')}")
    values = list(_values(override))
    if not values:
        raise UserError(f"'{text}' matches no choice. {_list(group, choices)}")
    for value in values:
        if str(value) not in choices.groups[group]:
            raise UserError(unknown_choice(group, str(value), choices))
    for value in _alternatives(override):
        if isinstance(value, list):
            _refuse_sum(group, [str(getattr(name, "text", name)) for name in value], choices)


def _refuse_sum(group: str, names: list[str], choices: Choices) -> None:
    """UserError where two choices in a list set one thing, and the last would win."""
    taken: dict[str, tuple[str, object]] = {}
    for name in names:
        for key, value in choices.settings(group, name).items():
            by, before = taken.setdefault(key, (name, value))
            target, _, part = key.partition(".")
            if by == name or (target != "_target_" and before == value):
                continue
            thing = f"'{part or key}'" if key != "_target_" else "the one class"
            raise UserError(
                f"{group}=[{','.join(names)}]: {by} and {name} both set {thing} of {group}, so one "
                f"would be lost. Choose one of them, as {group}={name}"
            )


def _alternatives(override: Override) -> list[object]:
    return list(override.sweep_iterator() if override.is_sweep_override() else [override.value()])


def _values(override: Override) -> Iterator[object]:
    """Every choice that an override names, in a list, in a sweep, or alone."""
    for value in _alternatives(override):
        for member in value if isinstance(value, list) else [value]:
            yield getattr(member, "text", member)  # a quoted string keeps its text apart


def unknown_choice(group: str, name: str, choices: Choices) -> str:
    """What to say to a misspelt choice."""
    if name == "None":
        name = "null"
    guess = nearest(name, choices.groups.get(group, []))
    hint = f"; did you mean {group}={guess}?" if guess else "."
    return f"{group} has no choice '{name}'{hint} {_list(group, choices)}"


def _list(group: str, choices: Choices) -> str:
    return f"The choices of {group} are: {', '.join(choices.groups.get(group, []))}."


def _no_deletion(key: str, choices: Choices) -> str:
    key = key.partition("=")[0]
    instead = f": type {key}=none" if "none" in choices.groups.get(key, []) else ""
    return f"'~{key}': crgan has no use for a configuration without {key}{instead}."


def explain(exception: BaseException, choices: Choices, keys: Sequence[str] = ()) -> str:
    """One paragraph for whatever Hydra, OmegaConf or the YAML reader raised.

    `keys`: the dotted keys of the configuration without the overrides that failed.
    """
    for error in _chain(exception):
        if isinstance(error, yaml.YAMLError):
            return _bad_yaml(error)
        if isinstance(error, MissingConfigException):
            return _no_file(error, choices)
        found = re.search(r"Could not override '([^']+)'", str(error))
        if found:
            return f"{_where(str(error))}{unknown_key(found[1], choices, keys)}"
    return _plain(exception)


def _chain(exception: BaseException | None) -> Iterator[BaseException]:
    while exception is not None:
        yield exception
        exception = exception.__cause__ or exception.__context__


def unknown_key(key: str, choices: Choices, keys: Sequence[str]) -> str:
    """What to say to a misspelt key or group."""
    group, _, last = key.partition(".")
    if last and group in choices.groups:
        has = [known.partition(".")[2] for known in keys if known.startswith(f"{group}.")]
        guess, owners = nearest(last, has), choices.with_key(group, last)
        hint = f"; did you mean {group}.{guess}?" if guess else "."
        if owners:
            hint = f" here; it is a key of {' and '.join(f'{group}={name}' for name in owners)}."
        shown = [name for name in has if name != "_target_" and not name.startswith("_target_.")]
        listed = f"It has: {', '.join(shown)}." if shown else "It has none."
        return f"{group} has no key '{last}'{hint} {listed}"
    candidates = [*choices.groups, *keys]
    guess = nearest(key, candidates) or next(
        (known for known in keys if known.rpartition(".")[2] == key), None
    )
    hint = f"; did you mean '{guess}'?" if guess else "."
    return f"There is no setting '{key}'{hint} 'crgan train --help' lists the groups and settings."


def _no_file(error: MissingConfigException, choices: Choices) -> str:
    group, _, name = (error.missing_cfg_file or "").removeprefix("/").rpartition("/")
    if group in choices.groups:
        return f"{_where(str(error))}{unknown_choice(group, name, choices)}"
    there = f" There are: {', '.join(sorted(error.options))}." if error.options else ""
    return f"There is no configuration file '{error.missing_cfg_file}'.{there}"


def _where(message: str) -> str:
    found = re.match(r"In '([^']+)'", message)
    return f"In {found[1]}.yaml: " if found and found[1] != "train" else ""


def _bad_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}" if mark else "a YAML file"
    problem = getattr(error, "problem", None) or str(error)
    return f"{place} is not YAML: {problem}. Look at that line and the one above it."


def _plain(exception: BaseException) -> str:
    """The innermost message that says something, on one line."""
    texts = [str(error).strip() for error in _chain(exception)]
    lines = next((text for text in reversed(texts) if text), repr(exception)).splitlines()
    told = [
        line.strip() for line in lines if not re.match(r"\s*(object_type|reference_type)=", line)
    ]
    text = "; ".join(line for line in told if line and "To append to your config" not in line)
    return f"{text.rstrip('.')}."


def hydra_quoted(text: str) -> str:
    """A text as Hydra's grammar reads it: bare where it can be nothing but text."""
    plainly = re.fullmatch(r"(\.{0,2}/|[A-Za-z_])[\w./+-]*", text, re.ASCII)
    if plainly and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    escaped = re.sub(r"(\\+)('|$)", r"\1\1\2", text).replace("'", "\\'")
    return f"'{escaped}'"


def quote_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides, with text in quotes where it needs them.

    A key typed twice counts as it is typed last, in a sweep too: scripts append to theirs.
    """

    parser = OverridesParser.create()
    last = {text.partition("=")[0]: text for text in overrides}
    return [quote_if_needed(text, parser) for text in last.values()]

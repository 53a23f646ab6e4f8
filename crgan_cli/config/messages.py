"""Check the overrides of a command line, and explain what Hydra, OmegaConf or YAML reject.

Hydra's advice for a misspelt key is to add a plus sign, which then trains the default silently.
So none of its advice reaches the user.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException

from crgan_cli.config.choices import Choices
from crgan_cli.config.unknown import unknown_choice, unknown_key
from crgan_cli.errors import UserError, conflict, unknown_name
from crgan_cli.system.paths import shell_quoted

PART = re.compile(r"dataset@dataset\.parts\.\w+")
"""A choice that is not the group itself, but one of the data sets that dataset=joint joins."""

NO_PART = "Only dataset=joint has parts, and dataset=demo_joint."

INCOMPLETE = "'{}' has nothing on one side. Type key=value, without spaces around '='."


# --- overrides ------------------------------------------------------------------------------------


def parse_overrides(
    overrides: Sequence[str], choices: Choices, parser: OverridesParser
) -> list[Override]:
    """Parse the overrides. UserError if Hydra would misread one or silently ignore a mistake."""
    for text, following in itertools.zip_longest(overrides, overrides[1:], fillvalue="="):
        if text.startswith("=") or (text.endswith("=") and "=" not in following):
            raise UserError(INCOMPLETE.format(text))
    parsed = [_parse(text, choices, parser) for text in overrides]
    for override in parsed:
        _check(override, choices)
    return parsed


def require_one_value(override: Override, choices: Choices) -> None:
    """UserError if an override of a single run has several values."""
    if override.is_sweep_override():
        text, key = override.input_line, override.key_or_group
        value = text.partition("=")[2] if text else ""
        again = type_again(key, value.strip("'\""))
        both = f", or {key}=[{value}] for their sum in one run" if key in choices.groups else ""
        raise UserError(
            f"'{text}' has several values. Add -m to make one run of each{both}. "
            f"For a literal comma, use quotes: {again}."
        )


def override_key(override: str) -> str:
    """Return the key of KEY=VALUE."""
    return override.partition("=")[0].lstrip("+~")


def quote_overrides(overrides: Sequence[str]) -> list[str]:
    """Put text in quotes if Hydra needs them. Of a key typed twice, the last one counts."""
    parser = OverridesParser.create()
    last = {text.partition("=")[0]: text for text in overrides}
    return [_quote_if_needed(text, parser) for text in last.values()]


def _quote_if_needed(override: str, parser: OverridesParser) -> str:
    """Quote a value that Hydra cannot read, such as a path with spaces or accents.

    A value with quotes or brackets is meant as Hydra's grammar, and is left as it is. A comma
    separates the values of a sweep.
    """
    try:
        parser.parse_override(override)
    except HydraException:
        key, equals, value = override.partition("=")
        if "," in value:
            each = (_quote_if_needed(f"{key}={part}", parser) for part in value.split(","))
            return f"{key}={','.join(part.partition('=')[2] for part in each)}"
        # an apostrophe inside of it is no quote
        if equals and not value.startswith("'") and not set(value) & set('"[]{}()$\\'):
            return f"{key}={hydra_quoted(value)}"
    return override


def hydra_quoted(text: str) -> str:
    """Return a text as Hydra's grammar reads it, without quotes if it can only be text."""
    is_plain = re.fullmatch(r"(\.{0,2}/|[A-Za-z_])[\w./+-]*", text, re.ASCII)
    if is_plain and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    escaped = re.sub(r"(\\+)('|$)", r"\1\1\2", text).replace("'", "\\'")
    return f"'{escaped}'"


def type_again(key: str, value: str | Sequence[str]) -> str:
    """Return KEY=VALUE for texts, as a shell takes it and Hydra's grammar reads it."""
    if not isinstance(value, str):
        return shell_quoted(f"{key}=[{','.join(map(hydra_quoted, value))}]")
    quoted = hydra_quoted(value)
    if quoted != value and not set(value) & set("'\"\\"):
        quoted = f'"{value}"'  # a shell's single quotes go around these
    return shell_quoted(f"{key}={quoted}")


def _parse(text: str, choices: Choices, parser: OverridesParser) -> Override:
    try:
        return parser.parse_overrides([text])[0]
    except HydraException as error:
        raise UserError(_explain_syntax(text, choices, str(error))) from error


def _explain_syntax(text: str, choices: Choices, reason: str) -> str:
    key, equals, value = text.partition("=")
    if text.startswith("~"):
        return cannot_delete(key[1:], choices)
    if not equals:
        group = next((group for group, names in choices.groups.items() if text in names), None)
        hint = f"Did you mean {group}={text}?" if group else f"Type {text}=VALUE."
        return f"'{text}' is not a setting of the form key=value. {hint}"
    if not key:
        return INCOMPLETE.format(text)
    first = reason.splitlines()[0]
    again = type_again(key, value)
    return f"The value in '{text}' cannot be read ({first}). Put text in quotes: {again}"


def _check(override: Override, choices: Choices) -> None:
    key, text = override.key_or_group, override.input_line or ""
    if text.endswith("=") or not key:
        raise UserError(INCOMPLETE.format(text))
    if key == "hydra.searchpath":
        raise UserError("crgan sets hydra.searchpath itself. Type --config-dir DIR instead.")
    if override.is_hydra_override():
        return
    if override.is_delete():
        group, _, last = key.partition(".")
        if not last or group not in choices.groups or last.startswith("_"):
            raise UserError(cannot_delete(key, choices))
    if override.package is not None and not PART.fullmatch(f"{key}@{override.package}"):
        raise UserError(
            f"'{text}': a group of crgan cannot be moved. Type it without '@...'. Only a part of "
            "joint data has it: +dataset@dataset.parts.NAME=CHOICE."
        )
    if key in choices.groups:
        _check_choice(override, choices)
    elif "/" in key:
        raise UserError(unknown_name("group", key, choices.groups))


def trace_keys(overrides: Sequence[str], choices: Choices) -> Callable[[str], str]:
    """Return what says of a key that the typed choice does not have which file sets it.

    An experiment's keys belong to the choices that it makes, and here another one was typed.
    """
    typed = {key: value for key, _, value in (text.partition("=") for text in overrides)}
    experiments = re.findall(r"[\w/.-]+", typed.get("experiment", ""))

    def trace(key: str) -> str:
        group = key.partition(".")[0]
        if key in typed or group not in typed:
            return ""
        files = (choices.file_with("experiment", name, key) for name in experiments)
        file = next(filter(None, files), None)
        return f"{file} sets it, for its own {group}. Add '~{key}' to drop it." if file else ""

    return trace


def cannot_delete(key: str, choices: Choices) -> str:
    """The message for `~key` where something needs it."""
    instead = f" Type {key}=none." if "none" in choices.groups.get(key, []) else ""
    return f"'~{key}': {key} cannot be removed from the configuration.{instead}"


def _check_choice(override: Override, choices: Choices) -> None:
    group, text = override.key_or_group, override.input_line or ""
    if text.startswith("+") and override.package is None:
        raise UserError(f"'{text}': {group} is always there. Type {text.lstrip('+')}")
    values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
    chosen = [
        # a quoted string is an object with its text
        [str(getattr(name, "text", name)) for name in (v if isinstance(v, list) else [v])]
        for v in values
    ]
    if not any(chosen):
        listed = ", ".join(choices.groups[group])
        raise UserError(f"'{text}' matches no choice. Choices: {listed}.")
    for name in itertools.chain(*chosen):
        if name not in choices.groups[group]:
            raise UserError(unknown_choice(group, name, choices))
    for names in chosen:
        if len(names) > 1:
            _check_list(group, names, choices)


def _check_list(group: str, names: list[str], choices: Choices) -> None:
    """UserError if two choices in a list set the same thing, so that only the last would count."""
    taken: dict[str, tuple[str, object]] = {}
    for name in names:
        for key, value in choices.settings(group, name).items():
            first, before = taken.setdefault(key, (name, value))
            target, _, part = key.partition(".")
            if first == name or (target != "_target_" and before == value):
                continue
            what = f"'{part or key}'" if key != "_target_" else "the only class"
            raise UserError(
                conflict(
                    f"{group}={first}",
                    f"{group}={name}",
                    f"both set {what} of {group}, so one would be lost",
                    "Choose one of them.",
                )
            )


# --- exceptions -----------------------------------------------------------------------------------


def explain(exception: BaseException, choices: Choices, keys: Sequence[str] = ()) -> str:
    """Explain in one paragraph what Hydra, OmegaConf or the YAML reader raised.

    `keys`: the dotted keys of the configuration without the overrides that failed.
    """
    for error in _chain(exception):
        if isinstance(error, yaml.YAMLError):
            return _invalid_yaml(error)
        if isinstance(error, MissingConfigException):
            return _missing_choice(error, choices)
        if part := re.search(r"Could not override '(dataset@[^']+)'", str(error)):
            known = re.findall(r"dataset@[\w.]+", str(error).partition("Did you mean")[2])
            return unknown_name("part", part[1], sorted({*known} - {part[1]}), hint=NO_PART)
        key = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", str(error))
        if key:
            return f"{_in_file(str(error))}{unknown_key(key[1], choices, keys)}"
    return _innermost_message(exception)


def _chain(exception: BaseException | None) -> Iterator[BaseException]:
    while exception is not None:
        yield exception
        exception = exception.__cause__ or exception.__context__


def _missing_choice(error: MissingConfigException, choices: Choices) -> str:
    path = (error.missing_cfg_file or "").removeprefix("/")
    group, _, name = path.rpartition("/")
    if group in choices.groups:
        return f"{_in_file(str(error))}{unknown_choice(group, name, choices)}"
    return unknown_name("configuration file", path, sorted(error.options or []))


def _in_file(message: str) -> str:
    file = re.match(r"In '([^']+)'", message)
    return f"In {file[1]}.yaml: " if file and file[1] != "train" else ""


def _invalid_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}" if mark else "A YAML file"
    problem = getattr(error, "problem", None) or str(error)
    return f"{place} is not valid YAML: {problem}. Look at that line and the one above it."


def _innermost_message(exception: BaseException) -> str:
    """The innermost message that is not empty, on one line."""
    texts = [str(error).strip() for error in _chain(exception)]
    lines = next((text for text in reversed(texts) if text), repr(exception)).splitlines()
    noise = re.compile(r"\s*(object_type|reference_type)=|.*To append to your config|\s*$")
    return f"{'; '.join(line.strip() for line in lines if not noise.match(line)).rstrip('.')}."

"""What a caller in Python passed, checked as argparse checks what was typed. Imports no torch."""

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path

from crgan_cli.errors import UserError, wrong_value


def require_numbers(**values: object) -> None:
    """Raise UserError for a value that is no whole number of at least 1."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < 1:
            raise UserError(wrong_value(name, "a whole number of at least 1", repr(value)))


def require_positive(name: str, value: object) -> None:
    """Raise UserError for a value that is no number above 0."""
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value) > 0:
        raise UserError(wrong_value(name, "a number above 0", repr(value)))


def require_seed(seed: object) -> int:
    """Return a seed: a whole number from 0 on that fits in 63 bits. Raise UserError for others."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= int(seed) < 2**63:
        raise UserError(wrong_value("seed", "a whole number from 0 on", repr(seed)))
    return int(seed)


def require_choice(name: str, value: object, choices: Sequence[str | None]) -> None:
    """Raise UserError for a value that is none of these. None is one only if it is among them."""
    if not isinstance(value, str | None) or value not in choices:
        listed = " or ".join(map(repr, choices))
        raise UserError(wrong_value(name, listed, repr(value)))


def require_text(name: str, value: object) -> str:
    """Return a text. Raise UserError for what is none."""
    if not isinstance(value, str):
        raise UserError(wrong_value(name, "a text", repr(value)))
    return value


def require_path(name: str, value: object) -> str:
    """Return a path as it was given, with its `~`. Raise UserError for what is none."""
    if not isinstance(value, str | Path):
        raise UserError(wrong_value(name, "a path", repr(value)))
    return str(value)


def require_words(name: str, words: object) -> list[str]:
    """Return a list of words. Raise UserError for a single one, which is a sequence of letters."""
    if isinstance(words, str | Path):
        raise UserError(wrong_value(name, "a list", repr(str(words)), f"Give [{str(words)!r}]."))
    if not isinstance(words, Iterable):
        raise UserError(wrong_value(name, "a list", repr(words)))
    return list(map(str, words))


def require_settings(words: object) -> list[str]:
    """Return a list of settings. Raise UserError for an option of the command line among them."""
    found = require_words("overrides", words)
    for word in found:
        if word.startswith("-"):
            raise UserError(
                wrong_value("overrides", "settings as KEY=VALUE", repr(word))
                + " Options of the command are not settings; to resume a run, give out=FOLDER."
            )
    return found

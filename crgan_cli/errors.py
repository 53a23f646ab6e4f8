"""How a command can fail, and templates for what it tells the user. Imports no torch.

A message names what was given, what was expected, and what to type instead.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """What the user typed or supplied cannot be used: exit code 2."""


class RunFailed(RuntimeError):
    """The command was right and the run still failed (full disk, infinite loss): exit code 1."""


class NotFinite(RunFailed):
    """A number of a run became infinite or NaN. `runs.outcome` adds what to do next."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run, which has been saved: exit code 128 + `signum`, and no next job."""

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message)
        self.signum = signum

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        """Keep `signum` when a job in another process sends the exception."""
        return Interrupted, (self.signum, str(self))


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, if any is similar."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, where: str = "", prefix: str = "", hint: str = ""
) -> str:
    """Unknown KIND 'NAME' in WHERE. Did you mean 'PREFIX...'? KINDs: the known names.

    A `hint` replaces the question.
    """
    known = list(known)
    guess = closest_name(name, known)
    hint = hint or (f"Did you mean '{prefix}{guess}'?" if guess else "")
    sentences = [
        f"Unknown {kind} '{name}'" + (f" in {where}." if where else "."),
        hint,
        f"{kind.capitalize()}s: {', '.join(known) or 'none'}.",
    ]
    return " ".join(filter(None, sentences))


def wrong_value(name: str, expected: str, value: str, remedy: str = "") -> str:
    """NAME must be EXPECTED, not VALUE (as it is typed). REMEDY"""
    return f"{name} must be {expected}, not {value}. {remedy}".rstrip()


def missing_value(key: str, placeholder: str = "VALUE") -> str:
    """KEY has no value yet. Type KEY=PLACEHOLDER (PATH for keys that hold a path)"""
    if key.rpartition(".")[2] in ("root", "path", "data_root"):
        placeholder = "PATH"
    return f"{key} has no value yet. Type {key}={placeholder}"


def conflict(first: str, second: str, reason: str, remedy: str) -> str:
    """FIRST and SECOND cannot be combined: REASON. REMEDY"""
    return f"{first} and {second} cannot be combined: {reason}. {remedy}"


def missing_file(what: str, path: object, remedy: str, *, kind: str = "file") -> str:
    """WHAT PATH: there is no such KIND. REMEDY"""
    return f"{what} {path}: there is no such {kind}. {remedy}"


def not_available(what: str, reason: str, remedy: str) -> str:
    """WHAT is not available here: REASON. REMEDY"""
    return f"{what} is not available here: {reason}. {remedy}"


# --- for callers in Python -----------------------------------------------------------------------

OPTION = re.compile(
    r"""(crgan\ [a-z]+\ [^.;()]*?(?=,\ or\ |[.;()]|$))  # a command stays one
    |--(?P<key>weights|classes|to)\ (?P<value>[\w,+-]+)  # with the value that is meant
    |--(?P<flag>best|force)\b
    |--(?P<name>[a-z][a-z-]*)""",
    re.VERBOSE,
)
"""An option of the command line in a message."""


def spell_for_python(message: str) -> str:
    """Write the options of a message as arguments: --weights raw is weights="raw"."""

    def spell(found: re.Match[str]) -> str:
        if found["key"]:
            return f'{found["key"]}="{found["value"]}"'
        if found["flag"]:
            return f"{found['flag']}=True"
        return f"{found['name'].replace('-', '_')}=" if found["name"] else found[0]

    message = message.replace("Add -m to make one run of each", "Call crgan.train once for each")
    return OPTION.sub(spell, message)


@contextmanager
def spelled_for_python() -> Iterator[None]:
    """Let a UserError or RunFailed of the body name arguments where it names options."""
    try:
        yield
    except (UserError, RunFailed) as error:
        error.args = (spell_for_python(str(error)), *error.args[1:])
        raise

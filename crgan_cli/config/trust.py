"""Which values of a file crgan follows, and which only if the user has typed them.

A checkpoint, a run's folder and an experiment file may come from a stranger. The file of a
`CodePath` can run code when it is read, so it is opened only if its path was typed. The file of a
`DataPath` is read as images, tensors or plain values: its path may come from a stored
configuration, is shown, and is never created. The annotations of the constructors say which keys
these are, those of plug-ins too.
"""

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, get_args, get_origin

from crgan_cli.config.bounds import PathMark
from crgan_cli.config.messages import type_again
from crgan_cli.config.resolve import Settings, to_plain
from crgan_cli.config.schema import target_paths
from crgan_cli.config.signatures import parameters
from crgan_cli.errors import UserError, missing_file

log = logging.getLogger(__name__)


def require_code_typed(config: Settings, typed: Collection[str], source: str) -> None:
    """UserError if a file that can run code is named by `source`, and not by the user.

    `typed`: the keys on the command line. `config` has been checked by the schema.
    """
    for key, paths, mark in marked_paths(config):
        if mark.runs_code and key not in typed:
            value = paths[0] if len(paths) == 1 else paths
            raise UserError(
                f"{source} names {key}={printable(', '.join(paths))}. Reading such a file can run "
                "code, so crgan opens it only if you name it yourself. If you trust that file, "
                f"add to the command: {printable(type_again(key, value))}"
            )


def show_data_paths(config: Settings, typed: Collection[str], source: str) -> None:
    """Log the paths that `source` names and the user did not. UserError if there is nothing.

    A data set that is not there would be downloaded to where a stranger says.
    """
    for key, paths, mark in marked_paths(config):
        for path in paths if not mark.runs_code and key not in typed else ():
            found = os.path.expanduser(path)  # these never raise, whatever a stranger names
            if not (os.path.isfile(found) or os.path.isdir(found)):  # no device or pipe either
                what, remedy = f"{source} names {key}", f"Type {key}=PATH with a path of yours."
                raise UserError(missing_file(what, printable(path), remedy, kind="file or folder"))
            log.info("%s is read, as %s says", f"{key}={printable(path)}", source)


def path_keys(config: Settings) -> list[str]:
    """The keys of all paths, which a user may always type. Unknown classes are left out."""
    found: list[str] = []
    for group, settings in config.items():
        with suppress(UserError):
            found += [key for key, _, _ in marked_paths({group: settings})]
    return found


def marked_paths(config: Settings) -> Iterator[tuple[str, list[str], PathMark]]:
    """Yield (dotted key, paths, mark) for each key that holds some. UserError: unknown class."""
    for group, settings in _groups(to_plain(config)):
        for target in target_paths(settings):
            for name, parameter in parameters(target).items():
                value = settings.get(name)
                paths = value if isinstance(value, list) else [value]
                for mark in find_marks(parameter.kind) if value is not None else ():
                    yield f"{group}.{name}", [str(path) for path in paths], mark


def _groups(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Settings]]:
    """Yield dotted name -> settings of the groups, and of those inside of them."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            if "_target_" in value:
                yield f"{prefix}{name}", value
            yield from _groups(value, f"{prefix}{name}.")


def find_marks(kind: object) -> Iterator[PathMark]:
    """Yield the marks inside an annotation, as of `CodePath | None` or `list[DataPath]`."""
    if isinstance(kind, PathMark):
        yield kind
    elif get_origin(kind) is Annotated or get_args(kind):
        for part in get_args(kind):
            yield from find_marks(part)


def printable(text: str) -> str:
    """Return a stranger's text without the characters that control a terminal."""
    return text if text.isprintable() else repr(text)

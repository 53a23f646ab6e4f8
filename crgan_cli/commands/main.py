"""The program `crgan`. A command is a module of this folder that COMMANDS lists, with three names:

    help: str                                    one line for `crgan --help`
    configure(parser: ArgumentParser) -> None    its arguments
    run(args: Namespace) -> int                  the exit code

Exit codes: 0; 1, the command was right and failed; 2, what was typed or given cannot be used;
128 + n, stopped by signal n. Nothing here, nor the import of a command, imports torch.
"""

import argparse
import importlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn, Protocol

from crgan_cli import __version__
from crgan_cli.errors import Interrupted, RunFailed, UserError, unknown_name
from crgan_cli.system.console import format_unexpected, print_error
from crgan_cli.system.distributed.launch import is_main, is_torchrun
from crgan_cli.system.loading import announce_torch
from crgan_cli.system.streams import protect_streams, require_printed

COMMANDS = (
    "train",
    "eval",
    "sample",
    "timelapse",
    "translate",
    "artefacts",
    "export",
    "info",
    "report",
    "reproduce",
    "completion",
)
"""The modules, in the order in which a user needs them."""


class Command(Protocol):
    """What a module of `crgan_cli.commands` defines."""

    help: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Run the command and return the exit code."""
        ...


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError."""

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            option = message.split()[1].rstrip(":").rpartition("/")[2]
            message += f"; one that begins with a minus is typed {option}=-VALUE"
        raise UserError(f"{message}. Type '{self.prog} --help'.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End after --help."""
        require_printed()
        super().exit(status, message)


def load_command(name: str) -> Command:
    """Import the module of a command."""
    return importlib.import_module(f"crgan_cli.commands.{name}")  # type: ignore[return-value]


def main() -> None:
    """Run the console script, and exit. A shell that completes a line sets _ARGCOMPLETE."""
    if "_ARGCOMPLETE" in os.environ:
        from crgan_cli.commands.completion import answer_shell

        answer_shell(COMMANDS)
    protect_streams()
    if is_main():
        announce_torch()
    ctrl_c = CtrlC()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, ctrl_c)
    sys.exit(run_command(sys.argv[1:], ctrl_c))


class CtrlC:
    """A handler of SIGINT that remembers it: an import that it cuts short may fail in any way."""

    pressed = False

    def __call__(self, signum: int, frame: FrameType | None) -> NoReturn:
        self.pressed = True
        raise KeyboardInterrupt


def run_command(argv: list[str], ctrl_c: CtrlC | None = None) -> int:
    """Run one command line, report its failure, and return the exit code."""
    title = "crgan"
    try:
        if argv and argv[0] in COMMANDS:
            title = f"crgan {argv[0]}"
        return dispatch(argv)
    except Interrupted as error:
        return print_error(f"{title}: stopped. {error}".rstrip(), code=128 + error.signum)
    except KeyboardInterrupt:
        return print_error(f"{title}: stopped.", code=128 + signal.SIGINT)
    except Exception as error:
        if ctrl_c is not None and ctrl_c.pressed and not isinstance(error, RunFailed):
            return print_error(f"{title}: stopped.", code=128 + signal.SIGINT)
        if isinstance(error, UserError):
            return print_error(f"{title}: error: {error}", code=2)
        message = str(error) if isinstance(error, RunFailed) else format_unexpected(error)
        return print_error(f"{title}: failed: {message}", code=1)


def dispatch(argv: list[str]) -> int:
    """Find the command and run it."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text())
        require_printed()
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"crgan {__version__}")
        require_printed()
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        raise UserError(unknown_command(name))
    if is_torchrun() and name != "train":
        raise UserError(
            f"torchrun has started several processes, and crgan {name} is for one. Type it without "
            "torchrun."
        )
    command = load_command(name)
    parser = Parser(
        prog=f"crgan {name}",
        description=command.help,
        allow_abbrev=False,
        conflict_handler="resolve",  # a command may have its own --help
    )
    command.configure(parser)
    return command.run(parser.parse_intermixed_args(rest))


def help_text() -> str:
    """Return the text of `crgan --help`."""
    lines = "\n".join(f"  {name:11}{load_command(name).help}" for name in COMMANDS)
    return (
        "usage: crgan COMMAND ...\n\n"
        "An experiment runner for consistency-regularised GANs.\n\n"
        f"commands:\n{lines}\n\n"
        "'crgan COMMAND --help' explains a command; 'crgan --version' prints the version.\n"
        "To begin: crgan train experiment=demo"
    )


def unknown_command(name: str) -> str:
    """Return the message for an unknown command."""
    if "=" in name:
        return f"'{name}' is a setting of a command: type crgan train {name}"
    return unknown_name("command", name, COMMANDS)

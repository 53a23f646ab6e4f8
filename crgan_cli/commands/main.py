"""The command `crgan`. A command is a module of `crgan_cli.commands` with three names:

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
from typing import NoReturn, Protocol

from crgan_cli import __version__
from crgan_cli.errors import Interrupted, RunFailed, UserError, unknown_name
from crgan_cli.system.console import format_unexpected, print_error
from crgan_cli.system.distributed.launch import is_torchrun

COMMANDS = ("train", "eval", "sample", "artefacts", "report", "reproduce", "completion")
"""In the order of use, which is that of the help. Each is a module beside this one."""


class Command(Protocol):
    """What a module of `crgan_cli.commands` holds."""

    help: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's arguments."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Does it, and returns the exit code."""
        ...


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are answered like every other."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. Type '{self.prog} --help'.")


def load(name: str) -> Command:
    """The module of a command."""
    return importlib.import_module(f"crgan_cli.commands.{name}")  # type: ignore[return-value]


def main() -> None:
    """Run the console script, and exit. A shell that completes a line sets _ARGCOMPLETE."""
    if "_ARGCOMPLETE" in os.environ:
        from crgan_cli.commands.completion import answer_shell

        answer_shell(COMMANDS)
    sys.exit(run_command(sys.argv[1:]))


def run_command(argv: list[str]) -> int:
    """Runs one command line, puts its failure into words, and returns the exit code."""
    title = "crgan"
    try:
        if argv and argv[0] in COMMANDS:
            title = f"crgan {argv[0]}"
        code = dispatch(argv)
        sys.stdout.flush()  # here, so that a closed pipe is noticed here
        return code
    except UserError as error:
        return print_error(f"{title}: error: {error}", code=2)
    except RunFailed as error:
        return print_error(f"{title}: failed: {error}", code=1)
    except Interrupted as error:
        return print_error(f"{title}: stopped. {error}".rstrip(), code=128 + error.signum)
    except KeyboardInterrupt:
        return print_error(f"{title}: stopped.", code=128 + signal.SIGINT)
    except BrokenPipeError:  # `crgan train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return print_error(f"{title}: failed: {format_unexpected(error)}", code=1)


def dispatch(argv: list[str]) -> int:
    """Finds the command and runs it."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"crgan {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        raise UserError(unknown_command(name))
    if is_torchrun() and name != "train":
        raise UserError(
            f"torchrun has started several processes, and crgan {name} is for one. Type it without "
            "torchrun."
        )
    command = load(name)
    parser = Parser(
        prog=f"crgan {name}",
        description=command.help,
        allow_abbrev=False,
        conflict_handler="resolve",  # a command may write a --help of its own
    )
    command.configure(parser)
    return command.run(parser.parse_intermixed_args(rest))


def help_text() -> str:
    """The text of `crgan --help`."""
    lines = "\n".join(f"  {name:11}{load(name).help}" for name in COMMANDS)
    return (
        "usage: crgan COMMAND ...\n\n"
        "An experiment runner for consistency-regularised GANs.\n\n"
        f"commands:\n{lines}\n\n"
        "'crgan COMMAND --help' says what a command takes; 'crgan --version' is the version.\n"
        "To begin: crgan train experiment=demo"
    )


def unknown_command(name: str) -> str:
    """What to say to a misspelt command."""
    if "=" in name:
        return f"'{name}' is a setting of a command: type crgan train {name}"
    return unknown_name("command", name, COMMANDS)

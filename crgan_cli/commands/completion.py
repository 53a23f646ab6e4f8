"""`crgan completion`: Tab completes commands, flags, groups, choices, keys and values in a shell.

The shell runs `crgan` itself at each Tab, with what was typed in its environment, and argcomplete
answers. So everything here is fast: it reads YAML files, and imports neither Hydra nor torch.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml

from crgan_cli.config.choices import Choices
from crgan_cli.config.signatures import ROOT, parameters
from crgan_cli.system.streams import require_printed

help = "Print the line that turns on completion with Tab in your shell."

DESCRIPTION = """Print the code that turns on completion with Tab. To have it in every new shell:

  bash   echo 'eval "$(crgan completion bash)"' >> ~/.bashrc
  zsh    echo 'eval "$(crgan completion zsh)"' >> ~/.zshrc      (below compinit)
  fish   crgan completion fish > ~/.config/fish/completions/crgan.fish

Then type, for example: crgan train regularizer=<Tab>"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """Print the shell's code."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["crgan"], shell=args.shell))
    require_printed()
    return 0


class CompletingParser(argparse.ArgumentParser):
    """A parser whose settings (KEY=VALUE) and tables can be completed."""

    settings: dict[str, str]  # typed so far

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the words without the settings, which may stand between flags."""
        words = [word for word in args if "=" in word and not word.startswith("-")]
        self.settings = dict(word.partition("=")[::2] for word in words)
        return super().parse_known_args([word for word in args if word not in words], namespace)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add the argument, with its completer if it has one."""
        action = super().add_argument(*names, **options)
        if completer := {"overrides": complete_setting, "table": complete_table}.get(action.dest):
            action.completer = completer  # type: ignore[attr-defined]  # argcomplete looks there
        return action


def answer_shell(commands: tuple[str, ...]) -> None:
    """Write the completions of the line that the shell passes on, and end the process."""
    import argcomplete

    from crgan_cli.commands.main import load_command

    parser = argparse.ArgumentParser(prog="crgan")
    parser.add_argument("-V", "--version", action="store_true")
    found = parser.add_subparsers(parser_class=CompletingParser)
    typed = os.environ.get("COMP_LINE", "").split()
    for name in commands:
        command = found.add_parser(name, conflict_handler="resolve", allow_abbrev=False)
        if name in typed[:2]:
            load_command(name).configure(command)
    argcomplete.autocomplete(parser, always_complete_options=False)
    sys.exit(1)  # without the shell's variables


def complete_table(prefix: str, **_: object) -> list[str]:
    """The papers' tables, of `crgan reproduce`."""
    from crgan_cli.experiments.paper_tables import table_names

    return table_names()


def complete_setting(
    prefix: str, parser: CompletingParser, parsed_args: argparse.Namespace, **_: object
) -> list[str]:
    """What a setting that begins with `prefix` can become: keys first, then values."""
    choices = Choices(getattr(parsed_args, "config_dir", None))
    typed = parser.settings
    key, equals, value = prefix.partition("=")
    if not equals:
        return [*list_keys(choices, key, typed)]
    if key in choices.groups:
        before = value[: max(map(value.rfind, "[,")) + 1]  # of a list or a sweep
        names = [name for name in choices.groups[key] if name not in split_choices(before)]
        ends = ("", "]") if "[" in before else ("",)
        return [f"{key}={before}{name}{end}" for name in names for end in ends]
    return [f"{key}={word}" for word in list_values(choices, key, typed)]


def list_keys(choices: Choices, prefix: str, typed: dict[str, str]) -> Iterator[str]:
    """The groups, the settings outside them, and below a group the keys of its choice."""
    group, dot, _ = prefix.partition(".")
    if dot and group in choices.groups:
        for settings in chosen_settings(choices, group, typed):
            for key in settings:
                if key != "_target_" and not key.startswith("_target_."):
                    yield f"{group}.{key}="
        return
    for name in choices.groups:
        yield f"{name}="
        if prefix and name != "experiment":
            yield f"{name}."
    for key, value in read_defaults(choices).items():
        inner = value if isinstance(value, dict) else ()
        yield from [f"{key}.{name}=" for name in inner] or [f"{key}="]


def read_defaults(choices: Choices) -> dict[str, object]:
    """The settings of train.yaml outside the groups."""
    content = yaml.safe_load(Path(choices.folders[0], "train.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in ("defaults", "hydra")}


def chosen_settings(choices: Choices, group: str, typed: dict[str, str]) -> list[dict[str, object]]:
    """What the files of a group's typed choices set, of one or several; else its default."""
    names = split_choices(typed.get(group, ""))
    known = [name for name in names if name in choices.groups[group]]
    default = choices.defaults().get(group)
    return [choices.settings(group, name) for name in known or [default] if name is not None]


def split_choices(value: str) -> list[str]:
    """The choices in a value such as icr, [cr,gp] or none,cr."""
    return re.split(r"[\[\],]", value)


def list_values(choices: Choices, key: str, typed: dict[str, str]) -> list[str]:
    """The values of a key if there are few: those of a Literal, true and false, null."""
    group, _, name = key.partition(".")
    classes, path = [ROOT], key.split(".")
    if group in choices.groups:
        settings = chosen_settings(choices, group, typed)
        targets = [each[part] for each in settings for part in each if part.startswith("_target_")]
        classes, path = [str(target) for target in targets], [name]
    words: dict[str, None] = {}
    for each in classes:
        kind: object = parameters(each)
        for part in path:
            kind = (
                getattr(kind.get(part), "kind", kind.get(part)) if isinstance(kind, dict) else None
            )
        words |= dict.fromkeys(spell_values(kind))
    return list(words)


def spell_values(kind: object) -> list[str]:
    """The values of a type as YAML spells them; none if there is no end of them."""
    if kind is bool:
        return ["true", "false"]
    if kind is NoneType:
        return ["null"]
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [word for part in get_args(kind) for word in spell_values(part)]

"""Words for a shell: what it reads back is what was meant, for any name that a disk can hold."""

import os
import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from crgan_cli.config.messages import quote_overrides, type_again
from crgan_cli.system.paths import shell_joined

NAMES = (
    "plain/x",
    "my photos",
    "it's here",
    "été",
    'a "quoted" name',
    "back\\slash",
    "$HOME `x` (1) [2] {3}",
    "new\nline",
    os.fsdecode(b"caf\xe9/it's \\ 1"),
    "2025",
    "null",
)


def read_by_bash(line: str) -> list[str]:
    """The words of a command line, as bash passes them on."""
    script = f"printf '%s\\0' {line}"
    answer = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    return [os.fsdecode(word) for word in answer.stdout.split(b"\0")[:-1]]


def values(typed: str) -> list[str]:
    """The values that Hydra reads from what was typed: several for a sweep."""
    override = OverridesParser.create().parse_override(*quote_overrides([typed]))
    found = [*override.sweep_iterator()] if override.is_sweep_override() else [override.value()]
    return [str(getattr(each, "text", each)) for each in found]


def test_a_shell_reads_every_word_back() -> None:
    line = shell_joined(NAMES)
    line.encode()  # it can be printed and copied
    assert read_by_bash(line) == [*NAMES]


def test_a_setting_that_is_advised_can_be_typed() -> None:
    """The shell takes its quotes off, and Hydra's grammar its own."""
    typed = read_by_bash(" ".join(type_again("out", name) for name in NAMES))
    assert [values(word) for word in typed] == [[name] for name in NAMES]


@pytest.mark.parametrize("names", ["Bob's photos", "l'été", "a'b'c", "photos,Bob's"])
def test_an_apostrophe_in_a_name_is_no_quote(names: str) -> None:
    assert values(f"out={names}") == names.split(",")

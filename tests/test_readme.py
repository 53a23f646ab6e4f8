"""What the documentation says is typed here as it stands there."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.runs import PIPES, environment, lines, tiny

from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))

from docs_check import PAGES, Block, find_mistakes, read_blocks, split_commands  # noqa: E402

README = (ROOT / "README.md").read_text()
EXTENDING = ROOT / "docs/extending.md"
EXAMPLES = {
    "mode_seeking": "terms/mode_seeking",
    "smoothed": "terms/adversarial/d",
    "brightness": "terms/cr/real",
    "dense": "terms/adversarial/g",
    "arrays": "terms/adversarial/d",
    "rare_often": "terms/adversarial/d",
    "sharpness": "sharpness_n8_real",  # a new G draws grey
    "mean_colours": "kid_meancolours4_n8",
}
"""Module of each worked example -> a term, or a number of its evaluation, that its run logs."""

SPARE = {
    "dense": "architecture.width",
    "arrays": "dataset.fraction",
    "mean_colours": "extractor.resolution",
}
"""Module -> the setting of tiny runs that its choice does not have."""


def write_examples(folder: Path) -> dict[str, list[str]]:
    """Write the files of docs/extending.md; return the words after `crgan`, by plug-in."""
    typed = {}
    for block in read_blocks(EXTENDING):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
        elif block.language == "sh":
            for env, words in split_commands(block.text):
                if words[0] == "crgan":
                    assert env["PYTHONPATH"] == "."
                    typed[env["CRGAN_PLUGINS"]] = words[1:]
    return typed


def test_every_kind_of_extension_has_an_example(tmp_path: Path) -> None:
    assert write_examples(tmp_path).keys() == EXAMPLES.keys()


RUN_ALL = """
import json, os, sys
from crgan_cli.commands.main import run_command
for name, words in json.loads(sys.argv[1]).items():
    os.environ["CRGAN_PLUGINS"] = name
    print(name, run_command(words), flush=True)
"""
"""Runs the command lines of all plug-ins, each with its own alone allowed."""


class Examples(NamedTuple):
    """What the worked examples left behind."""

    folder: Path
    codes: dict[str, str]
    said: str


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """All of them in one process, in their folder: starting takes longer than what they do."""
    folder = tmp_path_factory.mktemp("examples")
    commands = {}
    for name, words in write_examples(folder).items():
        small = ("steps=2", "log.every=1", "samples.every=2", "metrics.measures=[kid]")
        spare = SPARE.get(name, "none")
        small = [word for word in tiny(f"out={name}", *small) if not word.startswith(spare)]
        commands[name] = [*words, *small]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runpy.run_path("make_arrays.py")
    # `.` as the pages say, where -P leaves it out; crgan itself is installed for their readers
    env = environment({"PYTHONPATH": f".:{ROOT}"})
    words = [sys.executable, "-P", "-c", RUN_ALL, json.dumps(commands)]
    done = subprocess.run(words, cwd=folder, env=env, **PIPES)
    ends = re.findall(rf"^({'|'.join(EXAMPLES)}) (\d+)$", done.stdout, re.MULTILINE)
    return Examples(folder, dict(ends), done.stderr)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_worked_example_trains_and_logs_its_term(name: str, examples: Examples) -> None:
    assert examples.codes.get(name) == "0", examples.said
    logged = lines(examples.folder / name, "train")
    assert len(logged) == 2
    scored = lines(examples.folder / name, "eval")[-1]
    assert {**logged[-1], **scored}[EXAMPLES[name]] != 0
    if name == "mode_seeking":
        assert logged[-1]["terms/cr/real"] > 0


# --- the check of all pages -----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_can_be_run_or_says_why_not(page: Path) -> None:
    blocks = read_blocks(page)
    files = [block.file for block in blocks if block.file]
    assert [m for block in blocks if (m := find_mistakes(block, files))] == []
    assert page.read_text().count("```") == 2 * len(blocks)


@pytest.mark.parametrize(
    ("language", "text", "file", "mistake"),
    [
        ("sh", "crgan train\n", None, None),
        ("sh", "CRGAN_PLUGINS=x crgan train \\\n    seed=2  # comment\n", None, None),
        ("sh", "crgan train\nmake demo\n", None, "'make demo' cannot be run here"),
        ("sh", "python other.py\n", None, "'python other.py' cannot be run here"),
        ("bash", "crgan train\n", None, "bash is none of sh, python, yaml"),
        ("python", "import this\n", None, "no line before it names a file"),
        ("python", "import this\n", "this.py", None),
        ("", "anything\n", None, None),
    ],
)
def test_a_block_that_can_neither_be_run_nor_is_marked_is_a_mistake(
    language: str, text: str, file: str | None, mistake: str | None
) -> None:
    block = Block(ROOT / "README.md", 1, language, text, None, file)
    found = find_mistakes(block, ["mode_seeking.py"])
    assert found is None if mistake is None else mistake in (found or "")
    assert find_mistakes(block._replace(reason="needs a GPU")) is None


def train_lines() -> Iterator[str]:
    """Every `crgan train` line of the pages that starts runs, in blocks and in the text."""
    for page in PAGES:
        blocks = read_blocks(page)
        for block in blocks:
            if block.language == "sh":
                for env, words in split_commands(block.text):
                    if (
                        words[:2] == ["crgan", "train"]
                        and not env
                        and "experiment=..." not in words
                    ):
                        yield shlex.join(words[2:])
        text = page.read_text()
        for line in re.findall(r"`crgan train ([^`\n]*)`", text):
            if "=" in line and not re.search(r"--from|\.\.\.|=`?$", line):
                yield line


@pytest.mark.parametrize("line", sorted(set(train_lines())))
def test_every_train_command_composes(line: str) -> None:
    words = shlex.split(line)
    jobs: list[list[str]] = [[]]
    for word in words:
        if word.startswith("~"):
            jobs = [[*job, word] for job in jobs]
        if "=" not in word or word.startswith(("-", "hydra")):
            continue
        key, _, values = word.partition("=")
        choices = values.split(",") if "-m" in words and "(" not in values else [values]
        if "(" not in values:
            jobs = [[*job, f"{key}={value}"] for job in jobs for value in choices]
    for job in jobs:
        compose(job)


def test_every_choice_is_in_the_table() -> None:
    for group in (
        "regularizer",
        "task",
        "loss",
        "augment",
        "architecture",
        "dataset",
        "sampler",
        "optimizer",
        "metrics",
        "extractor",
        "engine",
    ):
        row = next(line for line in README.splitlines() if line.startswith(f"| `{group}`"))
        for choice in Choices().groups[group]:
            assert f"`{choice}`" in row, f"{group}={choice} is not in the README"


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120  # rows do not wrap


# --- the map --------------------------------------------------------------------------------------

DESIGN = (ROOT / "docs/design.md").read_text()


def test_every_file_of_the_map_exists() -> None:
    for name in re.findall(r"`([\w/]+(?:/|\.py))`", DESIGN):
        assert (ROOT / "crgan_cli" / name).exists() or (ROOT / name).exists(), name


def test_every_name_of_the_walk_is_defined_in_its_file() -> None:
    steps = re.findall(r"^\| .* \| `([\w/]+\.py)` \| `(\w+)` \|$", DESIGN, re.MULTILINE)
    assert len(steps) == 15
    for file, name in steps:
        text = (ROOT / "crgan_cli" / file).read_text()
        assert re.search(rf"^ *(?:def|class) {name}\b", text, re.MULTILINE), f"{file}: {name}"


def test_every_link_leads_somewhere() -> None:
    for page in (*PAGES, ROOT / "CHANGELOG.md", ROOT / "RESULTS.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"

"""What the README says is typed here as it stands there."""

import json
import re
import shlex
from pathlib import Path

import pytest
from support.runs import crgan, tiny

from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(language: str, containing: str) -> str:
    """The code block of a language that holds some text."""
    found = [
        text for text in re.findall(rf"```{language}\n(.*?)```", README, re.S) if containing in text
    ]
    assert len(found) == 1
    return found[0]


def test_the_worked_example_trains_and_logs_its_term(tmp_path: Path) -> None:
    (tmp_path / "drift.py").write_text(block("python", "class Drift"))
    (tmp_path / "conf/regularizer").mkdir(parents=True)
    (tmp_path / "conf/regularizer/drift.yaml").write_text(block("yaml", "drift.Drift"))
    typed = shlex.split(block("sh", "CRGAN_PLUGINS"))
    env = dict(word.split("=", 1) for word in typed[:2])
    assert typed[2:4] == ["crgan", "train"]
    done = crgan(*typed[3:], *tiny("out=run", "metrics.every=1000"), cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-2])
    assert last["terms/drift"] > 0
    assert last["terms/cr/real"] > 0


def typed_in_readme() -> list[str]:
    """Every `crgan train` line that starts a run with overrides."""
    lines = re.findall(r"^crgan train ([^#\n]*)|`crgan train ([^`]*)`", README, re.M)
    return sorted({(a or b).split(" (or")[0].strip() for a, b in lines})


@pytest.mark.parametrize("line", typed_in_readme())
def test_every_train_command_composes(line: str) -> None:
    overrides = [word for word in shlex.split(line) if "=" in word and not word.startswith("-")]
    jobs = [[]]
    for word in overrides:
        key, _, values = word.partition("=")
        choices = values.split(",") if "-m" in line.split() else [values]
        jobs = [[*job, f"{key}={value}"] for job in jobs for value in choices]
    for job in jobs:
        compose(job)


def test_every_choice_is_in_the_table() -> None:
    for group in (
        "regularizer",
        "loss",
        "augment",
        "architecture",
        "dataset",
        "metrics",
        "extractor",
    ):
        row = next(line for line in README.splitlines() if line.startswith(f"| `{group}`"))
        for choice in Choices().groups[group]:
            assert f"`{choice}`" in row, f"{group}={choice} is not in the README"

"""Completion with Tab, as a shell asks for it: the line in the environment, answers in a file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import crgan

from crgan_cli.commands.main import COMMANDS
from crgan_cli.config.choices import Choices

CRGAN = "from crgan_cli.commands.main import main; main()"


def complete(line: str, folder: Path, *flags: str) -> "tuple[list[str], str]":
    """What completes the end of a line, as whole words, and what went to stderr."""
    answer = folder / "answer"
    shell = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "fish",  # which breaks no words and quotes nothing
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line.encode())),
    }
    done = subprocess.run(
        [sys.executable, *flags, "-c", CRGAN],
        cwd=folder,
        env=os.environ | shell,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return [word.strip() for word in answer.read_text().split("\n") if word], done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("crgan ", list(COMMANDS)),
        ("crgan re", ["report", "reproduce"]),
        ("crgan train --mul", ["--multirun"]),
        ("crgan train --cfg ", ["job", "hydra", "all"]),
        ("crgan train regularizer=", [f"regularizer={n}" for n in Choices().groups["regularizer"]]),
        ("crgan train regularizer=z", ["regularizer=zcr"]),
        ("crgan train -m regularizer=none,i", ["regularizer=none,icr"]),
        ("crgan train 'regularizer=[cr,j", ["regularizer=[cr,jsr", "regularizer=[cr,jsr]"]),
        ("crgan train optim", ["optimizer=", "optimizer."]),
        ("crgan train optimizer.l", ["optimizer.lr_g=", "optimizer.lr_d="]),
        ("crgan train seed=1 -m regularizer=icr regularizer.s", ["regularizer.sigma="]),
        (
            "crgan train regularizer=r1,cr regularizer.lambda_",
            ["regularizer.lambda_r1=", "regularizer.lambda_cr="],
        ),
        ("crgan train checkpoint.", ["checkpoint.every=", "checkpoint.keep="]),
        ("crgan train resume=", ["resume=auto", "resume=never", "resume=force"]),
        ("crgan train sweep.on", ["sweep.on_error="]),
        ("crgan train sweep.on_error=", ["sweep.on_error=continue", "sweep.on_error=stop"]),
        ("crgan train dataset.flip=", ["dataset.flip=true", "dataset.flip=false"]),
        ("crgan train steps=", []),
        ("crgan train no.such=", []),
        ("crgan reproduce sm", ["small_models"]),
        ("crgan reproduce small_models --scale d", ["demo"]),
        ("crgan reproduce small_models batch", ["batch_size="]),
        ("crgan eval --weights ", ["ema", "raw"]),
        ("crgan completion ", ["bash", "zsh", "fish"]),
    ],
)  # fmt: skip
def test_a_line_is_completed(line: str, words: list[str], tmp_path: Path) -> None:
    assert complete(line, tmp_path)[0] == words


def test_choices_of_the_users_own_folder_are_offered(tmp_path: Path) -> None:
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "mine.yaml").write_text("margin: 2.0\n")
    typed = "crgan train --config-dir conf loss="
    assert complete(f"{typed}min", tmp_path)[0] == ["loss=mine", "loss=minimax"]
    assert complete(f"{typed}mine loss.", tmp_path)[0] == ["loss.margin="]
    assert complete("crgan train --config-dir c", tmp_path)[0] == ["conf/"]


def test_a_tab_imports_neither_torch_nor_hydra(tmp_path: Path) -> None:
    for line in ("crgan train engine.precision=", "crgan reproduce small_models regularizer="):
        imported = complete(line, tmp_path, "-X", "importtime")[1].split()
        assert "yaml" in imported
        assert not {"torch", "hydra", "omegaconf", "numpy"} & set(imported)


def test_every_setting_of_train_is_offered(tmp_path: Path) -> None:
    """Those of `crgan train --help`, which are read from the same file in another way."""
    keys = complete("crgan train ", tmp_path)[0]
    text = crgan("train", "--help", cwd=tmp_path).stdout
    listed = text.partition("settings:")[2].partition("\n\n")[0]
    settings = [line.split("=")[0].strip() for line in listed.splitlines() if line[2:3].isalpha()]
    assert len(settings) > 15
    assert {f"{key}=" for key in settings} <= set(keys)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself_completes(tmp_path: Path) -> None:
    (tmp_path / "crgan").write_text(f"#!{sys.executable}\n{CRGAN}\n")
    (tmp_path / "crgan").chmod(0o755)
    line = "crgan train regularizer=i"
    script = f"""
    eval "$(crgan completion bash)" || exit 3
    complete -p crgan
    COMP_LINE='{line}' COMP_POINT={len(line)} COMP_TYPE=9 COMP_WORDBREAKS=$' \\t\\n"'"'"'><=;|&(:'
    _python_argcomplete crgan crgan i 2>/dev/null
    echo "<${{COMPREPLY[@]}}>"
    """
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "_python_argcomplete crgan" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1].rstrip(" >") == "<icr"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_code(shell: str, tmp_path: Path) -> None:
    done = crgan("completion", shell, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"bash": "complete -o", "zsh": "compdef", "fish": "complete --command crgan"}[
        shell
    ] in done.stdout


def test_an_unknown_shell_is_named(tmp_path: Path) -> None:
    done = crgan("completion", "dash", cwd=tmp_path)
    assert done.returncode == 2
    assert "invalid choice: 'dash'" in done.stderr

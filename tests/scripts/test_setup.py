"""`make setup`'s script, with a stand-in for uv that writes down what it is told."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = """#!/bin/sh
echo "$@" >>"$0.log"
case "$*" in *--torch-backend*) exit $REFUSED ;; esac
"""


def set_up(folder: Path, build: str, *, refused: bool = False) -> tuple[int, str, list[str]]:
    """Run it; return the exit code, what it said, and what uv was told."""
    uv, environment = folder / "uv", folder / "venv"
    environment.mkdir(exist_ok=True)
    uv.write_text(STUB)
    uv.chmod(0o755)
    Path(f"{uv}.log").unlink(missing_ok=True)
    done = subprocess.run(
        ["sh", "scripts/setup.sh", str(uv), build],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "VIRTUAL_ENV": str(environment), "REFUSED": str(int(refused))},
    )
    log = Path(f"{uv}.log")
    told = log.read_text().splitlines() if log.exists() else []
    return done.returncode, done.stdout + done.stderr, told


def test_the_cpu_build_comes_without_cudas_libraries(tmp_path: Path) -> None:
    code, said, told = set_up(tmp_path, "cpu")
    assert code == 0, said
    torch, rest, own = told
    assert " --torch-backend cpu torch==" in torch
    assert " torchvision==" in torch
    assert own.endswith("--no-deps --editable .")
    lock = Path(rest.split()[-1]).read_text()
    assert "\nhydra-core==" in lock
    assert "--hash=sha256:" in lock
    for name in ("torch==", "torchvision==", "nvidia-", "triton==", "cuda-"):
        assert f"\n{name}" not in lock
    assert "\ntorch-fidelity==" in lock
    assert (tmp_path / "venv/.ready").read_text() == "cpu\n"


def test_an_index_that_cannot_be_reached_is_said_and_the_default_is_installed(
    tmp_path: Path,
) -> None:
    code, said, told = set_up(tmp_path, "cpu", refused=True)
    assert code == 0
    assert "the CPU build could not be installed from PyTorch's own index" in said
    assert any(line.endswith("--require-hashes --requirement requirements.lock") for line in told)
    assert (tmp_path / "venv/.ready").read_text() == "default\n"


@pytest.mark.parametrize(("before", "after"), [("default", "cpu"), ("cpu", "default")])
def test_another_build_takes_the_place_of_the_one_that_is_there(
    before: str, after: str, tmp_path: Path
) -> None:
    set_up(tmp_path, before)
    assert not any("uninstall" in line for line in set_up(tmp_path, before)[2])
    removed = set_up(tmp_path, after)[2][0].split()
    assert removed[:3] == ["pip", "uninstall", "--quiet"]
    assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= set(removed)
    assert not any(name.startswith("torch-") for name in removed)


def test_another_word_is_refused(tmp_path: Path) -> None:
    code, said, told = set_up(tmp_path, "cuda")
    assert (code, told) == (2, [])
    assert "TORCH=cuda is neither default nor cpu" in said

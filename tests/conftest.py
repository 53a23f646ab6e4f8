"""One torch thread, as tiny networks on shared cores run slower with more; runs for all tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from collections.abc import Generator, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import cast

import pytest
import torch
from support.runs import PIX2PIX, SNGAN, Crgan, tiny, train, unmeasured

from crgan_cli.commands import main
from crgan_cli.config.compose import compose
from crgan_cli.training.start import train_run

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds what other runs, or other versions, have kept; and none leaves anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with classes, a normal prior, an average and metrics at steps 2 and 4.

    Tests may add to its evaluations, and leave its other files as they are.
    """
    out = tmp_path_factory.mktemp("scored")
    train(out, *SNGAN, "architecture.conditional=true", "ema.decay=0.5")
    return out


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without any of these, of a uniform prior."""
    out = tmp_path_factory.mktemp("plain")
    typed = tiny(f"out={out}", *SNGAN, "architecture.prior=uniform", "steps=1")
    typed = unmeasured(typed)
    train_run(compose(typed), typed, {}, None)
    return out


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pix2pix with an average, grids and metrics at steps 2 and 4, by the command line.

    Tests may add to its evaluations, and leave its other files as they are.
    """
    out = tmp_path_factory.mktemp("translator")
    assert main.run_command(["train", *PIX2PIX, f"out={out}"]) == 0
    return out


@pytest.fixture
def crgan(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Crgan:
    """Answers a command line from an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def answer(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        for stream in (sys.stdout, sys.stderr):  # as `protect_streams` makes the real ones
            cast(TextIOWrapper, stream).reconfigure(errors="backslashreplace")
        code = main.run_command([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return answer


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write names that are not UTF-8 with escapes: pytest's processes exchange reports as UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report

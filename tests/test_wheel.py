"""The wheel holds all that a run needs: it trains from another folder, without the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.runs import PIPES, TINY, environment, unmeasured

from crgan_cli import __version__

pytest.importorskip("hatchling")
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
DEMO = "crgan_cli/data/demo/"
LARGEST_BYTES = 12_000_000  # of the demo's data, so that a package index takes the wheel

RUN = """
import runpy, sys
import crgan_cli
print(crgan_cli.__file__)
runpy.run_module("crgan_cli", run_name="__main__")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the working tree, without isolation and so without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(iter(WheelBuilder(str(ROOT)).build(directory=str(folder)))))


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where its files lie once it is installed."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def files(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern)}


def test_every_module_and_every_choice_is_in_it(wheel: Path, unpacked: Path) -> None:
    assert wheel.name == f"crgan-{__version__}-py3-none-any.whl"
    assert files(unpacked / "crgan_cli", "*.py") == files(ROOT / "crgan_cli", "*.py")
    assert files(unpacked / "crgan_cli" / "conf", "*.yaml") == files(ROOT / "conf", "*.yaml")
    assert (unpacked / "crgan_cli" / "conf" / "train.yaml").is_file()
    report = Path("crgan_cli", "report")
    for pattern in ("*.html", "*.css"):
        assert len(files(unpacked / report, pattern)) == 1
        assert files(unpacked / report, pattern) == files(ROOT / report, pattern)
    tables = Path("crgan_cli", "tables")
    assert files(unpacked / tables, "*.yaml") == files(ROOT / tables, "*.yaml")


def test_nothing_else_is_in_it(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == {
        "crgan_cli",
        f"crgan-{__version__}.dist-info",
    }
    assert not files(unpacked, "*.pyc")
    kinds = {path.suffix for path in (unpacked / "crgan_cli").rglob("*") if path.is_file()}
    assert kinds <= {".py", ".yaml", ".png", ".css", ".html", ""}


def test_the_demo_is_in_it_with_its_licence(unpacked: Path) -> None:
    demo = unpacked / DEMO
    assert {path.name for path in demo.iterdir()} == {
        "LICENSE-fashion-mnist",
        "fashion_mnist_test.png",
        "fashion_mnist_train.png",
    }
    assert sum(path.stat().st_size for path in demo.iterdir()) <= LARGEST_BYTES
    licence = (demo / "LICENSE-fashion-mnist").read_text()
    assert "Zalando" in licence
    assert "MIT" in licence
    licences = unpacked / f"crgan-{__version__}.dist-info" / "licenses"
    assert {path.name for path in licences.rglob("LICENSE*")} == {
        "LICENSE",
        "LICENSE-fashion-mnist",
    }


def test_it_trains_from_another_folder(unpacked: Path, tmp_path: Path) -> None:
    typed = unmeasured(TINY)
    done = subprocess.run(
        [sys.executable, "-c", RUN, "train", *typed, "steps=2"],
        cwd=tmp_path,
        env=environment({"PYTHONPATH": str(unpacked)}),
        **PIPES,
    )
    assert done.returncode == 0, done.stderr
    where, *said = done.stdout.splitlines()
    assert Path(where) == unpacked / "crgan_cli" / "__init__.py"
    assert said[0].startswith("finished 2 steps")
    (run,) = tmp_path.glob("outputs/*/*")
    assert (run / "checkpoints" / "step_00000002.pt").is_file()
    assert (
        '"commit": ""' in (run / "result.json").read_text()
    )  # not of a folder that lies around it

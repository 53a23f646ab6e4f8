"""Packages that offer names of their modules, imported on first use."""

import importlib
import re
import subprocess
import sys

import pytest

from crgan_cli.config.choices import conf_dir
from crgan_cli.system.lazy import read_exports

WINGS = ("networks", "gan", "data", "runs.loggers", "evaluation", "training")


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_gives_what_it_lists_and_nothing_else(wing: str) -> None:
    package = importlib.import_module(f"crgan_cli.{wing}")
    names = read_exports(package.__name__)
    assert names
    for name, (module, there) in names.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), there)
    with pytest.raises(AttributeError, match=rf"crgan_cli\.{wing}.*'Missing'"):
        _ = package.Missing


def test_yaml_names_the_wing_and_never_a_file_of_it() -> None:
    texts = [path.read_text(encoding="utf-8") for path in conf_dir().rglob("*.yaml")]
    paths = {path for text in texts for path in re.findall(r"crgan_cli\.[\w.]+", text)}
    assert paths
    wings = "|".join(WINGS)
    assert [path for path in paths if not re.fullmatch(rf"crgan_cli\.({wings})\.\w+", path)] == []


def test_importing_the_wings_imports_no_torch() -> None:
    wings = ", ".join(f"crgan_cli.{wing}" for wing in WINGS)
    code = f"import sys, {wings}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

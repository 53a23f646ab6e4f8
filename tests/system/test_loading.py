"""A line says that a library is loaded, while that takes seconds, and is gone afterwards."""

import importlib
import io
import sys
from pathlib import Path

import pytest

from crgan_cli.system.loading import LoadingNotice, announce_torch


@pytest.mark.parametrize("text", ["shown = sys.stderr.getvalue()\n", "raise ImportError('x')\n"])
def test_the_line_is_there_while_the_library_is_loaded(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_library.py").write_text(f"import sys\n{text}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "meta_path", [LoadingNotice("slow_library", "it"), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "slow_library", raising=False)
    if "raise" in text:
        with pytest.raises(ImportError, match="x"):
            importlib.import_module("slow_library")
    else:
        assert importlib.import_module("slow_library").shown == "loading it ..."
        del sys.modules["slow_library"]
    assert sys.stderr.getvalue() == f"loading it ...\r{' ' * 14}\r"
    assert not any(isinstance(finder, LoadingNotice) for finder in sys.meta_path)


def test_a_library_that_is_not_there_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [LoadingNotice("no_library", "it"), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_library")


@pytest.mark.parametrize(("terminal", "loaded"), [(True, False), (True, True), (False, False)])
def test_torch_is_announced_on_a_terminal_once(
    terminal: bool, loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    if not loaded:
        monkeypatch.delitem(sys.modules, "torch")
    announce_torch()
    assert isinstance(sys.meta_path[0], LoadingNotice) == (terminal and not loaded)

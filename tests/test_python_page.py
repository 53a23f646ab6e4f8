"""The code of docs/python.md runs as it stands there, from top to bottom."""

import contextlib
import io
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))

from docs_check import read_blocks  # noqa: E402


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in read_blocks(ROOT / "docs/python.md") if block.language == "python"]
    names: dict = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(compile(block.text, block.place, "exec"), names)
    assert len(blocks) == 9
    said = printed.getvalue()
    assert "torch.Size([64, 1, 32, 32]) torch.uint8" in said
    assert 'classes="sock": this generator has the classes 0 to 9 (0 t-shirt/top' in said
    assert {"shirt.png", "outputs"} == {path.name for path in tmp_path.iterdir()}
    assert names["logits"].shape == (8,)
    assert names["photos"].shape == (2, 1, 40, 56)
    assert names["photos"].dtype == torch.uint8
    assert sorted(len(row.runs) for row in names["report"].rows) == [1, 2]

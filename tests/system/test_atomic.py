"""A file is there whole or not at all."""

from pathlib import Path

import pytest

from crgan_cli.system.atomic import atomic_path, write_text


def test_a_failed_write_leaves_what_there_was(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    write_text(target, "first")
    with pytest.raises(FileNotFoundError), atomic_path(target) as partial:
        partial.write_text("half of the sec") and (tmp_path / "absent").read_text()
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]


def test_the_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "file") as partial:
        partial.write_text("all")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_text() == "all"

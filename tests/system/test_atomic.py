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


def test_two_writers_of_one_file_in_one_process_do_not_touch_each_other(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with atomic_path(file) as one:
        one.write_text("one, whole")
        with atomic_path(file) as other:
            other.write_text("other")
        assert file.read_text() == "other"
    assert file.read_text() == "one, whole"
    assert list(tmp_path.iterdir()) == [file]

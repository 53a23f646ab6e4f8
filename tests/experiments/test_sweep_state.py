"""The files of a sweep: what is damaged costs one job's line, not the sweep."""

from pathlib import Path

import pytest
from filelock import Timeout

from crgan_cli.errors import UserError
from crgan_cli.experiments.sweep_state import FOLDER, SweepJob, SweepState
from crgan_cli.experiments.throughput import FILE, Throughput, read_throughput
from crgan_cli.runs.status import Status

DAMAGE = (
    b"",
    b"\0\0",
    b'"\xff"',
    b"[1]",
    b"{}",
    b'{"number": "1", "name": "a", "folder": "b", "status": "failed"}',
    b'{"number": 1, "name": "a", "folder": "b", "status": "failed", "seconds": "long"}',
    b'{"number": 1, "name": "a", "folder": "b", "status": "failed", "colour": "red"}',
)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_a_job_is_left_out_and_said_once(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = SweepState(tmp_path, 2)
    state.clear()
    job = SweepJob(0, "seed=1", "0_seed=1", Status.FINISHED, seconds=3, value=2.5)
    state.write(job)
    (state.path / "1.json").write_bytes(damage)
    assert state.jobs() == [job]
    assert state.jobs() == [job]
    assert caplog.text.count("1.json is damaged") == 1


def test_a_damaged_throughput_is_none(tmp_path: Path) -> None:
    state = SweepState(tmp_path, 2)
    state.clear()
    (state.path / FILE).write_text('{"jobs": "two"}')
    assert read_throughput(state) is None
    good = '{"jobs": 1, "others": 0, "side_by_side": 1, "seconds": 2, "images": 8, '
    (state.path / FILE).write_text(good + '"images_per_second": 4.0, "of_a_job": 4.0}')
    assert read_throughput(state) == Throughput(1, 0, 1, 2.0, 8, 4.0, 4.0)


def test_a_sweep_is_not_cleared_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/0.json").touch()
    (tmp_path / FOLDER).symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="is a symbolic link"):
        SweepState(tmp_path, 2).clear()
    assert (tmp_path / "mine/0.json").exists()


def test_a_second_launch_is_refused_and_the_first_keeps_its_locks(tmp_path: Path) -> None:
    first, second = SweepState(tmp_path, 1), SweepState(tmp_path, 1)
    with first.launch():
        first.stop()
        with pytest.raises(UserError, match="another crgan trains the sweep"), second.launch():
            pass
        assert first.stopped
    job = first.lock_settings("a")
    with job, second.launch():  # of a launcher that was killed, whose job goes on
        assert not second.stopped
        with pytest.raises(Timeout):
            second.lock_settings("a").acquire(blocking=False)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"), SweepState(tmp_path / "file").launch():
        pass

"""What is said when a run fails: where it goes on, and only what is there."""

import errno
from pathlib import Path

import pytest

from crgan_cli.errors import NotFinite, RunFailed
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.outcome import recording_failure


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ((), "No checkpoint was saved before."),
        ((2, 10), "The last checkpoint is {}/checkpoints/step_00000010.pt."),
    ],
)
def test_a_failure_names_the_checkpoint_that_is_there(
    tmp_path: Path, saved: tuple[int, ...], said: str
) -> None:
    run = RunDir(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    for step in saved:
        (run.checkpoints / f"step_{step:08d}.pt").touch()
    with pytest.raises(NotFinite) as caught, recording_failure(run):
        raise NotFinite("loss/d became nan at step 7.")
    said = said.format(run.path)
    assert str(caught.value).startswith(f"loss/d became nan at step 7. {said} Try a smaller")
    assert said in run.read_result()["error"]
    with pytest.raises(RunFailed) as caught, recording_failure(run):
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/cache")
    assert f"writing to /elsewhere/cache failed: No space left on device. {said}" in str(
        caught.value
    )

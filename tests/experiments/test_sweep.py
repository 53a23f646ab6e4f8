"""Sweeps through the real command line: a job that fails, one that is cut, skipping, reporting."""

import csv
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

import pytest
from joblib import Parallel, delayed
from rich.console import Console
from support.runs import TINY, Crgan, command, different, environment, tiny
from support.runs import crgan as in_a_process

from crgan_cli.config.choices import Choices
from crgan_cli.config.sides import Sides
from crgan_cli.errors import Interrupted, UserError
from crgan_cli.experiments import parallel
from crgan_cli.experiments.check import SweepPlan, check_jobs
from crgan_cli.experiments.job import count_new_images, count_steps_done
from crgan_cli.experiments.launch import finish_sweep
from crgan_cli.experiments.sweep_state import SweepJob, SweepState, describe_unfinished, exit_code
from crgan_cli.experiments.sweep_table import format_finished, make_table, read_progress
from crgan_cli.experiments.throughput import (
    Throughput,
    format_throughput,
    max_parallel,
    read_throughput,
    write_throughput,
)
from crgan_cli.gan.stages import Stage, Stages
from crgan_cli.system import mps, threads

AXES = ("regularizer=none,cr", "seed=1,2", "ema.decay=null,0.5")
REORDERED = ("ema.decay=0.5,null", "seed=2,1", "regularizer=cr,none")
LAST = "checkpoints/step_00000006.pt"


def name(regularizer: str, seed: int, decay: str) -> str:
    return f"ema.decay={decay},regularizer={regularizer},seed={seed}"


JOBS = [
    name("none", 1, "null"),
    name("none", 1, "0.5"),
    name("none", 2, "null"),
    name("none", 2, "0.5"),
    name("cr", 1, "null"),
    name("cr", 1, "0.5"),
    name("cr", 2, "null"),
    name("cr", 2, "0.5"),
]


QUICK = "metrics.measures=[kid]"  # a Frechet distance of 1280 features takes longer than a job


def sweep(*words: str) -> list[str]:
    """The words of a sweep after `crgan`."""
    return ["train", "-m", *TINY, QUICK, *words]


def test_a_grid_with_a_failed_and_a_cut_job_is_resumed_and_reported(
    crgan: Crgan, tmp_path: Path
) -> None:
    """Begun by a process of its own, and gone on with in this one."""
    folder = tmp_path / "sweep"
    (folder / JOBS[3]).mkdir(parents=True)
    (folder / JOBS[3] / "notes.txt").write_text("somebody's")  # which a run does not write over
    first = in_a_process(*sweep(*AXES, "out=sweep"), cwd=tmp_path)
    assert first.returncode == 2, first.stderr
    assert f"job 4 ({JOBS[3]}) failed: the folder" in first.stderr
    assert "crgan train: 1 of 8 jobs failed:" in first.stderr
    assert "out=sweep" in first.stderr.splitlines()[-1]
    assert "regularizer=cr ema.decay=0.5" in first.stdout
    assert "(n=2)" in first.stdout
    assert sorted(path.name for path in folder.glob("*=*")) == sorted(JOBS)

    whole = shutil.copy(folder / JOBS[0] / LAST, tmp_path / "whole.pt")
    cut(folder / JOBS[0])
    (folder / JOBS[3] / "notes.txt").unlink()
    code, out, err = crgan(*sweep(*REORDERED, "out=sweep"))
    assert code == 0, err
    assert err.count("skipped in") == 6
    assert err.count("finished in") == 2
    assert "step_00000003.pt, step 3" in err  # the cut job was best there
    # the failed job showed all of its 6 steps of 4 images, the cut one those from step 3 on
    assert throughput_of(folder)[:3] == (2, 6, 1)
    assert throughput_of(folder).images == (6 + 3) * 4
    assert "2 jobs trained in" in out
    assert "6 more trained nothing to its end" in out
    assert different(Path(whole), folder / JOBS[0] / LAST) == []

    code, _, err = crgan("report", "sweep", "--format", "md,csv")
    assert code == 0, err
    with open(folder / "report" / "runs.csv", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 8
    with open(folder / "report" / "rows.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert "(n=2)" in (folder / "report" / "report.md").read_text(encoding="utf-8")


def throughput_of(folder: Path) -> Throughput:
    """What the newest start of a sweep wrote down."""
    trained = read_throughput(SweepState(folder))
    assert trained is not None
    return trained


def cut(run: Path) -> None:
    """As a kill after the first checkpoint leaves a run."""
    for step in (4, 6):
        (run / f"checkpoints/step_{step:08d}.pt").unlink()
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "status": "running", "step": 2}))


def test_on_error_stop_starts_no_further_job(crgan: Crgan, tmp_path: Path) -> None:
    (tmp_path / "sweep" / "seed=1").mkdir(parents=True)
    (tmp_path / "sweep" / "seed=1" / "notes.txt").write_text("somebody's")
    code, _, err = crgan(*sweep("seed=1,2", "out=sweep", "sweep.on_error=stop"))
    assert code == 2
    assert "job 2 (seed=2): not started" in err
    assert not (tmp_path / "sweep" / "seed=2" / "config.yaml").exists()


def test_jobs_side_by_side_are_told_of_as_well(tmp_path: Path) -> None:
    """Through Hydra's joblib launcher, whose jobs are in other processes."""
    (tmp_path / "sweep" / "seed=2").mkdir(parents=True)
    (tmp_path / "sweep" / "seed=2" / "notes.txt").write_text("somebody's")
    side = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "engine.threads=1")
    done = in_a_process(*sweep("seed=1,2,3", "out=sweep", *side), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "job 2 (seed=2)" in done.stderr
    assert "1 of 3 jobs failed" in done.stderr
    for run in ("seed=1", "seed=3"):
        assert json.loads((tmp_path / "sweep" / run / "result.json").read_text())["step"] == 6
    assert "(n=2)" in done.stdout
    trained = throughput_of(tmp_path / "sweep")
    assert (trained.jobs, trained.others, trained.images) == (2, 1, 2 * 6 * 4)
    assert 0 < trained.images_per_second < trained.of_a_job * 2
    assert format_throughput(trained) in done.stdout


@pytest.mark.parametrize("everybody", [True, False], ids=["terminal", "parent"])
def test_ctrl_c_lets_jobs_side_by_side_save(everybody: bool, tmp_path: Path) -> None:
    """Whether it reaches all processes, as from a terminal, or the sweep alone."""
    side = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "engine.threads=1")
    never = [f"{what}.every=100000" for what in ("checkpoint", "metrics", "samples")]
    typed = command("train", "-m", *tiny("steps=100000", *never), "seed=1,2,3", "out=sweep", *side)
    with open(tmp_path / "said", "w") as said:
        sweeping = subprocess.Popen(
            typed, cwd=tmp_path, env=environment(), stdout=said, stderr=said, start_new_session=True
        )
    runs = [tmp_path / "sweep" / name for name in ("seed=1", "seed=2")]
    ends = time.monotonic() + 600
    while time.monotonic() < ends and not all(map(steps_logged, runs)):
        time.sleep(0.2)
    (os.killpg if everybody else os.kill)(sweeping.pid, signal.SIGINT)
    assert sweeping.wait(300) == 130, (tmp_path / "said").read_text()
    for run in runs:
        result = json.loads((run / "result.json").read_text())
        assert result["status"] == "interrupted"
        (saved,) = (run / "checkpoints").glob("step_*.pt")
        assert int(saved.stem[5:]) >= steps_logged(run) > 0
    assert not (tmp_path / "sweep" / "seed=3" / "config.yaml").exists()
    assert "Resume with the same command with out=sweep" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("failure", [None, RuntimeError("a worker was terminated")])
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_jobs_is_an_interruption_too(
    kind: signal.Signals,
    failure: Exception | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No job is there to hear it, or it ends an idle process of the launcher."""
    monkeypatch.setattr(parallel, "child_processes", list)
    state, before = SweepState(tmp_path, 3), signal.getsignal(kind)
    state.clear()

    def hear() -> None:
        with parallel.forward_first_signal(state):
            signal.raise_signal(kind)
            if failure:
                raise failure

    with pytest.raises(Interrupted) as stopped:
        hear()
    assert stopped.value.signum == kind
    assert state.stopped
    assert signal.getsignal(kind) == before


def test_a_sweep_without_a_signal_ends_as_its_body_does(tmp_path: Path) -> None:
    with parallel.forward_first_signal(SweepState(tmp_path, 3)):
        pass
    with pytest.raises(ZeroDivisionError), parallel.forward_first_signal(SweepState(tmp_path, 3)):
        _ = 1 / 0


def steps_logged(run: Path) -> int:
    """The step of the newest line of a run's metrics.jsonl."""
    return read_progress(run).step


def test_a_key_that_one_of_the_regularizers_lacks_trains_nothing(tmp_path: Path) -> None:
    words = sweep("regularizer=none,cr", "regularizer.lambda_cr=1,5", "out=sweep")
    done = in_a_process(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Unknown key 'lambda_cr' in regularizer. It is a key of" in done.stderr
    assert not (tmp_path / "sweep").exists()


# --- what jobs in processes of their own have around them -----------------------------------------

BESIDE = ("seed=1,2,3", "hydra/launcher=joblib")


def planned(*words: str) -> SweepPlan:
    plan = check_jobs(words, Choices(), multirun=True, whole=False)
    assert plan is not None
    return plan


def test_a_sweep_knows_how_many_processes_run_its_jobs() -> None:
    assert planned(*BESIDE, "hydra.launcher.n_jobs=2").workers == 2
    assert planned(*BESIDE, "hydra.launcher.n_jobs=9").workers == 3  # there are no more jobs
    assert planned("seed=1,2,3").workers == 0
    with pytest.raises(UserError, match="n_jobs=0 runs nothing: give the number"):
        planned(*BESIDE, "hydra.launcher.n_jobs=0")


@pytest.mark.parametrize(
    ("words", "shared"),
    [
        (["hydra.launcher.n_jobs=2", "sweep.per_device=2"], True),
        (["hydra.launcher.n_jobs=2", "sweep.per_device=2", "device=cuda:0"], True),
        (["hydra.launcher.n_jobs=2"], False),
        (["hydra.launcher.n_jobs=1", "sweep.per_device=2"], False),
        (["hydra.launcher.n_jobs=2", "sweep.per_device=2", "sweep.mps=never"], False),
        (["hydra.launcher.n_jobs=2", "sweep.per_device=2", "device=cpu"], False),
    ],
)
def test_jobs_share_a_gpu_by_mps_where_they_share_one(words: list[str], shared: bool) -> None:
    assert planned(*BESIDE, *words).shared == shared


@pytest.mark.parametrize(("count", "shared"), [(1, True), (1, False), (0, True)])
def test_mps_is_there_while_jobs_share_a_gpu(
    count: int, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Path] = []

    @contextmanager
    def serving(folder: Path) -> Iterator[None]:
        served.append(folder)
        yield
        served.append(folder)

    monkeypatch.setattr(parallel, "count_visible_gpus", lambda: count)
    monkeypatch.setattr(mps, "mps_daemon", serving)
    with parallel.parallel_jobs(SweepState(tmp_path), 0, shared=shared):
        assert served == [tmp_path / ".sweep"] * (count * shared)
    assert served == [tmp_path / ".sweep"] * (2 * count * shared)


def test_joblibs_processes_share_the_cores_and_end_with_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "ROOT", tmp_path)  # where nothing is known of cores and groups
    monkeypatch.setattr(threads, "allowed_cpus", lambda: set(range(9)))
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    with parallel.parallel_jobs(SweepState(tmp_path), 2, shared=False):
        workers = Parallel(n_jobs=2)
        given = list(workers([delayed(os.getenv)(threads.VARIABLE)] * 2))
        (process,) = workers([delayed(os.getpid)()])
        assert process in parallel.child_processes()
        monkeypatch.setattr(parallel, "TASKS", tmp_path)  # as on macOS
        assert process in parallel.child_processes()
    assert given == ["4", "4"]  # joblib alone would count this machine's
    with pytest.raises(ProcessLookupError):
        os.kill(cast("int", process), 0)


def test_a_signal_finds_what_another_thread_has_started() -> None:
    def start() -> BaseProcess:
        child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        child.start()
        return child

    with ThreadPoolExecutor(1) as pool:  # its thread lives on, as that of joblib
        child = pool.submit(start).result()
        try:
            assert child.pid in parallel.child_processes()
        finally:
            child.kill()
            child.join()
    assert child.pid not in parallel.child_processes()


# --- the board ------------------------------------------------------------------------------------


def job(number: int, status: str, **more: object) -> SweepJob:
    return SweepJob(number, f"seed={number}", f"seed={number}", status, **more)  # type: ignore


def test_a_board_keeps_the_newest_state_of_each_job(tmp_path: Path) -> None:
    board = SweepState(tmp_path, total=3)
    board.clear()
    board.write(job(1, "running"))
    board.write(job(0, "running"))
    board.write(job(0, "finished", seconds=60.0, value=12.5))
    assert [(each.number, each.status) for each in board.jobs()] == [
        (0, "finished"),
        (1, "running"),
    ]
    (tmp_path / ".sweep" / "2.json").write_text('{"numb')  # being written
    assert len(board.jobs()) == 2
    said = format_finished(board.jobs()[0], board)
    assert said == (
        "job 0 (seed=0) finished in 1 min 0 s, 12.50; "
        "2 of 3 jobs: 1 finished, 1 running, 1 to come, about 1 min 0 s"
    )
    assert (
        describe_unfinished(tmp_path)
        == f"of the 3 jobs of the sweep {tmp_path}: 1 running, 1 not begun"
    )
    board.clear()
    assert board.jobs() == []
    for number in range(3):
        board.write(job(number, "skipped"))
    assert describe_unfinished(tmp_path) == describe_unfinished(tmp_path / "no sweep") == ""


def test_a_throughput_by_hand(tmp_path: Path) -> None:
    """Three jobs in 20 s, of which the second overlaps with the others, and two that count not."""
    board = SweepState(tmp_path, total=5)
    board.clear()
    write_throughput(board, 20.0)
    assert read_throughput(board) is None  # nothing was trained
    board.write(job(0, "finished", images=600, training=6.0, began=100.0, ended=110.0))
    board.write(job(1, "finished", images=800, training=4.0, began=105.0, ended=115.0))
    board.write(job(2, "finished", images=600, training=2.0, began=110.0, ended=120.0))
    board.write(job(3, "skipped", images=0, began=100.0, ended=120.0))
    board.write(job(4, "failed", began=100.0))
    write_throughput(board, 20.0)
    trained = throughput_of(tmp_path)
    assert trained == Throughput(3, 2, 2, 20.0, 2000, 100.0, 200.0)
    assert format_throughput(trained) == (
        "3 jobs trained in 20 s, at most 2 side by side: 100 images/s together, 200 images/s a job "
        "on average; 2 more trained nothing to its end"
    )
    assert len(board.jobs()) == 5


@pytest.mark.parametrize(
    ("spans", "most"),
    [([], 0), ([(1, 2)], 1), ([(1, 2), (2, 3)], 1), ([(1, 9), (2, 5), (3, 4), (5, 6)], 3)],
)
def test_spans_overlap(spans: list[tuple[float, float]], most: int) -> None:
    assert max_parallel(spans) == most


def test_images_of_a_run_that_was_gone_on_with_are_those_since(tmp_path: Path) -> None:
    result, stages = {"step": 10, "seconds": 9.0}, Stages.single(32, 64, n_dis=5)
    assert count_new_images(stages, 0, result, 12.0) == (3200, 9.0)
    assert count_new_images(stages, 4, result, 12.0) == (6 * 5 * 64, 12.0)
    assert count_new_images(stages, 10, result, 12.0) == (0, 0.0)
    assert count_new_images(stages, 0, {}, 12.0) == (0, 0.0)
    first, second = Stage(Sides(4, 4), 0, 0, 128), Stage(Sides(8, 8), 6, 2, 8, images_before=768)
    assert count_new_images(Stages([first, second], 1), 5, result, 12.0) == (128 + 4 * 8, 12.0)
    assert count_steps_done(tmp_path) == 0
    (tmp_path / "checkpoints").mkdir()
    for step in (200, 1000):
        (tmp_path / "checkpoints" / f"step_{step:08d}.pt").touch()
    assert count_steps_done(tmp_path) == 1000


@pytest.mark.parametrize(("codes", "code"), [([], 0), ([2, 2], 2), ([1, 2], 1), ([1], 1)])
def test_the_exit_code_is_of_the_worst_failure(codes: list[int], code: int) -> None:
    assert exit_code([0, *codes]) == code


@pytest.mark.parametrize(
    ("total", "statuses", "code", "said"),
    [
        (2, ["finished", "skipped"], 0, ""),
        (None, ["finished"], 0, ""),
        (2, ["finished"], 1, "1 of 2 jobs ended without a record:"),
        (2, [], 1, "2 of 2 jobs ended without a record:"),
        (None, [], 1, "1 of 1 jobs ended without a record:"),
        (2, ["finished", "running"], 1, "1 of 2 jobs ended without a record:"),
        (2, ["finished", "not started"], 1, "1 of 2 jobs not started:"),
        (3, ["failed", "not started"], 1, "1 of 3 jobs failed, 1 not started, 1 ended without"),
        (2, ["failed", "not started"], 2, "1 of 2 jobs failed, 1 not started:"),
    ],
)
def test_a_sweep_ends_well_only_if_each_job_has_said_so(
    total, statuses, code, said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    state = SweepState(Path("sweep"), total)
    state.clear()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # as a job could do
    for number, status in enumerate(statuses, start=1):
        state.write(job(number, status, code=2 if status == "failed" else 0))
    monkeypatch.chdir(tmp_path)
    assert finish_sweep(state) == code
    out, err = capsys.readouterr()
    assert ("runs, with their samples: sweep (no metrics" in out) == ("finished" in statuses)
    assert said in err
    assert bool(err) == bool(code)
    assert "out=sweep" in err or not code


def test_a_device_is_had_by_as_many_jobs_as_may_share_it(tmp_path: Path) -> None:
    board = SweepState(tmp_path)
    board.clear()
    taken: list[int] = []
    with (
        board.acquire_device(2, 2) as a,
        board.acquire_device(2, 2) as b,
        board.acquire_device(2, 2) as c,
    ):
        with board.acquire_device(2, 2) as d:
            assert [a, b, c, d] == [0, 1, 0, 1]  # spread first, then shared

            def fifth() -> None:
                with board.acquire_device(2, 2) as index:
                    taken.append(index)

            waiting = threading.Thread(target=fifth)
            waiting.start()
            waiting.join(0.2)
            assert not taken
        waiting.join(10)
    assert taken == [1]


def test_a_live_table_tells_how_far_each_job_is(tmp_path: Path) -> None:
    board = SweepState(tmp_path, total=4)
    board.clear()
    run = tmp_path / "seed=1"
    run.mkdir()
    lines = [
        {"kind": "train", "step": 100, "images_seen": 1600, "speed/images_per_second": 160.0},
        {"kind": "eval", "step": 100, "images_seen": 1600, "fid": 41.25},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text("x" * 9000 + "\n" + text + '{"kind": "tr')
    assert read_progress(run) == (100, 10.0, "41.25", 160.0)
    assert read_progress(tmp_path / "absent") == (0, 0.0, "", 0.0)
    lines.append({"kind": "train", "step": 110, "images_seen": 1680, "speed/images_per_second": 80})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_progress(run) == (110, 10.0, "41.25", 80), "a later stage, of smaller batches"
    (run / "metrics.jsonl").write_text(text)
    board.write(job(0, "finished", seconds=30.0, value=39.5))
    board.write(job(1, "running"))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(make_table(board, steps=700, seconds=30.0))
    shown = console.export_text()
    waiting = "2 of 4 jobs: 1 finished, 1 running, 2 to come, about 1 min 0 s"
    assert f"{waiting}; 160 images/s together" in shown
    assert "100 / 700" in shown
    assert "41.25" in shown
    assert "1 min 0 s" in shown.splitlines()[-1]  # 600 steps at 10 a second

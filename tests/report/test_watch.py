"""Runs that are watched: only what has changed is read, and the page follows until all end."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from support.run_folders import write_run
from support.runs import Crgan, refused

from crgan_cli.experiments.sweep_state import SweepJob, SweepState
from crgan_cli.report import watch
from crgan_cli.report.collect import NothingMeasured
from crgan_cli.report.watch import RunWatcher
from crgan_cli.runs.status import Status

RELOADS = '<meta http-equiv="refresh" content="5">'


def add_evaluation(run: Path, step: int, fid: float) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"kind": "eval", "step": step, "fid": fid}) + "\n")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that were read, in this order."""
    names: list[str] = []
    read_run = watch.read_run

    def counted(folder: Path, metric: str | None) -> object:
        names.append(folder.name)
        return read_run(folder, metric)

    monkeypatch.setattr(watch, "read_run", counted)
    return names


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Path]:
    """A run that is evaluated once, and whose process lives."""
    run = write_run(tmp_path / "runs" / "a", {100: 70.0}, status="running")
    with FileLock(run / ".lock"):
        yield run


# --- what is read ---------------------------------------------------------------------------------


def test_only_runs_that_changed_are_read_again(tmp_path: Path, read: list[str]) -> None:
    a, b = (write_run(tmp_path / name, {100: 70.0}, seed=i) for i, name in enumerate("ab"))
    watcher = RunWatcher([tmp_path])
    assert [watcher.look(), watcher.look(), watcher.look()] == [True, False, False]
    assert read == ["a", "b"]
    add_evaluation(b, 200, 60.0)
    assert [watcher.look(), watcher.look()] == [True, False]
    assert read == ["a", "b", "b"]
    assert [run.evals[-1]["fid"] for run in watcher.runs] == [70.0, 60.0]
    write_run(tmp_path / "later" / "c", {100: 50.0}, seed=3)
    assert watcher.look()
    assert read == ["a", "b", "b", "c"]
    shutil.rmtree(a)
    assert watcher.look()
    assert [run.path.name for run in watcher.runs] == ["b", "c"]
    assert len(read) == 4


@pytest.mark.parametrize("name", ["samples/step_00000100.png", "artefacts/step_1/leakage.json"])
def test_new_samples_and_measurements_are_a_change(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {100: 70.0})
    (run / name).parent.mkdir(parents=True)
    watcher = RunWatcher([run])
    assert [watcher.look(), watcher.look()] == [True, False]
    (run / name).write_text("{}")
    assert [watcher.look(), watcher.look()] == [True, False]


def test_a_killed_run_has_ended_though_no_file_changed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {100: 70.0}, status="running")
    watcher = RunWatcher([run])
    with FileLock(run / ".lock"):
        assert watcher.look()
        assert [watcher.look(), watcher.is_going] == [False, True]
    assert [watcher.look(), watcher.is_going] == [True, False]
    assert watcher.runs[0].status == Status.INTERRUPTED
    assert not watcher.look()


def test_runs_without_metrics_are_said_to_have_none_at_every_look(tmp_path: Path) -> None:
    watcher = RunWatcher([tmp_path])
    for _ in range(2):
        with pytest.raises(NothingMeasured, match="is empty"):
            watcher.look()
    run = write_run(tmp_path / "a", {}, status="failed")
    for _ in range(2):
        with pytest.raises(NothingMeasured, match="has been evaluated yet"):
            watcher.look()
    assert not watcher.is_going
    add_evaluation(run, 100, 60.0)
    assert watcher.look()


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what happens between the looks, in turn. A look more than these fails."""

    def follow(*actions: Callable[[], object]) -> None:
        left = iter(actions)

        def sleep(seconds: float) -> None:
            next(left, lambda: pytest.fail("it goes on"))()

        monkeypatch.setattr("crgan_cli.commands.report.time.sleep", sleep)

    return follow


def finish(run: Path) -> None:
    (run / "result.json").write_text(json.dumps({"status": "finished", "step": 300}))


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def test_the_page_follows_the_runs_until_all_have_ended(
    going: Path, crgan: Crgan, between: Callable[..., None]
) -> None:
    page = going.parent / "report" / "report.html"
    pages: list[str] = []
    files: list[int] = []

    def look() -> None:
        pages.append(page.read_text(encoding="utf-8"))
        files.append(page.stat().st_ino)

    def begin_another() -> None:
        write_run(going.parent / "b", {100: 44.25}, settings={"regularizer.lambda_cr": 1})

    between(
        look,
        lambda: [look(), add_evaluation(going, 200, 61.75)],
        lambda: [look(), begin_another()],
        lambda: [look(), finish(going)],
    )
    code, out, err = crgan("report", "--watch", going.parent)
    assert (code, err) == (0, "")
    assert files[0] == files[1], "nothing changed, nothing written"
    assert ["61.75" in each for each in pages] == [False, False, True, True]
    assert ["44.25" in each for each in pages] == [False, False, False, True]
    assert all(RELOADS in each and "loads itself again every 5 s" in each for each in pages)
    last = page.read_text(encoding="utf-8")
    assert "refresh" not in last
    assert "loads itself" not in last
    assert out.splitlines() == [
        f"{page}: 1 running",
        f"{page}: 1 running",
        f"{page}: 1 running, 1 finished",
        f"{page}: 2 finished",
    ]
    assert [file.name for file in page.parent.iterdir()] == ["report.html"]


def test_ctrl_c_ends_it_well_and_the_page_rests(
    going: Path, crgan: Crgan, between: Callable[..., None], tmp_path: Path
) -> None:
    between(press_ctrl_c)
    words = ("report", going, "--watch", "--every", "0.5", "--out", "here")
    code, out, err = crgan(*words)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 2
    assert "refresh" not in (tmp_path / "here" / "report.html").read_text(encoding="utf-8")


def test_it_waits_for_the_first_evaluation_and_says_so_once(
    tmp_path: Path, crgan: Crgan, between: Callable[..., None]
) -> None:
    run = write_run(tmp_path / "runs" / "a", {}, status="running")
    between(
        lambda: [],
        lambda: [add_evaluation(run, 100, 70.0), finish(run)],
    )
    with FileLock(run / ".lock"):
        code, out, err = crgan("report", "--watch", "runs")
    assert code == 0
    assert err.count("waiting: none of the 1 runs has been evaluated yet") == 1
    assert out.splitlines() == ["runs/report/report.html: 1 finished"]


def test_runs_that_ended_without_metrics_are_refused(tmp_path: Path, crgan: Crgan) -> None:
    write_run(tmp_path / "a", {}, status="failed")
    refused(crgan("report", "--watch", "a"), "none of the 1 runs has been evaluated yet")
    refused(crgan("report", "--watch", "gone"), "there is nothing at gone")


def test_a_sweep_goes_on_between_two_of_its_jobs(
    tmp_path: Path, crgan: Crgan, between: Callable[..., None]
) -> None:
    sweep = tmp_path / "sweep"
    write_run(sweep / "a", {100: 70.0})
    state = SweepState(sweep, 2)
    state.clear()
    state.write(SweepJob(1, "a", "a", Status.FINISHED))
    second = SweepJob(2, "b", "b", Status.RUNNING)
    between(
        lambda: state.write(second),
        lambda: state.write(second._replace(status=Status.FAILED)),
    )
    code, out, _ = crgan("report", "--watch", "sweep")
    assert code == 0
    assert len(out.splitlines()) == 2
    page = (sweep / "report" / "report.html").read_text(encoding="utf-8")
    assert "of the 2 jobs of the sweep sweep: 1 failed" in page
    assert "refresh" not in page


def test_a_sweep_that_was_stopped_has_ended(
    tmp_path: Path, crgan: Crgan, between: Callable[..., None]
) -> None:
    write_run(tmp_path / "sweep" / "a", {100: 70.0})
    state = SweepState(tmp_path / "sweep", 3)
    state.clear()
    state.stop()
    between()
    assert crgan("report", "--watch", "sweep")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "2"], "--every SECONDS is of --watch"),
        (["--watch", "--every", "0"], "'0' is not a number above 0"),
        (["--watch", "--paper", "p", "--format", "csv"], "leave out --format and --paper"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    words: list[str], said: str, going: Path, crgan: Crgan
) -> None:
    refused(crgan("report", going, *words), said)

"""What a person watching sees."""

import logging
from types import SimpleNamespace

import pytest

from crgan_cli.system import progress
from crgan_cli.system.crowding import CrowdWatch
from crgan_cli.system.progress import EvalProgress, TrainingProgress


class Time:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "crgan_cli")
    return caplog


def at(watch: TrainingProgress, clock: Time, seconds: float, step: int) -> None:
    clock.seconds = seconds
    watch.advance(step)
    watch.show_speed(640.0)


def test_plain_lines_come_at_most_every_ten_seconds(
    clock: Time, said: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrainingProgress(100, step=0, crowd=None) as watch:
        watch.begin()
        for seconds in range(1, 26):
            at(watch, clock, seconds, seconds)
        watch.show_metric("fid", 12.3456)
        at(watch, clock, 30, 50)
    assert said.messages == [
        "step 10 of 100, 640 images/s, 1 min 30 s left",
        "step 20 of 100, 640 images/s, 1 min 20 s left",
        "step 50 of 100, 640 images/s, fid 12.35, 30 s left",
    ]
    assert capsys.readouterr() == ("", "")


def test_a_resumed_run_counts_its_own_steps_and_no_preparation(
    clock: Time, said: pytest.LogCaptureFixture
) -> None:
    watch = TrainingProgress(100, step=80, crowd=None)
    clock.seconds = 500.0  # the real images are measured
    watch.begin()
    at(watch, clock, 510.0, 90)
    assert said.messages == ["step 90 of 100, 10 s left"]  # no window of steps has ended yet


def test_a_terminal_has_one_live_line_and_no_plain_ones(
    clock: Time,
    said: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with TrainingProgress(100, step=0, crowd=None) as watch:
        assert watch.live
        watch.show_metric("fid", 12.3456)
        at(watch, clock, 60, 40)
        watch.line.refresh()
        watch.show_scoring(3, 8)
        watch.line.refresh()
    shown = capsys.readouterr()
    assert said.messages == []
    assert shown.out == ""
    assert "640 images/s fid 12.35" in shown.err
    assert "40/100" in shown.err
    assert "scoring" in shown.err
    assert "3/8" in shown.err
    assert shown.err.count("\n") <= 2  # it is drawn over itself


def test_after_scoring_the_line_shows_the_steps_again() -> None:
    watch = TrainingProgress(100, step=0, crowd=None)
    watch.advance(40)
    watch.show_scoring(3, 8)
    (task,) = (task for task in watch.line.tasks if task.visible)
    assert (task.description, task.completed, task.total) == ("scoring", 3, 8)
    watch.show_scoring(8, 8)
    (task,) = (task for task in watch.line.tasks if task.visible)
    assert (task.description, task.completed, task.total) == ("step", 40, 100)


def test_scoring_on_its_own_writes_nothing_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with EvalProgress(None) as scoring:
        scoring.show(3, 8)
    (task,) = scoring.line.tasks
    assert (task.completed, task.total) == (3, 8)
    assert capsys.readouterr() == ("", "")


def test_plain_lines_of_images_say_the_time_left(
    clock: Time, said: pytest.LogCaptureFixture
) -> None:
    with EvalProgress(None, "translating") as watch:
        for done in range(1, 4):
            clock.seconds = 6.0 * done
            watch.show(done, 4)
    assert said.messages == ["translating: 2 of 4, 12 s left"]


def test_the_time_left_follows_the_recent_speed(
    clock: Time, said: pytest.LogCaptureFixture
) -> None:
    """Fast for five minutes, then a hundred times slower: soon the line says so."""
    watch = TrainingProgress(10_000, step=0, crowd=None)
    watch.begin()
    for second in range(1, 301):
        at(watch, clock, second, 25 * second)
    assert said.messages[-1].endswith("1 min 40 s left")
    for number in range(1, 17):
        at(watch, clock, 300 + 4 * number, 7500 + number)
    assert said.messages[-1] == "step 7515 of 10000, 640 images/s, 2 h 45 min left"


def test_steps_to_come_count_by_what_they_cost(clock: Time, said: pytest.LogCaptureFixture) -> None:
    """60 cheap steps, then 40 of ten times the cost, as in a run whose networks grow."""
    watch = TrainingProgress(100, step=0, crowd=None, costs=[(0, 2.0), (60, 20.0)])
    watch.begin()
    for second in range(1, 21):
        at(watch, clock, second, second)
    assert said.messages[-1].endswith("7 min 20 s left")  # 40 s and 400 s
    for second in range(21, 61):
        at(watch, clock, second, second)
    for number in range(1, 5):
        at(watch, clock, 60 + 10 * number, 60 + number)
    assert said.messages[-1].endswith("6 min 0 s left")  # 36 of 10 s


def test_pauses_count_by_their_mean_and_not_as_a_slow_step(
    clock: Time, said: pytest.LogCaptureFixture
) -> None:
    """One evaluation of 10 minutes in 100 s of training: the rest takes as much again."""
    watch = TrainingProgress(200, step=0, crowd=None)
    watch.begin()
    for second in range(1, 100):
        at(watch, clock, second, second)
    with watch.paused():
        clock.seconds += 600
    at(watch, clock, 700, 100)
    assert said.messages[-1].endswith("11 min 40 s left")


def test_training_takes_the_time_since_its_begin_without_pauses(clock: Time) -> None:
    watch = TrainingProgress(200, step=0, crowd=None)
    clock.seconds = 100
    watch.begin()
    clock.seconds += 4
    with watch.paused():
        clock.seconds += 1000
    clock.seconds += 1
    assert watch.training_seconds() == 5


def test_the_time_left_of_a_work_counts_no_work_before(
    clock: Time, said: pytest.LogCaptureFixture
) -> None:
    """Real images take 1 s each, generated ones 5 s."""
    with EvalProgress(None) as watch:
        for done in range(1, 11):
            clock.seconds = done
            watch.show(done, 10)
        for done in range(1, 4):
            clock.seconds = 10 + 5 * done
            watch.show(done, 10)
    assert said.messages == ["scoring: 10 of 10, 0 s left", "scoring: 2 of 10, 40 s left"]


class Crowd(CrowdWatch):
    """Remembers the looks, and says something at one of them."""

    def __init__(self, speaks_at: int) -> None:
        super().__init__(lambda: 2, cpus=2, measure=lambda: None)
        self.looks: list[tuple[str, float, float]] = []
        self.speaks_at = speaks_at

    def look(self, work: str, seconds: float, speed: float) -> str | None:
        self.looks.append((work, seconds, speed))
        return "others" if len(self.looks) == self.speaks_at else None


def test_training_looks_at_others_every_ten_seconds_of_steps_or_of_scoring(
    clock: Time, said: pytest.LogCaptureFixture
) -> None:
    crowd = Crowd(speaks_at=2)
    watch = TrainingProgress(100, step=0, crowd=crowd)
    watch.begin()
    for second in range(1, 16):
        at(watch, clock, second, 2 * second)
    with watch.paused():
        clock.seconds += 20
    at(watch, clock, 40, 40)
    assert crowd.looks == [("steps", 10, 2), ("steps", 30, 2)]
    assert said.messages.count("others") == 1
    with watch.paused():
        for second in range(41, 54):
            clock.seconds = second
            watch.show_scoring(5 * (second - 40), 65)
    for second in range(54, 65):
        at(watch, clock, second, second)
    assert crowd.looks[2:] == [("scoring", 10, 5), ("steps", 10, 1)]


def test_what_counts_images_looks_at_others_too_and_apart_for_each_work(
    clock: Time, said: pytest.LogCaptureFixture
) -> None:
    crowd = Crowd(speaks_at=1)
    with EvalProgress(crowd) as watch:
        for done, total in ((10, 30), (20, 30), (30, 30), (1, 9), (2, 9), (3, 9)):
            clock.seconds += 6
            watch.show(done, total)
    assert crowd.looks == [("scoring 1", 12, 10 / 6), ("scoring 2", 12, 1 / 6)]
    assert said.messages.count("others") == 1

"""The questions to a GPU, rehearsed on a CPU: they run, they see what is wrong, and they say it."""

import importlib
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from support.tapes import Taped

from crgan_cli.commands import main
from crgan_cli.errors import UserError
from crgan_cli.gan.types import BatchInputs, TurnLog
from crgan_cli.training.engine.eager import Eager, Turn
from crgan_cli.training.engine.graphs import Captured

sys.path.append(str(Path(__file__).parents[2] / "scripts"))  # where it finds its own modules


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script for a CPU, with the smallest of its games, and commands in this process."""
    monkeypatch.setenv("CHECK_DEVICE", "cpu")
    monkeypatch.delitem(sys.modules, "gpu_check", raising=False)
    script = importlib.import_module("gpu_check")

    def crgan(*words: str) -> None:
        assert main.run_command(list(words)) == 0

    monkeypatch.setattr(script, "crgan", crgan)
    monkeypatch.setattr(script, "GAMES", script.GAMES[:1])
    unmeasured = tuple(
        word for word in script.RUN if not word.startswith(("metrics.", "extractor."))
    )
    monkeypatch.setattr(script, "RUN", [*unmeasured, "metrics=none"])
    return script


class Refusing(Taped):
    """While a turn is captured, `item()` fails, with another method's error of PyTorch's own.

    Without a tape, whose lines would be named in place of the script's.
    """

    def record(self, run: Callable[[], TurnLog]) -> Captured:
        with patch.object(torch.Tensor, "item", torch.Tensor.crow_indices):
            return Captured(lambda: None, lambda: None, run())


class Off(Eager):
    """Logs other numbers than it should."""

    def run_turn(self, turn: Turn, inputs: BatchInputs) -> TurnLog:
        done = super().run_turn(turn, inputs)
        return done._replace(values=done.values + 1)


@pytest.fixture
def graphs(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, and engine=auto records turns instead of CUDA graphs."""
    monkeypatch.setattr("crgan_cli.training.engine.auto.Eager", Taped)
    monkeypatch.setattr(check, "ON_GPU", True)
    return check


def test_both_players_turns_are_captured(graphs: ModuleType) -> None:
    assert graphs.captured() == "kinds of turns that were captured: sndcgan 2"


def test_a_turn_that_is_not_captured_fails(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ON_GPU", True)
    with pytest.raises(AssertionError, match=r"sndcgan: \[\]"):
        check.captured()


def test_graphs_are_compared_with_eager(
    graphs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = ("sndcgan", "[cr,r1]", "regularizer.every=2")
    monkeypatch.setattr(graphs, "GAMES", (lazy,))
    assert graphs.bits() == "1 games, 12 steps: graphs and eager are equal bit by bit"


def test_other_logged_numbers_fail(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crgan_cli.training.engine.auto.Eager", Off)
    with pytest.raises(AssertionError, match="sndcgan: the logged numbers differ"):
        check.bits()


def test_gradients_are_compared_with_the_cpus(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check.gradients().startswith("gradients are the CPU's; farthest: 0.0e+00")
    on_cpu, here = {"w": torch.ones(4)}, {"w": torch.full((4,), 1.03)}
    gradients = [here, on_cpu, on_cpu, on_cpu]  # d and g, on the device and on the CPU
    monkeypatch.setattr(check, "player_gradients", lambda ours, who: gradients.pop(0))
    with pytest.raises(AssertionError, match=r"3.0e-02 of the longest gradient: sndcgan d.w"):
        check.gradients()


def test_a_game_in_parts_is_one_that_users_can_start(check: ModuleType) -> None:
    parts = [check.build(*game).engine.accumulate for game in check.METHODS]
    assert parts == [1, 1, 1, 2]
    with pytest.raises(UserError, match="accumulate=2: regularizer=lecam"):
        check.build("sndcgan", "[cr,lecam]", "accumulate=2")


def test_runs_that_do_not_repeat_are_named(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "METHODS", ())
    monkeypatch.setattr(check, "TRANSLATIONS", (("unet", "bcr", "ema.decay=0.9"),))
    assert check.repeats() == "2 games, 12 steps: run twice, equal bit by bit"
    assert check.translation() == "1 games, 12 steps: graphs and eager are equal bit by bit"
    monkeypatch.setattr(check, "TRANSLATIONS", ())
    numbers = iter(range(2))
    monkeypatch.setattr(check, "learnt", lambda ours: {"w": torch.tensor(next(numbers))})
    with pytest.raises(AssertionError, match="of 1 games do not repeat: sndcgan icr 1 tensors"):
        check.repeats()


def test_a_capture_that_fails_is_saved_and_resumed(
    graphs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crgan_cli.training.engine.auto.Eager", Refusing)
    said = graphs.failure()
    assert "could not be captured in a CUDA graph: crow_indices expected sparse" in said
    assert 'in diagnostics_that_wait: scored.scores["real"].sum().item()) Step ' in said
    assert said.endswith("engine=eager")


def test_a_run_whose_capture_should_fail_and_does_not_fails(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ON_GPU", True)
    with pytest.raises(AssertionError, match="no capture failed"):
        check.failure()


def test_killed_and_resumed_is_never_stopped(graphs: ModuleType) -> None:
    assert graphs.resume() == "killed and resumed: 3 lines equal bit by bit"


def test_logs_of_two_runs_are_compared_but_for_the_speed(check: ModuleType, tmp_path: Path) -> None:
    one, other, longer = (tmp_path / name for name in ("one", "other", "longer"))
    lines = {
        one: '{"loss": 1, "speed/images": 3}\n',
        other: '{"loss": 2, "speed/images": 3}\n',
        longer: '{"loss": 1, "speed/images": 4}\n' * 2,
    }
    for folder, text in lines.items():
        folder.mkdir()
        (folder / "metrics.jsonl").write_text(text)
    assert check.require_equal_lines(one, one) == 1
    with pytest.raises(AssertionError, match=r"'loss': 1.*'loss': 2"):
        check.require_equal_lines(one, other)
    with pytest.raises(AssertionError, match="1 and 2 lines"):
        check.require_equal_lines(one, longer)


def test_frechet_distances_are_compared_with_the_cpus(check: ModuleType) -> None:
    assert check.frechet().startswith("the CPU's distances, ")


def test_a_step_is_timed_on_each_engine(
    graphs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "ON_GPU", False)
    head, _, rows = graphs.speed().partition(": ")
    assert head == "ms a step of sndcgan with icr"
    assert [row.split()[:2] for row in rows.split(", ")] == [
        ["eager", "fp32"],
        ["eager", "bf16"],
        ["taped", "bf16"],
    ]
    assert all(math.isfinite(float(row.split()[2])) for row in rows.split(", "))


def test_each_question_has_a_verdict_and_a_limit(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(command: list[str], timeout: int, **_: object) -> subprocess.CompletedProcess[str]:
        if command[-1] == "speed":
            raise subprocess.TimeoutExpired(command, timeout)
        broken = command[-1] == "bits"
        return subprocess.CompletedProcess(command, int(broken), "seen\nall well\n", "E\nbad: 3")

    monkeypatch.setattr(check.subprocess, "run", answer)
    monkeypatch.setattr(check, "AT_ONCE", 1)  # so that the order of the lines is known
    assert check.main([]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("device cpu, machine ")
    assert said[1:] == [
        "PASS captured (0 s): all well",
        "FAIL bits (0 s): exit code 1: bad: 3",
        "PASS translation (0 s): all well",
        "PASS methods (0 s): all well",
        "PASS repeats (0 s): all well",
        "PASS gradients (0 s): all well",
        "PASS failure (0 s): all well",
        "PASS resume (0 s): all well",
        "PASS growth (0 s): all well",
        "PASS frechet (0 s): all well",
        "FAIL speed (0 s): no answer in 200 s",
    ]
    assert check.main(["frechet"]) == 0
    assert check.main(["bits", "--help"]) == 2
    assert "--help: no such question. Questions: captured, bits" in capsys.readouterr().out
    # a run of 8 minutes, with the installation: three questions at once, and speed alone
    assert sum(check.LIMITS.values()) / 3 + max(check.LIMITS.values()) <= 400

"""The loop: whose turn it is, on which batch, and what is due after a step."""

import os
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.tiny import SIDE, game

from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.errors import Interrupted
from crgan_cli.gan.regularizers.consistency import ConsistencyRegularization
from crgan_cli.gan.stages import Stage, Stages
from crgan_cli.gan.types import BatchInputs, TurnLog
from crgan_cli.system.progress import TrainingProgress
from crgan_cli.training.clock import Clock
from crgan_cli.training.engine.eager import Eager, Turn
from crgan_cli.training.optimizers import Adam
from crgan_cli.training.step_cost import StepCost
from crgan_cli.training.stop import StopSignal
from crgan_cli.training.trainer import Trainer, is_due, reseed

IMAGES = Images(
    torch.arange(12, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, SIDE, SIDE),
    torch.zeros(12, dtype=torch.int64),
)


class Watched(Eager):
    """Takes turns as ever, and notes whose they were, on which images, at which rate."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[tuple[str, tuple[int, ...]]] = []
        self.drawn: list[float] = []
        self.rates: list[float] = []

    def run_turn(self, turn: Turn, inputs: BatchInputs) -> TurnLog:
        state = torch.get_rng_state()
        self.drawn.append(torch.rand(()).item())
        torch.set_rng_state(state)
        reading = super().run_turn(turn, inputs)
        numbers = ((self.reals["real"].x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
        self.turns.append((turn.who, tuple(numbers)))
        self.rates.append(self.optimizers[turn.who].param_groups[0]["lr"].item())
        return reading


def trainer(
    n_dis: int = 1, seed: int = 1, steps: int = 4, decay: str = "none", every: int = 1
) -> Trainer:
    """On 12 images in batches of 2."""
    optimization = Adam(1e-3, 1e-3, 0.5, 0.9, 1e-8, n_dis, decay)  # pyright: ignore
    task = game(ConsistencyRegularization(10.0, every=every), n_dis=n_dis).float()
    engine = Watched()
    device = torch.device("cpu")
    engine.prepare(task, device)
    batches = Batches(IMAGES, batch_size=2, seed=seed, device=device, flip=False)
    stages = Stages.single(8, 2, n_dis)
    return Trainer(
        task,
        engine,
        optimization,
        lambda stage: batches,
        stages,
        ema=None,
        seed=seed,
        steps=steps,
        log_every=2,
    )


def turns(of: Trainer) -> list[tuple[str, tuple[int, ...]]]:
    assert isinstance(of.engine, Watched)
    return of.engine.turns


def test_d_moves_n_dis_times_and_g_once_on_the_last_batch_of_d() -> None:
    made = trainer(n_dis=3)
    for _ in range(2):
        made.train_step()
    assert [who for who, _ in turns(made)] == ["d", "d", "d", "g"] * 2
    shown = [images for _, images in turns(made)]
    assert [shown[i] for i in (0, 1, 2, 4, 5, 6)] == [batch_of(made, i) for i in range(6)]
    assert (shown[3], shown[7]) == (shown[2], shown[6])


def batch_of(made: Trainer, index: int) -> tuple[int, ...]:
    x = made.batches.to_views(*made.batches.inputs(index))["real"].x
    return tuple(((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist())


def test_d_sees_every_image_once_before_any_twice() -> None:
    made = trainer(n_dis=3)
    for _ in range(2):
        made.train_step()
    seen = [number for who, images in turns(made) if who == "d" for number in images]
    assert sorted(seen) == list(range(12))


def test_images_seen_are_those_shown_to_d() -> None:
    made = trainer(n_dis=3)
    for step in range(3):
        assert made.images_seen == step * 3 * 2
        made.train_step()


def test_turns_are_numbered_by_player_over_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made, called = trainer(n_dis=2), []
    monkeypatch.setattr(made.task, "set_turn", lambda who, turn: called.append((who, turn)))
    for _ in range(2):
        made.train_step()
    assert called == [("d", 0), ("d", 1), ("g", 0), ("d", 2), ("d", 3), ("g", 1)]


def test_a_lazy_regularizer_acts_in_every_kth_turn_of_d_across_steps() -> None:
    made = trainer(n_dis=2, every=3)
    for _ in range(3):
        made.train_step()
    kept = made.window.state_dict()["turns"]
    acted = sum(len(rows) for names, rows in kept if "terms/cr/real" in names)
    assert acted == 2  # of six turns, numbers 0 and 3


def test_the_rate_of_a_step_is_set_before_its_turns() -> None:
    made = trainer(steps=4, decay="linear")
    for _ in range(4):
        made.train_step()
    assert isinstance(made.engine, Watched)
    left = [1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    assert made.engine.rates == pytest.approx([1e-3 * part for part in left])


# --- random numbers -------------------------------------------------------------------------------


def drawn(seed: int, step: int) -> tuple[float, ...]:
    reseed(seed, step, torch.device("cpu"))
    return tuple(torch.rand(3).tolist())


def test_random_numbers_derive_from_seed_and_step_alone() -> None:
    torch.manual_seed(99)
    first = drawn(1, 7)
    torch.rand(100)
    assert drawn(1, 7) == first
    others = {drawn(*key) for key in ((1, 8), (2, 7), (7, 1), (0, 17))}
    assert len(others | {first}) == 5


def test_a_step_is_the_same_wherever_the_run_began() -> None:
    """Whatever was drawn before, a step's random numbers are its own, and differ by step."""
    made, later = trainer(), trainer()
    for _ in range(3):
        made.train_step()
    torch.rand(17)
    later.step = 2
    later.train_step()
    assert isinstance(made.engine, Watched)
    assert isinstance(later.engine, Watched)
    assert later.engine.drawn == made.engine.drawn[4:6]
    assert len(set(made.engine.drawn)) == 6
    assert later.engine.turns == made.engine.turns[4:6]


def test_another_seed_is_another_run() -> None:
    one, other = trainer(seed=1), trainer(seed=2)
    for made in (one, other):
        made.train_step()
    assert turns(one) != turns(other)


# --- what is due ----------------------------------------------------------------------------------


def test_due_is_every_kth_step_and_the_last() -> None:
    assert [step for step in range(1, 8) if is_due(step, 3, 7)] == [3, 6, 7]
    assert [step for step in range(1, 7) if is_due(step, 3, 6)] == [3, 6]


class Noted:
    """Stands in for a hook, the keeper and the recorder: writes down what is asked of it."""

    stops_early = False

    def __init__(self, name: str, every: int, notes: list[tuple[str, int]]) -> None:
        self.name, self.every, self.notes = name, every, notes

    def __call__(self, made: Trainer, check) -> None:
        self.notes.append((self.name, made.step))

    def is_best(self, step: int) -> bool:
        return step == 4

    def save(self, made: Trainer) -> None:
        self.notes.append((self.name, made.step))

    def write(self, kind: str, step: int, values: Mapping[str, float], **facts: float) -> None:
        self.notes.append((self.name, step))


def fit(made: Trainer, stop: StopSignal) -> list[tuple[str, int]]:
    notes: list[tuple[str, int]] = []
    hook, keeper = Noted("hook", 2, notes), Noted("save", 3, notes)
    watch = TrainingProgress(made.steps, step=made.step, crowd=None)
    try:
        made.fit(Noted("log", 0, notes), [hook], keeper, watch, stop)  # pyright: ignore
    except Interrupted:
        notes.append(("stopped", made.step))
    return notes


def test_numbers_then_hooks_then_the_checkpoint_where_they_are_due() -> None:
    assert fit(trainer(steps=5), StopSignal()) == [
        ("log", 2),
        ("hook", 2),
        ("save", 3),
        ("log", 4),
        ("hook", 4),
        ("save", 4),  # not due, but the best so far
        ("log", 5),  # the window that the end cuts short
        ("hook", 5),
        ("save", 5),
    ]


def test_the_cost_of_a_step_is_counted_once_when_the_speed_is_first_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It takes seconds: a run of one log window never asks."""
    asked: list[int] = []

    def count(stage: Stage) -> StepCost:
        asked.append(stage.resolution)
        return StepCost(9e9, None, "")

    for steps, times in ((2, 0), (3, 1), (8, 1)):
        asked.clear()
        made = trainer(steps=steps)
        made.count_cost = count
        with caplog.at_level("INFO", logger="crgan_cli"):
            fit(made, StopSignal())
        assert len(asked) == times
    said = [message for message in caplog.messages if "a step" in message]
    assert said == ["a step is 9.00 GFLOP, with the networks as they are written"] * 2


def test_a_run_with_all_its_steps_has_nothing_left_to_do() -> None:
    made = trainer(steps=3)
    fit(made, StopSignal())
    assert fit(made, StopSignal()) == []


def test_a_stop_is_heard_between_two_steps_and_saves() -> None:
    stop = StopSignal()
    stop.on_signal(signal.SIGTERM, None)
    made = trainer()
    assert fit(made, stop) == [("save", 0), ("stopped", 0)]
    assert turns(made) == []


def test_a_second_signal_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    stop = StopSignal()
    stop.check()
    stop.on_signal(signal.SIGINT, None)
    with pytest.raises(Interrupted) as first:
        stop.check()
    assert first.value.signum == signal.SIGINT
    stop.on_signal(signal.SIGINT, None)  # the same one, by way of a sweep
    stop.received_at -= 1
    with pytest.raises(KeyboardInterrupt) as second:
        stop.on_signal(signal.SIGINT, None)
    assert second.type is KeyboardInterrupt


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_heard_while_listening_and_not_after(kind: signal.Signals) -> None:
    before, stop = signal.getsignal(kind), StopSignal()
    with stop.handling_signals():
        os.kill(os.getpid(), kind)
        assert stop.signum == kind
    assert signal.getsignal(kind) is before


def test_where_no_handler_can_be_set_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def listen() -> bool:
        with StopSignal().handling_signals():
            return signal.getsignal(signal.SIGTERM) is before

    with ThreadPoolExecutor(1) as pool:  # as in Streamlit, and in executors
        assert pool.submit(listen).result()
    monkeypatch.setattr(signal, "getsignal", lambda kind: None)  # set by a program in C
    with StopSignal().handling_signals():
        pass
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is before


# --- the clock ------------------------------------------------------------------------------------


def test_the_speed_is_that_since_the_last_one() -> None:
    clock = Clock(10, iter([100.0, 105.0, 107.0]).__next__)
    assert clock.steps_per_second(20) == pytest.approx(10 / 5)
    assert clock.steps_per_second(21) == pytest.approx(1 / 2)


def test_no_time_at_all_is_no_division_by_zero() -> None:
    assert Clock(0, lambda: 1.0).steps_per_second(1) > 0

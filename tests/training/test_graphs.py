"""Captured turns: the same numbers as turns played one operation at a time, whatever changes.

The capture is acted by tests/support/tapes.py, since CI has no GPU.
"""

import inspect
import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.runs import different, lines, tiny, unmeasured
from support.tapes import Taped
from support.tiny import SIDE, game

from crgan_cli.config.compose import compose
from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.gan.ada import ADA
from crgan_cli.gan.augment import Chain
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.regularizers.consistency import (
    BalancedConsistency,
    ConsistencyRegularization,
    LatentConsistency,
    mse,
)
from crgan_cli.gan.regularizers.lecam import LeCam
from crgan_cli.gan.regularizers.penalties import DRAGAN, R1, GradientPenalty, JSRegularizer
from crgan_cli.gan.regularizers.top_k import TopK
from crgan_cli.gan.regularizers.weights import Orthogonal, WeightClipping
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.stages import Stages
from crgan_cli.gan.tasks.two_players import TwoPlayers
from crgan_cli.gan.types import Terms, TurnLog
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.auto import Auto
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.engine.graphs import (
    WARM_UP,
    Captured,
    CaptureFailed,
    Graphs,
    locate_failure,
)
from crgan_cli.training.optimizers import SGD, Adam, Optimization
from crgan_cli.training.start import train_run
from crgan_cli.training.trainer import Trainer

CPU = torch.device("cpu")
LAST = "checkpoints/step_00000006.pt"
STEPS = 3 * WARM_UP
REGULARIZERS: dict[str, Callable[[], list[Regularizer]]] = {
    "none": list,
    "icr": lambda: [BalancedConsistency(10.0, 10.0), LatentConsistency(5.0, 0.5, 0.03)],
    "gp": lambda: [GradientPenalty(10.0)],
    "dragan": lambda: [DRAGAN(10.0)],
    "jsr": lambda: [JSRegularizer(0.1)],
    "lazy": lambda: [R1(10.0, every=2), ConsistencyRegularization(10.0)],
    # what changes by the step: a weight, averages that begin, clipped weights, a number of images
    "annealed": lambda: [JSRegularizer(0.1, anneal=0.01, anneal_steps=STEPS)],
    "lecam": lambda: [LeCam(0.3, decay=0.9, start=STEPS)],
    "clip": lambda: [WeightClipping(0.05), Orthogonal(1e-2)],
    "top_k": lambda: [TopK(gamma=0.6, nu=0.3, epoch_steps=STEPS)],
}


def trainer(
    engine: Eager,
    parts: list[Regularizer],
    *,
    n_dis: int = 1,
    classes: int = 0,
    optimization: Optimization | None = None,
) -> Trainer:
    """12 images in batches of 4, a falling learning rate, an average that begins in step 3."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(256, (12, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    images = Images(x, torch.arange(12) % max(classes, 1))
    task = game(*parts, spectral=True, batch_norm=False, n_dis=n_dis, classes=classes).float()
    engine = engine.for_device(CPU)
    engine.prepare(task, CPU)
    return Trainer(
        task,
        engine,
        optimization or Adam(1e-3, 2e-3, 0.5, 0.9, 1e-8, n_dis, "linear"),
        lambda stage: Batches(images, batch_size=4, seed=1, device=CPU, flip=True),
        Stages.single(32, 4, n_dis),
        ema=EMA(task.G, 0.9, start=3),
        seed=1,
        steps=2 * STEPS,
        log_every=3,
    )


def taken(made: Trainer, steps: int) -> dict[str, torch.Tensor]:
    """All that has been learnt and logged after some steps."""
    made.begin()
    return stepped(made, steps)


def stepped(made: Trainer, steps: int) -> dict[str, torch.Tensor]:
    """The same, without the beginning of a session."""
    for _ in range(steps):
        made.train_step()
    assert made.ema is not None
    states = {f"task.{key}": each for key, each in made.task.state_dict().items()}
    states |= {f"ema.{key}": each for key, each in made.ema.state_dict().items()}
    for who, optimizer in made.optimizers.items():
        for number, state in optimizer.state_dict()["state"].items():
            states |= {f"{who}.{number}.{key}": each for key, each in state.items()}
    for names, rows in made.window.state_dict()["turns"]:
        states |= {f"{names}.{i}": row for i, (_, row) in enumerate(rows)}
    return {key: each.clone() for key, each in states.items()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


@pytest.mark.parametrize("name", REGULARIZERS)
def test_captured_turns_give_the_bits_of_eager_ones(name: str) -> None:
    """Through falling rates, the average's start, lazy terms and steps that are measured."""
    engine = Taped()
    captured = taken(trainer(engine, REGULARIZERS[name]()), 2 * STEPS)
    assert len(engine.tapes) >= 2  # turns of both players were captured
    assert_equal(taken(trainer(Eager(), REGULARIZERS[name]()), 2 * STEPS), captured)


def test_captured_turns_adapt_the_augmentation() -> None:
    """ADA's p is a tensor that every replayed turn of D changes."""

    def adapt(engine: Eager) -> dict[str, torch.Tensor]:
        made = trainer(engine, [])
        ada = ADA(0.1, 40, adjust_every=2, blit=True, geometry=True, colour=True)
        assert isinstance(made.task, TwoPlayers)
        made.task.adversary.T_both = Chain(ada=ada)
        return taken(made, 2 * STEPS)

    engine = Taped()
    captured = adapt(engine)
    assert len(engine.tapes) >= 2
    assert captured["task.adversary.T_both.transforms.ada.p"] > 0
    assert_equal(adapt(Eager()), captured)


def test_captured_turns_read_the_momentum_of_the_day() -> None:
    """Rate and momentum change in every step, also in those that are replayed."""

    def descend(engine: Eager) -> dict[str, torch.Tensor]:
        optimization = SGD(0.1, 0.05, 1, 1.1, 1e-3, 0.1, 0.9, 2 * STEPS)
        return taken(trainer(engine, [], optimization=optimization), 2 * STEPS)

    engine = Taped()
    captured = descend(engine)
    assert len(engine.tapes) >= 2  # turns of both players were captured
    assert_equal(descend(Eager()), captured)


def test_captured_turns_rise_fall_and_are_clipped() -> None:
    """Warm-up, another decay for each player, and a gradient's norm that is read on the device."""

    def anneal(engine: Eager) -> dict[str, torch.Tensor]:
        rates = (1e-3, 2e-3, 0.5, 0.9, 1e-8, 1)
        optimization = Adam(
            *(*rates, "cosine", 0.0, STEPS), decay_d="linear", warmup_d=2, clip_grad_norm=0.2
        )
        return taken(trainer(engine, [], optimization=optimization), 2 * STEPS)

    engine = Taped()
    captured = anneal(engine)
    assert len(engine.tapes) >= 2  # turns of both players were captured
    assert_equal(anneal(Eager()), captured)
    assert any("clipped/d" in names for names in captured)


@pytest.mark.parametrize("name", ["icr", "gp"])
def test_captured_turns_in_bf16_cast_the_weights_of_the_day(name: str) -> None:
    captured = taken(trainer(Taped("bf16"), REGULARIZERS[name]()), STEPS)
    assert_equal(taken(trainer(Eager("bf16"), REGULARIZERS[name]()), STEPS), captured)


def test_several_turns_of_d_a_step_and_labels() -> None:
    parts = REGULARIZERS["icr"]
    captured = taken(trainer(Taped(), parts(), n_dis=3, classes=3), STEPS)
    assert_equal(taken(trainer(Eager(), parts(), n_dis=3, classes=3), STEPS), captured)


def test_a_capture_may_come_at_any_step_of_a_resumed_run() -> None:
    """What a session does depends on the state that it begins with, not on what it captured."""
    whole = trainer(Taped(), REGULARIZERS["icr"]())
    taken(whole, STEPS)
    resumed = trainer(Taped(), REGULARIZERS["icr"]())
    resumed.task.load_state_dict(whole.task.state_dict())
    for who, optimizer in resumed.optimizers.items():
        optimizer.load_state_dict(deepcopy(whole.optimizers[who].state_dict()))
    assert whole.ema is not None
    assert resumed.ema is not None
    resumed.ema.load_state_dict(whole.ema.state_dict())
    resumed.window.load_state_dict(whole.window.state_dict())
    resumed.step = whole.step
    assert_equal(taken(whole, STEPS), taken(resumed, STEPS))


def test_a_kind_of_turn_is_captured_once() -> None:
    engine = Taped()
    taken(trainer(engine, REGULARIZERS["lazy"]()), 2 * STEPS)
    kinds = {turn._replace(lerp_weight=None) for turn in engine.captured}
    assert {turn.who for turn in kinds} == {"d", "g"}
    assert len(engine.tapes) == len(engine.captured) <= 8  # who x measured x lazy term due


def test_a_turn_that_python_changes_behind_its_back_would_be_noticed() -> None:
    """The stand-in forgets what a graph forgets: a weight that Python reads is fixed."""
    parts = [ConsistencyRegularization(10.0)]
    one, other = trainer(Taped(), parts), trainer(Eager(), [ConsistencyRegularization(10.0)])
    taken(one, STEPS)
    taken(other, STEPS)
    for made in (one, other):
        part = made.task.adversary.regularizer.members[0]
        part.lambda_cr = 0.0
    ours, theirs = stepped(one, 1), stepped(other, 1)
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] != []


# --- a capture that fails -------------------------------------------------------------------------


class Uncapturable(ConsistencyRegularization):
    """CR with an operation that fails in a capture, as one that waits for the device would."""

    capturing = False

    def d_terms(self, scored: ScoredViews) -> Terms:
        columns = 3 if self.capturing else 2
        torch.zeros(2).view(columns)
        return super().d_terms(scored)


class Bare(Taped):
    """Without a tape, whose own lines would be the last."""

    def record(self, run: Callable[[], TurnLog]) -> Captured:
        return Captured(lambda: None, lambda: None, run())


class Failing(Taped):
    """Fails in its third capture as torch.cuda.graph does: the end of the capture fails as well."""

    def record(self, run: Callable[[], TurnLog]) -> Captured:
        if len(self.tapes) < 2:
            return super().record(run)
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error")


def test_a_failed_capture_names_the_operation_and_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = trainer(Bare(), [Uncapturable(10.0)])
    made.begin()
    while not made.engine.has_ready_turns():
        made.train_step()
    monkeypatch.setattr(Uncapturable, "capturing", True)
    with pytest.raises(CaptureFailed) as failed:
        made.train_step()
    line = inspect.getsourcelines(Uncapturable.d_terms)[1] + 2
    assert str(failed.value) == (
        "a turn of d could not be captured in a CUDA graph: shape '[3]' is invalid for input of "
        f"size 2 ({__file__}:{line}, in d_terms: torch.zeros(2).view(columns))"
    )


def test_lines_of_the_package_are_named_from_its_folder() -> None:
    with pytest.raises(RuntimeError) as failed:
        mse(torch.zeros(2), torch.zeros(3))
    assert re.search(
        r" \(crgan_cli/gan/regularizers/consistency.py:\d+, in mse: return \(a - b\).*\)$",
        locate_failure(failed.value),
    )


def test_turns_are_captured_between_steps_and_before_any_is_taken() -> None:
    made = trainer(Taped(), REGULARIZERS["icr"](), n_dis=5)
    made.begin()
    made.train_step()
    assert isinstance(made.engine, Taped)
    assert made.engine.has_ready_turns()
    assert not made.engine.captured
    before = {key: each.clone() for key, each in made.task.state_dict().items()}
    made.engine.capture_ready_turns()
    assert [turn.who for turn in made.engine.captured] == ["d"]
    assert not made.engine.has_ready_turns()
    assert_equal(before, made.task.state_dict())


def test_a_run_whose_capture_fails_loses_no_step_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would have been saved before step 6. Resumed, it equals a run without graphs."""

    def train(out: Path, *overrides: str) -> None:
        words = ("architecture=resnet_sngan", "optimizer.n_dis=2", "checkpoint.every=6", *overrides)
        typed = unmeasured(tiny("regularizer=icr", "regularizer.every=2", f"out={out}", *words))
        train_run(compose(typed), typed, {}, None)

    run, whole = tmp_path / "a run", tmp_path / "whole"
    with monkeypatch.context() as patch:
        patch.setattr("crgan_cli.training.engine.auto.Eager", Failing)
        with pytest.raises(RunFailed) as failed:
            train(run)
    saved = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert len(saved) == 1
    step = int(saved[0][len("step_") : -len(".pt")])
    assert WARM_UP <= step < 6
    said = str(failed.value)
    assert "CUDA graph: CUDA out of memory. Tried to allocate 2.00 GiB. (" in said
    assert f"Step {step} is saved. Go on without graphs: " in said
    assert said.endswith(f"crgan train --from '{run}' engine=eager")
    assert json.loads((run / "result.json").read_text())["status"] == "failed"

    train(run, "engine=eager")
    train(whole, "engine=eager")
    assert different(run / LAST, whole / LAST) == []
    assert lines(run, "train") == lines(whole, "train")


# --- where there is no GPU ------------------------------------------------------------------------


def test_graphs_need_cuda_and_say_so() -> None:
    with pytest.raises(UserError, match=r"engine=graphs needs a CUDA device.*engine=auto"):
        Graphs().for_device(CPU)


def test_auto_is_eager_on_a_cpu_and_graphs_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    gpu = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr("crgan_cli.training.engine.compiler.find_spec", lambda name: True)
    settings = {
        "precision": "auto",
        "channels_last": False,
        "compile": True,
        "fold": "auto",
        "spectral_norm": "each",
        "deterministic": True,
        "threads": 3,
    }
    assert type(Auto("fp32").for_device(CPU)) is Eager
    on_cuda = Auto(**settings).for_device(torch.device("cuda"))
    assert type(on_cuda) is Graphs
    assert vars(on_cuda) == vars(Graphs(**settings).for_device(torch.device("cuda")))
    assert on_cuda.precision == "bf16"

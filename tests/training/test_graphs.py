"""Captured turns: the same numbers as turns played one operation at a time, whatever changes.

The capture is acted by tests/support/tapes.py, since CI has no GPU.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from support.tapes import Taped
from support.tiny import SIDE, game

from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.regularizers.consistency import (
    BalancedConsistency,
    ConsistencyRegularization,
    LatentConsistency,
)
from crgan_cli.gan.regularizers.penalties import DRAGAN, R1, GradientPenalty, JSRegularizer
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.auto import Auto
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.engine.graphs import WARM_UP, Graphs
from crgan_cli.training.optimizers import SGD, Adam, Optimization
from crgan_cli.training.trainer import Trainer

CPU = torch.device("cpu")
STEPS = 3 * WARM_UP
REGULARIZERS: dict[str, Callable[[], list[Regularizer]]] = {
    "none": list,
    "icr": lambda: [BalancedConsistency(10.0, 10.0), LatentConsistency(5.0, 0.5, 0.03)],
    "gp": lambda: [GradientPenalty(10.0)],
    "dragan": lambda: [DRAGAN(10.0)],
    "jsr": lambda: [JSRegularizer(0.1)],
    "lazy": lambda: [R1(10.0, every=2), ConsistencyRegularization(10.0)],
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
        Batches(images, batch_size=4, seed=1, device=CPU, flip=True),
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


def test_captured_turns_read_the_momentum_of_the_day() -> None:
    """Rate and momentum change in every step, also in those that are replayed."""

    def descend(engine: Eager) -> dict[str, torch.Tensor]:
        optimization = SGD(0.1, 0.05, 1, 1.1, 1e-3, 0.1, 0.9, 2 * STEPS)
        return taken(trainer(engine, [], optimization=optimization), 2 * STEPS)

    engine = Taped()
    captured = descend(engine)
    assert len(engine.tapes) >= 2  # turns of both players were captured
    assert_equal(descend(Eager()), captured)


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


def test_graphs_need_cuda_and_say_so() -> None:
    with pytest.raises(UserError, match=r"engine=graphs needs a CUDA device.*engine=auto"):
        Graphs().for_device(CPU)


def test_auto_is_eager_on_a_cpu_and_graphs_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("crgan_cli.training.engine.eager.find_spec", lambda name: True)
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

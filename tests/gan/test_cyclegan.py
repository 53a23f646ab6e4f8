"""CycleGAN against its formulas written out, its pool, and the whole as a game of the trainer."""

from collections.abc import Callable

import pytest
import torch
from support.games import different, go_on, run
from support.ranks import in_processes
from support.tapes import Taped
from support.tiny import TinyPatchDiscriminator, TinyTranslator
from torch import Tensor, nn

from crgan_cli.data.batches import Batches, SideBySideBatches
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.losses import LeastSquares
from crgan_cli.gan.regularizers.base import CombinedRegularizer, Regularizer
from crgan_cli.gan.regularizers.consistency import BalancedConsistency, ConsistencyRegularization
from crgan_cli.gan.regularizers.penalties import R1, GradientPenalty
from crgan_cli.gan.stages import Stages
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.tasks.cyclegan import CycleGAN
from crgan_cli.gan.tasks.generation import Generation
from crgan_cli.gan.tasks.pix2pix import Pix2Pix
from crgan_cli.gan.tasks.pool import ImagePool
from crgan_cli.gan.tasks.stargan import StarGAN
from crgan_cli.gan.types import Batch, Views
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.optimizers import Adam
from crgan_cli.training.trainer import Trainer

CPU = torch.device("cpu")
N, SIDE = 4, 8
REGULARIZERS: dict[str, Callable[[], list[Regularizer]]] = {
    "none": lambda: [],
    "cr": lambda: [ConsistencyRegularization(10)],
    "bcr with gp": lambda: [BalancedConsistency(10, 5), GradientPenalty(10)],
    "lazy r1": lambda: [R1(2, every=2)],
}


def game(
    parts: list[Regularizer] | None = None,
    *,
    channels: tuple[int, int] = (2, 2),
    lambda_identity: float = 0.5,
    pool_size: int = 10,
) -> CycleGAN:
    """A seeded task. Regularizers without state are shared by both discriminators."""
    torch.manual_seed(0)
    sides = dict(zip("ab", channels, strict=True))
    named = {type(part).__name__: part for part in parts or []}
    T = FlipShift(shift=2, flip=0.5, padding="reflect")
    return CycleGAN(
        nn.ModuleDict(
            {"ab": TinyTranslator(*channels), "ba": TinyTranslator(channels[1], channels[0])}
        ),
        {
            name: Adversary(
                TinyPatchDiscriminator(count), LeastSquares(), CombinedRegularizer(**named), T
            )
            for name, count in sides.items()
        },
        {name: (N, count, SIDE, SIDE) for name, count in sides.items()},
        n_dis=1,
        lambda_a=10.0,
        lambda_b=5.0,
        lambda_identity=lambda_identity,
        pool_size=pool_size,
    )


def draw_reals(channels: tuple[int, int] = (2, 2)) -> Views:
    generator = torch.Generator().manual_seed(1)
    return {
        name: Batch(torch.rand(N, count, SIDE, SIDE, generator=generator).double() * 2 - 1)
        for name, count in zip("ab", channels, strict=True)
    }


@pytest.mark.parametrize("lambda_identity", [0.0, 0.5])
def test_the_losses_are_the_papers_formulas(lambda_identity: float) -> None:
    task = game(lambda_identity=lambda_identity).double()
    reals = draw_reals()
    terms = task.player_loss("g", reals).terms
    G, F = task.G["ab"], task.G["ba"]
    D = {name: each.D for name, each in task.named_adversaries.items()}
    a, b = reals["a"].x, reals["b"].x

    def l1(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().mean()

    # LeastSquares: half of the paper's squares, for G and for D (arXiv:1611.04076 eq. 9)
    adversarial = 0.5 * (D["b"](G(a), None) - 1).square().mean()
    adversarial = adversarial + 0.5 * (D["a"](F(b), None) - 1).square().mean()
    cycle = 10 * l1(F(G(a)), a) + 5 * l1(G(F(b)), b)
    identity = lambda_identity * (10 * l1(F(a), a) + 5 * l1(G(b), b))
    expected, total = adversarial + cycle + identity, torch.stack(list(terms.values())).sum()
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    weights = list(task.G.parameters())
    found, wanted = (torch.autograd.grad(each, weights) for each in (total, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)

    # D's turn, while the pool is not full: it is shown what G has just made
    d_total = torch.stack(list(task.player_loss("d", reals).terms.values())).sum()
    fakes = {"a": F(b).detach(), "b": G(a).detach()}
    d_expected = sum(
        0.5 * ((D[name](reals[name].x, None) - 1).square().mean())
        + 0.5 * D[name](fakes[name], None).square().mean()
        for name in "ab"
    )
    torch.testing.assert_close(d_total, d_expected, rtol=1e-12, atol=1e-12)
    d_weights = [weight for each in D.values() for weight in each.parameters()]
    found = torch.autograd.grad(d_total, d_weights)
    torch.testing.assert_close(
        found, torch.autograd.grad(d_expected, d_weights), rtol=1e-10, atol=1e-12
    )


def test_images_of_each_generator_come_from_two_calls() -> None:
    task = game().double()
    calls = dict.fromkeys(task.G, 0)
    for name, network in task.G.items():
        network.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    reals = draw_reals()
    terms = task.player_loss("g", reals).terms
    assert calls == {"ab": 2, "ba": 2}  # six sets of images
    task.player_loss("d", reals)
    assert calls == {"ab": 2, "ba": 2}
    task.translate_jointly = False
    apart = task.player_loss("g", reals).terms
    assert calls == {"ab": 5, "ba": 5}
    torch.testing.assert_close(terms, apart, rtol=1e-12, atol=1e-12)


def test_identity_is_refused_for_unlike_channels() -> None:
    with pytest.raises(UserError, match=r"a has 1 channels and b has 3.*task\.lambda_identity=0"):
        game(channels=(1, 3))
    task = game(channels=(1, 3), lambda_identity=0).double()
    assert (
        torch.stack(list(task.player_loss("g", draw_reals((1, 3))).terms.values())).isfinite().all()
    )


def sequential_pool(size: int, images: list[float], draws: list[tuple[float, int]]) -> list[float]:
    """The authors' pool, an image at a time, with the given random numbers."""
    kept: list[float] = []
    shown = []
    for new, (chance, slot) in zip(images, draws, strict=True):
        if len(kept) < size:
            kept.append(new)
            shown.append(new)
        elif chance < 0.5:
            shown.append(kept[slot])
            kept[slot] = new
        else:
            shown.append(new)
    return shown


@pytest.mark.parametrize("rows", [1, 3])
def test_each_row_trades_as_the_authors_pool_does(rows: int) -> None:
    pool, slots, steps = ImagePool(5 * rows, (rows, 1, 1, 1)), 5, 200
    found = []
    for step in range(steps):
        torch.manual_seed(step)
        new = torch.arange(rows, dtype=torch.float32) + rows * step
        found.append(pool.exchange(new.view(rows, 1, 1, 1)).flatten())
    for row in range(rows):
        draws = []
        for step in range(steps):
            torch.manual_seed(step)
            draws.append((float(torch.rand(rows)[row]), int(torch.randint(0, slots, (rows,))[row])))
        images = [float(row + rows * step) for step in range(steps)]
        assert [float(each[row]) for each in found] == sequential_pool(slots, images, draws)


def test_a_pool_of_no_images_shows_what_is_new() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(ImagePool(0, (2, 3, 4, 4)).exchange(x), x)


def exchange_part() -> list[Tensor]:
    """What this process is shown of its part of four rows, over ten turns."""
    from crgan_cli.system.distributed.world import world

    pool = ImagePool(8, (4, 1, 2, 2))
    shown = []
    for step in range(10):
        torch.manual_seed(step)
        rows = (torch.arange(4.0) + 4 * step).view(4, 1, 1, 1).expand(4, 1, 2, 2)
        own = rows.chunk(world().world_size)[world().rank]
        shown.append(pool.exchange(own))
    return shown


def test_two_processes_share_one_pool() -> None:
    parts = in_processes(2, exchange_part)
    for alone, one, other in zip(exchange_part(), *parts, strict=True):  # type: ignore[call-overload]
        assert torch.equal(alone, torch.cat([one, other]))


def draw_images(count: int, generator: torch.Generator) -> Images:
    shape = (count, 2, SIDE, SIDE)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return Images(x, torch.zeros(count, dtype=torch.int64))


def trainer(engine: Eager, parts: list[Regularizer]) -> Trainer:
    generator = torch.Generator().manual_seed(2)
    task = game(parts)
    engine = engine.for_device(CPU)
    engine.prepare(task, CPU)
    sets = [
        Batches(
            Images(
                torch.randint(
                    0, 256, (count, 2, SIDE, SIDE), dtype=torch.uint8, generator=generator
                ),
                torch.zeros(count, dtype=torch.int64),
            ),
            batch_size=N,
            seed=1,
            device=CPU,
            flip=True,
            name=name,
            stream=stream,
        )
        for stream, (name, count) in enumerate({"a": 12, "b": 9}.items())
    ]
    return Trainer(
        task,
        engine,
        Adam(1e-3, 2e-3, 0.5, 0.9, 1e-8, 1, "linear", decay_from=0.5),
        lambda stage: SideBySideBatches(sets),
        Stages.single(32, 4, 1),
        ema=EMA(task.G, 0.9, start=3),
        seed=1,
        steps=20,
        log_every=3,
    )


@pytest.mark.parametrize("name", REGULARIZERS)
def test_captured_turns_give_the_bits_of_eager_ones(name: str) -> None:
    one = run(trainer(Eager(), REGULARIZERS[name]()), 14)
    other = run(trainer(Taped(), REGULARIZERS[name]()), 14)
    assert different(one, other) == []


@pytest.mark.parametrize("stop", [1, 5])  # the pool is full after 3 steps
def test_a_resumed_game_is_one_that_never_stopped(stop: int) -> None:
    parts = REGULARIZERS["bcr with gp"]
    whole = run(trainer(Eager(), parts()), 9)
    first, second = trainer(Eager(), parts()), trainer(Eager(), parts())
    run(first, stop)
    assert (first.task.state_dict()["pools.a.count"] == 3) == (stop == 5)
    go_on(first, second, stop)
    resumed = run(second, 9 - stop)
    assert different(whole, resumed) == []


def test_bf16_learns_as_well() -> None:
    found = run(trainer(Eager(precision="bf16"), REGULARIZERS["cr"]()), 3)
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize(
    ("task", "dataset", "words"),
    [
        (Generation, {"channels_a": 1, "channels_b": 1}, "task=cyclegan"),
        (Generation, {"channels_in": 1, "channels_out": 1}, "task=pix2pix"),
        (CycleGAN, {"channels": 3}, "dataset=domains"),
        (Pix2Pix, {"channels_a": 1, "channels_b": 1}, "dataset=pairs"),
        (StarGAN, {"channels": 3, "classes": 0}, "dataset=attributes"),
    ],
)
def test_a_data_set_of_another_kind_is_answered_with_what_fits(
    task: type[Task], dataset: dict, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        task.casting({"dataset": dataset, "task": {}})

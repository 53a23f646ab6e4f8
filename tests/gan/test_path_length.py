"""Path length regularization against its formula, in float64."""

import math

import pytest
import torch
from support.tapes import Taped
from support.tiny import SIDE, TinyGenerator, game
from torch import Tensor

from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.gan.regularizers.consistency import LatentConsistency
from crgan_cli.gan.regularizers.path_length import PathLength
from crgan_cli.gan.scoring import Origin, ScoredViews
from crgan_cli.gan.stages import Stages
from crgan_cli.gan.types import Batch
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.optimizers import Adam
from crgan_cli.training.trainer import Trainer

N = 6


def part(lambda_pl: float = 2.0, pl_every: int = 1) -> PathLength:
    return PathLength(lambda_pl, pl_decay=0.9, pl_batch_shrink=2, pl_every=pl_every).double()


def origin(G: TinyGenerator) -> Origin:
    z = torch.randn(N, G.z_dim, generator=torch.Generator().manual_seed(1)).double()
    return Origin(G, {"fake": z}, None)


def penalty(G: TinyGenerator, regularizer: PathLength, seed: int = 2) -> Tensor:
    torch.manual_seed(seed)
    scored = ScoredViews({}, {}, None, origin(G))  # type: ignore[arg-type]
    return regularizer.g_terms(scored)["path_length"]


def by_hand(G: TinyGenerator, mean: float, seed: int = 2) -> tuple[Tensor, Tensor]:
    """The penalty by whole Jacobians, and the new running mean."""
    torch.manual_seed(seed)
    y = torch.randn(N // 2, 3, SIDE, SIDE).double() / SIDE  # the float32 draw, as in the penalty
    lengths = []
    for z, noise in zip(origin(G).latents["fake"][: N // 2], y, strict=True):
        J = torch.autograd.functional.jacobian(lambda z: G(z[None], None)[0], z, create_graph=True)
        lengths.append((J.flatten(0, 2).T @ noise.flatten()).norm())
    length = torch.stack(lengths)
    a = 0.9 * mean + 0.1 * length.mean()
    return 2.0 * (length - a).square().mean(), a


pytestmark = pytest.mark.usefixtures("float64")


def test_the_penalty_and_its_gradient_are_the_papers_formula_over_two_steps() -> None:
    torch.manual_seed(0)
    G, regularizer, mean = TinyGenerator(), part(), 0.0
    weights = [G.linear.weight, G.conv.weight]
    for seed in (2, 3):
        expected, a = by_hand(G, mean, seed)
        found = penalty(G, regularizer, seed)
        torch.testing.assert_close(found, expected)
        gradients = (torch.autograd.grad(each, weights) for each in (found, expected))
        torch.testing.assert_close(*gradients)
        mean = a.item()
        assert regularizer.mean_length.item() == pytest.approx(mean)


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    G = TinyGenerator()
    weight, h = G.linear.weight, 1e-6
    (gradient,) = torch.autograd.grad(penalty(G, part()), weight)
    for row, column in ((0, 0), (5, 2), (100, 3)):
        values = []
        for step in (h, -h):
            with torch.no_grad():
                weight[row, column] += step
            values.append(penalty(G, part()).item())
            with torch.no_grad():
                weight[row, column] -= step
        slope = (values[0] - values[1]) / (2 * h)
        assert gradient[row, column].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_a_linear_generator_of_equal_lengths_pays_for_the_running_mean_alone() -> None:
    """x = s z at every place: J^T y = s sum(y) whatever z is."""

    class Linear(torch.nn.Module):
        z_dim, classes = 1, 0

        def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
            return 3 * z[:, :, None, None].expand(-1, 1, 1, 1)

    torch.manual_seed(4)
    z = torch.randn(2, 1)
    torch.manual_seed(5)
    scored = ScoredViews({}, {}, None, Origin(Linear(), {"fake": z}, None))  # type: ignore[arg-type]
    found = PathLength(1.0, 0.9, 2, 1).g_terms(scored)["path_length"].item()
    torch.manual_seed(5)
    length = abs(3 * torch.randn(1, 1, 1, 1).item())
    assert found == pytest.approx((0.9 * length) ** 2)
    assert not math.isnan(found)


def test_it_is_lazy_with_k_times_the_weight_and_g_is_not_compiled() -> None:
    task = game(part(pl_every=4))
    assert task.players_with_double_backward() == ("g",)
    reals = {"real": Batch(torch.rand(N, 3, SIDE, SIDE))}
    for turn in range(5):
        task.set_turn("g", turn)
        assert ("path_length" in task.player_loss("g", reals).terms) == (turn % 4 == 0)
        assert "path_length" not in task.player_loss("d", reals).terms


def trainer(engine: Eager) -> Trainer:
    torch.set_default_dtype(torch.float32)
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(256, (12, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    task = game(PathLength(2.0, 0.9, 2, 4), LatentConsistency(5, 0.5, 0.03), spectral=True).float()
    device = torch.device("cpu")
    engine = engine.for_device(device)
    engine.prepare(task, device)
    images = Images(x, torch.zeros(12, dtype=torch.int64))
    batches = Batches(images, batch_size=4, seed=1, device=device, flip=False)
    optimization = Adam(1e-3, 2e-3, 0.5, 0.9, 1e-8, 1, "none")
    ema = EMA(task.G, 0.9, start=3)
    return Trainer(
        task,
        engine,
        optimization,
        lambda stage: batches,
        Stages.single(32, 4, 1),
        ema=ema,
        seed=1,
        steps=40,
        log_every=3,
    )


def learnt(of: Trainer, steps: int) -> dict[str, Tensor]:
    of.begin()
    for _ in range(steps):
        of.train_step()
    return {key: value.clone() for key, value in of.task.state_dict().items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_captured_turns_give_the_bits_of_eager_ones(precision: str) -> None:
    one = learnt(trainer(Eager(precision=precision)), 17)  # type: ignore[arg-type]
    other = learnt(trainer(Taped(precision=precision)), 17)  # type: ignore[arg-type]
    assert not [key for key in one if not torch.equal(one[key], other[key])]
    (mean,) = (value for key, value in one.items() if key.endswith("mean_length"))
    assert 0 < mean.item() < 100

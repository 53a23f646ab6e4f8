"""pix2pix against its formulas written out, and as a game of the trainer."""

from collections.abc import Callable

import pytest
import torch
from support.games import different, go_on, run
from support.tapes import Taped
from support.tiny import TinyPatchDiscriminator, TinyTranslator
from torch import Tensor, nn
from torch.nn.functional import softplus

from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.losses import NonSaturating
from crgan_cli.gan.regularizers.base import CombinedRegularizer, Regularizer
from crgan_cli.gan.regularizers.consistency import BalancedConsistency, ConsistencyRegularization
from crgan_cli.gan.regularizers.penalties import R1, GradientPenalty
from crgan_cli.gan.stages import Stages
from crgan_cli.gan.tasks.pix2pix import Pix2Pix
from crgan_cli.gan.types import Batch, split_pair
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.optimizers import Adam
from crgan_cli.training.trainer import Trainer

CPU = torch.device("cpu")
A, B = 1, 3  # channels of input and target
PAIRS = torch.rand(4, A + B, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def game(*regularizers: Regularizer, conditional: bool = True) -> Pix2Pix:
    """A task in float64, seeded."""
    torch.manual_seed(0)
    parts = {type(part).__name__: part for part in regularizers}
    D = TinyPatchDiscriminator(A + B if conditional else B)
    T = FlipShift(shift=2, flip=0.5, padding="reflect")
    adversary = Adversary(D, NonSaturating(), CombinedRegularizer(**parts), T)
    G = TinyTranslator(A, B)
    return Pix2Pix(G, adversary, A, n_dis=1, lambda_l1=100.0, conditional=conditional).double()


def losses(task: Pix2Pix) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The terms of a G step, then those of a D step."""
    reals = {"real": Batch(PAIRS.double())}
    return task.player_loss("g", reals).terms, task.player_loss("d", reals).terms


@pytest.mark.parametrize("conditional", [True, False])
def test_both_losses_are_the_papers_formulas(conditional: bool) -> None:
    task = game(conditional=conditional)
    g_terms, d_terms = losses(task)
    x, y = PAIRS.double()[:, :A], PAIRS.double()[:, A:]
    G, D = task.G, task.adversary.D
    fake = G(x)
    real_logits, fake_logits = (
        D(torch.cat([x, each], 1) if conditional else each, None) for each in (y, fake)
    )
    g_loss = softplus(-fake_logits).mean() + 100 * (y - fake).abs().mean()
    d_loss = softplus(-real_logits).mean() + softplus(fake_logits).mean()
    for terms, loss, player in ((g_terms, g_loss, G), (d_terms, d_loss, D)):
        total = torch.stack(list(terms.values())).sum()
        torch.testing.assert_close(total, loss)
        weights = list(player.parameters())
        found = torch.autograd.grad(total, weights)
        by_hand = torch.autograd.grad(loss, weights, retain_graph=True)
        torch.testing.assert_close(found, by_hand)


def test_d_sees_what_g_made_and_no_gradient_reaches_g() -> None:
    task = game()
    _, d_terms = losses(task)
    total = torch.stack(list(d_terms.values())).sum()
    gradients = torch.autograd.grad(total, list(task.G.parameters()), allow_unused=True)
    assert gradients == (None,) * len(gradients)


def test_t_moves_input_and_target_alike() -> None:
    """A pair whose two images are equal is still such a pair after T."""
    image = torch.rand(16, 1, 8, 8)
    T = FlipShift(shift=2, flip=0.5, padding="reflect")
    moved = T(Batch(torch.cat([image, image], 1))).x
    x, y = split_pair(moved, 1)
    assert torch.equal(x, y)
    assert not torch.equal(x, image)


def test_consistency_on_pairs_is_crs_formula() -> None:
    task = game(ConsistencyRegularization(10.0))
    views = {}

    class Watched(nn.Module):
        def __init__(self, D: nn.Module) -> None:
            super().__init__()
            self.D = D

        def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
            views["x"], views["logits"] = x, self.D(x, y)
            return views["logits"]

    task.adversary.D = Watched(task.adversary.D)
    _, d_terms = losses(task)
    assert len(views["x"]) == 3 * len(PAIRS)  # real, fake and T(real), in one call
    real, _, moved = views["logits"].split(len(PAIRS))
    torch.testing.assert_close(d_terms["cr/real"], 10 * (real - moved).square().mean())


def test_another_number_of_d_steps_is_refused() -> None:
    task = game()
    with pytest.raises(UserError, match=r"optimizer\.n_dis=1"):
        Pix2Pix(task.G, task.adversary, A, n_dis=5, lambda_l1=100.0)


# --- as a game of the trainer --------------------------------------------------------------------

REGULARIZERS: dict[str, Callable[[], list[Regularizer]]] = {
    "none": list,
    "bcr": lambda: [BalancedConsistency(10.0, 10.0)],
    "lazy": lambda: [R1(10.0, every=2), ConsistencyRegularization(10.0)],
    "gp": lambda: [GradientPenalty(10.0)],
}


def trainer(engine: Eager, parts: list[Regularizer]) -> Trainer:
    """12 pairs in batches of 4, a learning rate that falls in the second half."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(256, (12, A + B, 8, 8), generator=generator, dtype=torch.uint8)
    task = game(*parts).float()
    engine = engine.for_device(CPU)
    engine.prepare(task, CPU)
    return Trainer(
        task,
        engine,
        Adam(1e-3, 2e-3, 0.5, 0.9, 1e-8, 1, "linear", decay_from=0.5),
        lambda stage: Batches(
            Images(x, torch.zeros(12, dtype=torch.int64)),
            batch_size=4,
            seed=1,
            device=CPU,
            flip=True,
        ),
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


def test_a_resumed_game_is_one_that_never_stopped() -> None:
    whole = run(trainer(Eager(), REGULARIZERS["lazy"]()), 9)
    first = trainer(Eager(), REGULARIZERS["lazy"]())
    run(first, 5)
    second = trainer(Eager(), REGULARIZERS["lazy"]())
    go_on(first, second, 5)
    resumed = run(second, 4)
    assert different(whole, resumed) == []


def test_g_goes_first_and_both_see_the_same_pairs() -> None:
    seen: list[tuple[str, bool, float]] = []

    class Watched(Eager):
        def run_turn(self, turn, inputs):
            log = super().run_turn(turn, inputs)
            seen.append((turn.who, bool(inputs), self.reals["real"].x.sum().item()))
            return log

    run(trainer(Watched(), []), 2)
    g1, d1, g2, d2 = seen
    assert [(who, new) for who, new, _ in seen] == [("g", True), ("d", False)] * 2
    assert g1[2] == d1[2] != g2[2] == d2[2]


def test_the_d_step_runs_no_network_of_g_and_casts_none_of_its_weights() -> None:
    task = game().float()
    engine = Eager("bf16")
    engine.prepare(task, CPU)
    task.player_loss("g", {"real": Batch(PAIRS)})
    assert "g" not in task.players_run("d")
    with engine.bf16_weights("d"):
        cast = {who: any("weight" in vars(m) for m in task.player(who).modules()) for who in "gd"}
    assert cast == {"g": False, "d": True}
    task.G.register_forward_pre_hook(lambda *_: pytest.fail("G runs in D's step"))
    task.player_loss("d", {"real": Batch(PAIRS)})

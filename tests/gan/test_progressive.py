"""Progressive growing: what fades, what changes at a border, and that it resumes anywhere."""

from typing import Any

import pytest
import torch
from support.games import different, go_on, run
from support.tapes import Taped
from support.tiny import TinyDiscriminator, TinyGenerator
from torch import Tensor

from crgan_cli.data.batches import Batches, TrainingImages
from crgan_cli.data.images import Images
from crgan_cli.data.levels import shrink_images
from crgan_cli.errors import UserError
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import Cutout, FlipShift
from crgan_cli.gan.losses import Wasserstein
from crgan_cli.gan.regularizers.base import CombinedRegularizer, Regularizer
from crgan_cli.gan.regularizers.consistency import BalancedConsistency, LatentConsistency
from crgan_cli.gan.regularizers.drift import Drift
from crgan_cli.gan.regularizers.penalties import R1, GradientPenalty
from crgan_cli.gan.stages import Stage, Stages
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.gan.tasks.progressive import Progressive
from crgan_cli.gan.types import Batch, PlayerLoss, Views
from crgan_cli.networks.growth import Growth
from crgan_cli.networks.pggan import PGGANDiscriminator, PGGANGenerator
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.optimizers import Adam
from crgan_cli.training.trainer import Trainer

CPU = torch.device("cpu")
SCHEDULE: dict[str, Any] = {
    "first_resolution": 4,
    "fade_images": 12,
    "stable_images": 8,
    "batch_sizes": [4, 4, 2],
    "rates": [1.0, 1.5, 2.0],
}
STAGES = Stages.growing(resolution=16, n_dis=1, **SCHEDULE)
# 4 px in steps 0 and 1; 8 px fades in steps 2 to 4, up to step 6; 16 px fades in steps 7 to 12
STEPS = 15
GP = (GradientPenalty(10.0, target=750.0), Drift(0.001))
ICR = (BalancedConsistency(10.0, 10.0), LatentConsistency(5.0, 0.5, 0.03))


class Watched(Progressive):
    """Notes what each turn of D is given, and where the networks are."""

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        if who == "d":
            self.seen = getattr(self, "seen", [])
            self.seen.append((self.growth.level, self.growth.alpha.item(), reals["real"].x.shape))
        return super().player_loss(who, reals)


def task(*parts: Regularizer, spectral: bool = False) -> Watched:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"fmap_base": 32, "fmap_max": 8, "width": 1.0}
    none: dict[str, Any] = {"channels": 3, "classes": 0, "labels": "none"}
    G = PGGANGenerator(16, z_dim=4, **none, **sizes)
    D = PGGANDiscriminator(16, mbstd_group=2, **none, **sizes)
    T = FlipShift(shift=2, flip=0.5, padding="reflect")
    T.set_full_side(16)
    named = {type(part).__name__: part for part in parts}
    adversary = Adversary(D, Wasserstein(), CombinedRegularizer(**named), T)
    return Watched(G, adversary, Prior("normal", 4, 0), STAGES, n_dis=1, **SCHEDULE)


def trainer(engine: Eager, *parts: Regularizer) -> Trainer:
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(256, (12, 3, 16, 16), generator=generator, dtype=torch.uint8)
    made = task(*parts or GP)
    engine = engine.for_device(CPU)
    engine.prepare(made, CPU)

    images = Images(x, torch.zeros(12, dtype=torch.int64))

    def make(stage: Stage) -> TrainingImages:
        shrunk = shrink_images(images, stage.resolution, "")
        return Batches(shrunk, batch_size=stage.batch_size, seed=1, device=CPU, flip=True)

    return Trainer(
        made,
        engine,
        Adam(1e-3, 2e-3, 0.0, 0.99, 1e-8, 1, "none"),
        make,
        STAGES,
        ema=EMA(made.G, 0.9, start=3),
        seed=1,
        steps=STEPS,
        log_every=3,
    )


# --- a run ----------------------------------------------------------------------------------------


def test_resolution_alpha_and_batch_size_follow_the_schedule() -> None:
    made = trainer(Eager())
    run(made, STEPS)
    assert isinstance(made.task, Watched)
    seen = made.task.seen
    assert [level for level, *_ in seen] == [0] * 2 + [1] * 5 + [2] * 8
    alphas = [1, 1, 0, 1 / 3, 2 / 3, 1, 1, *(k / 6 for k in range(6)), 1, 1]
    assert [alpha for _, alpha, _ in seen] == pytest.approx(alphas)
    assert [tuple(shape) for *_, shape in seen] == (
        [(4, 3, 4, 4)] * 2 + [(4, 3, 8, 8)] * 5 + [(2, 3, 16, 16)] * 8
    )
    assert made.images_seen == 7 * 4 + 8 * 2


def test_layers_learn_from_the_stage_on_in_which_they_come() -> None:
    made = trainer(Eager())
    start = {key: value.clone() for key, value in made.task.state_dict().items()}
    made.begin()
    moved: dict[int, set[str]] = {}
    for step in range(1, 9):
        made.train_step()
        state = made.task.state_dict()
        moved[step] = {key for key in start if not torch.equal(start[key], state[key])}
    assert "G.to_rgb.0.weight" in moved[1]
    assert not [key for key in moved[2] if ".blocks." in key or "rgb.1" in key]
    # at alpha = 0 the new layers have no gradient, and without momentum Adam leaves them
    assert {key for key in moved[3] if ".blocks." in key} == set()
    assert {"G.blocks.0.up.weight", "adversary.D.from_rgb.1.weight"} <= moved[4]
    assert not [key for key in moved[7] if ".blocks.1" in key or "rgb.2" in key]


def test_adam_begins_anew_and_the_rate_changes_with_each_resolution() -> None:
    made = trainer(Eager())
    made.begin()
    counts, rates = [], []
    for _ in range(9):
        made.train_step()
        for who in "g":
            optimizer = made.optimizers[who]
            first = optimizer.state[next(iter(made.task.networks(who)[0].parameters()))]
            counts.append(int(first["step"]))
            rates.append(optimizer.param_groups[0]["lr"].item())
    assert counts == [1, 2, 1, 2, 3, 4, 5, 1, 2]
    assert rates == pytest.approx([1e-3] * 2 + [1.5e-3] * 5 + [2e-3] * 2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("parts", [GP, (*ICR, R1(10.0, every=2))], ids=["gp", "icr and r1"])
def test_captured_turns_give_the_bits_of_eager_ones(parts: tuple, precision: Any) -> None:
    """Fade and stable phase share a graph; each resolution has graphs of its own."""
    engine = Taped(precision=precision, fold="auto")
    one = run(trainer(Eager(precision=precision, fold="auto"), *parts), STEPS)
    assert not different(one, run(trainer(engine, *parts), STEPS))


def test_one_graph_a_player_and_resolution_serves_the_fade_and_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = run(trainer(Eager()), STEPS)
    monkeypatch.setattr(Growth, "serves_both_phases", True)  # as on CUDA
    moments = ("d.", "g.")  # those of the layer that is left behind go on fading
    unequal = different(alone, run(trainer(Eager()), STEPS))
    assert not [name for name in unequal if not name.startswith(moments)]
    engine = Taped()
    made = trainer(engine)
    run(made, 13)
    fading = {turn for turn in engine.captured if not turn.measure and turn.lerp_weight != 1.0}
    run_on = 2
    for _ in range(run_on):  # steps 13 and 14 do not fade
        made.train_step()
    stable = {turn for turn in engine.captured if not turn.measure and turn.lerp_weight != 1.0}
    assert fading == stable
    assert {turn.who for turn in fading} == {"d", "g"}


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_a_run_that_is_killed_anywhere_ends_in_the_same_bits(stop: int) -> None:
    """Also at a border of stages and in the middle of a fade."""
    whole = run(trainer(Eager()), STEPS)
    first = trainer(Eager())
    run(first, stop)
    second = trainer(Eager())
    go_on(first, second, stop)
    assert not different(whole, run(second, STEPS - stop))


# --- the parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_real_images_fade_as_the_networks_do(alpha: float) -> None:
    game = task()
    x = torch.rand(2, 3, 8, 8)
    game.growth.follow(1, alpha)
    half = x.view(2, 3, 4, 2, 4, 2).mean((3, 5))
    blocky = half.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = (1 - alpha) * blocky + alpha * x
    assert torch.allclose(game.fade(Batch(x)).x, expected, atol=1e-6)
    game.growth.follow(0, 1.0)
    assert torch.equal(game.fade(Batch(x)).x, x)


def test_both_players_and_the_average_are_where_the_schedule_is() -> None:
    game = task()
    average = EMA(game.G, 0.9, 0)
    game.set_turn("d", 4)
    for network in (game.G, game.adversary.D, average.G):
        assert (network.growth.level, round(network.growth.alpha.item(), 4)) == (1, 0.6667)
    assert game.signature() != task().signature()


def moved(T: FlipShift, x: Tensor) -> int:
    """The largest shift along a row in many draws."""
    ramp = torch.arange(x.shape[-1], dtype=torch.float32).expand_as(x)
    middle = x.shape[-1] // 2
    return int((T.transform(ramp)[..., middle] - middle).abs().max())


def test_t_shifts_and_cuts_a_share_of_the_side() -> None:
    T = FlipShift(shift=4, flip=0.0, padding="reflect")
    T.set_full_side(32)
    for side, most in ((32, 4), (16, 2), (8, 1), (4, 0)):
        assert moved(T, torch.zeros(200, 1, side, side)) == most
    C = Cutout(size=16)
    C.set_full_side(32)
    for side, size in ((32, 16), (16, 8), (8, 4), (4, 2)):
        cut = (C.transform(torch.ones(200, 1, side, side)) == 0).sum((1, 2, 3))
        assert cut.max() == size * size


def test_networks_that_cannot_grow_are_refused() -> None:
    adversary = Adversary(TinyDiscriminator(), Wasserstein(), CombinedRegularizer(), Cutout(size=2))
    with pytest.raises(UserError, match=r"TinyGenerator cannot grow.*architecture=pggan"):
        Progressive(TinyGenerator(), adversary, Prior("normal", 4, 0), STAGES, n_dis=1, **SCHEDULE)

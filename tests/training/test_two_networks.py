"""A player of two networks: the engine, the average and the checkpoint treat it like any other."""

from typing import Literal

import pytest
import torch
from support.games import different, go_on, run
from support.ranks import in_processes
from support.tapes import Taped
from support.tiny import SIDE, TinyDiscriminator, TinyGenerator
from torch import Tensor, nn

from crgan_cli.data.batches import Batches
from crgan_cli.data.images import Images
from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.losses import NonSaturating
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.regularizers.consistency import BalancedConsistency
from crgan_cli.gan.stages import Stages
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.types import Batch, PlayerLoss, Views
from crgan_cli.networks.fast import fused_resample
from crgan_cli.networks.fast.fused_resample import NearestConv3, PooledConv3
from crgan_cli.networks.fast.spectral import fixed_spectral_norm, spectral_norm
from crgan_cli.system import rng
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.compiler import compile_players
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.optimizers import Adam
from crgan_cli.training.trainer import Trainer

CPU = torch.device("cpu")


class UpsamplingGenerator(TinyGenerator):
    """A TinyGenerator that makes images of twice the size, by a convolution with two forms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = NearestConv3(2, 3)


class PoolingDiscriminator(TinyDiscriminator):
    """A TinyDiscriminator of such images: they shrink twice, first in a layer with two forms."""

    def __init__(self, *, spectral: bool) -> None:
        super().__init__(spectral=spectral)
        self.conv = nn.Sequential(spectral_norm(PooledConv3(3, 4)), nn.AvgPool2d(2))


class Twins(Task):
    """Two generators against two discriminators, each pair on half of the batch's latents."""

    turns = ("d", "g")

    def __init__(self, *, resampling: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        G = UpsamplingGenerator if resampling else TinyGenerator
        D = PoolingDiscriminator if resampling else TinyDiscriminator
        self.G = nn.ModuleDict({name: G() for name in "ab"})
        self.D = nn.ModuleDict({name: D(spectral=True) for name in "ab"})
        T = FlipShift(shift=2, flip=0.5, padding="reflect")
        self.adversaries = {
            name: Adversary(
                D, NonSaturating(), CombinedRegularizer(bcr=BalancedConsistency(10, 10)), T
            )
            for name, D in self.D.items()
        }

    def player(self, who: str) -> nn.Module:
        return {"d": self.D, "g": self.G}[who]

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        real, terms = reals["real"]._replace(y=None), {}
        for name, adversary in self.adversaries.items():
            z = rng.randn(len(real.x), 4, device=CPU, dtype=real.x.dtype)
            fakes = {"fake": Batch(self.G[name](z, None))}
            loss = (
                adversary.generator_loss(real, fakes)
                if who == "g"
                else adversary.discriminator_loss(real, fakes)
            )
            terms |= {f"{key}/{name}": value for key, value in loss.terms.items()}
        return PlayerLoss(terms, {})


def trainer(engine: Eager, *, resampling: bool = False) -> Trainer:
    side = 2 * SIDE if resampling else SIDE
    x = torch.randint(256, (12, 3, side, side), dtype=torch.uint8, generator=torch.Generator())
    task = Twins(resampling=resampling)
    engine = engine.for_device(CPU)
    engine.prepare(task, CPU)
    images = Images(x, torch.zeros(12, dtype=torch.int64))
    return Trainer(
        task,
        engine,
        Adam(1e-3, 2e-3, 0.5, 0.9, 1e-8, 1, "linear"),
        lambda stage: Batches(images, batch_size=4, seed=1, device=CPU, flip=True),
        Stages.single(32, 4, 1),
        ema=EMA(task.G, 0.9, start=3),
        seed=1,
        steps=20,
        log_every=3,
    )


def resume(stopped: Trainer, *, resampling: bool = False) -> Trainer:
    """A new trainer with all that a checkpoint of another one holds."""
    made = trainer(Eager(fold="auto"), resampling=resampling)
    go_on(stopped, made, stopped.step)
    return made


def test_both_networks_of_a_player_learn_and_are_averaged() -> None:
    before = {key: value.clone() for key, value in Twins().state_dict().items()}
    after = run(trainer(Eager()), 3)
    weights = [key for key in before if key.endswith(("linear.weight", "conv.weight"))]
    assert len(weights) == 4  # of G; spectral norm renames those of D
    assert not [key for key in weights if torch.equal(before[key], after[key])]
    assert {"ema.a.conv.weight", "ema.b.conv.weight"} <= after.keys()


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "bf16"}, {"spectral_norm": "each"}],
    ids=["fp32", "bf16", "spectral norm each"],
)
def test_captured_turns_give_the_bits_of_eager_ones(settings: dict) -> None:
    one, other = run(trainer(Eager(**settings)), 10), run(trainer(Taped(**settings)), 10)
    assert different(one, other) == []


def test_a_resumed_game_is_one_that_never_stopped() -> None:
    whole = run(trainer(Eager()), 9)
    first = trainer(Eager())
    run(first, 5)
    resumed = run(resume(first), 4)
    assert different(whole, resumed) == []


# --- folded convolutions -------------------------------------------------------------------------

FOLDABLE = ["G.a.conv", "G.b.conv", "D.a.conv.0", "D.b.conv.0"]
FOLDS: tuple[Literal["never"], Literal["always"]] = ("never", "always")


@pytest.mark.parametrize("who", ["d", "g"])
def test_folded_twins_have_the_losses_and_gradients_of_plain_ones(who: str) -> None:
    x = torch.rand(4, 3, 2 * SIDE, 2 * SIDE, dtype=torch.float64) * 2 - 1

    def judged(folded: bool) -> list[Tensor]:
        task = Twins(resampling=True).double()
        fused_resample.set_fused(task, dict.fromkeys(FOLDABLE, folded))
        torch.manual_seed(1)
        with fixed_spectral_norm(task.G, task.D):
            losses = list(task.player_loss(who, {"real": Batch(x)}).terms.values())
            torch.stack(losses).sum().backward()
        return losses + [w.grad for w in task.player(who).parameters() if w.grad is not None]

    plain, folded = judged(False), judged(True)
    assert len(plain) == {"d": 6 + 2 * 4, "g": 2 + 2 * 4}[who]  # losses, and weights that learn
    assert not all(map(torch.equal, folded, plain)), "the two were computed in the same way"
    for ours, theirs in zip(folded, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_layers_of_both_networks_fold_and_their_saved_weights_do_not() -> None:
    plain, folded = (trainer(Eager(fold=fold), resampling=True) for fold in FOLDS)
    states = run(plain, 1), run(folded, 1)
    assert plain.engine.folds == dict.fromkeys(FOLDABLE, False)
    assert folded.engine.folds == dict.fromkeys(FOLDABLE, True)
    shapes = [{key: value.shape for key, value in each.items()} for each in states]
    assert shapes[0] == shapes[1]
    assert shapes[1]["ema.b.conv.weight"][2:] == (3, 3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_captured_turns_of_folded_twins_give_the_bits_of_eager_ones(
    precision: Literal["fp32", "bf16"],
) -> None:
    engines = (kind(fold="always", precision=precision) for kind in (Eager, Taped))
    one, other = (run(trainer(engine, resampling=True), 10) for engine in engines)
    assert different(one, other) == []


@pytest.mark.parametrize("folded", [True, False])
def test_resumed_twins_fold_as_before_and_give_the_same_bits(
    folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fused_resample.FUSED_PAYS, "cpu", folded)
    whole = run(trainer(Eager(fold="auto"), resampling=True), 9)
    first = trainer(Eager(fold="auto"), resampling=True)
    run(first, 5)
    monkeypatch.setitem(fused_resample.FUSED_PAYS, "cpu", not folded)  # a newer version's table
    second = resume(first, resampling=True)
    resumed = run(second, 4)
    assert second.engine.folds == dict.fromkeys(FOLDABLE, folded)
    assert different(whole, resumed) == []


# --- compiling, and several processes ------------------------------------------------------------


def test_each_network_is_compiled_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **settings: compiled.append(type(self).__name__)
    )
    made = trainer(Eager())
    compile_players(made.engine.task, made.engine.players)
    assert compiled == ["TinyDiscriminator"] * 2 + ["TinyGenerator"] * 2


def test_two_processes_learn_what_one_does() -> None:
    alone = run(trainer(Eager()), 3)
    for found in in_processes(2, learn):
        assert isinstance(found, dict)
        for key, value in alone.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4, msg=key)


def learn() -> dict[str, Tensor]:
    """What a process learns in three steps."""
    return run(trainer(Eager()), 3)

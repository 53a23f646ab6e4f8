"""The networks of CycleGAN and StarGAN in turns of the engine: bf16, folded, channels last."""

from collections.abc import Callable

import pytest
import torch
from support.turns import played, prepared

from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.labels import LabelGroup, Labels
from crgan_cli.gan.losses import LeastSquares, Wasserstein
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.regularizers.classification import Classification
from crgan_cli.gan.regularizers.consistency import BalancedConsistency, ConsistencyRegularization
from crgan_cli.gan.regularizers.penalties import GradientPenalty
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.tasks.pix2pix import Pix2Pix
from crgan_cli.gan.tasks.two_players import TwoPlayers
from crgan_cli.gan.types import Batch, PlayerLoss, Views
from crgan_cli.networks.fast.fused_resample import fusable_layers
from crgan_cli.networks.patchgan import PatchDiscriminator
from crgan_cli.networks.stargan import StarGANDiscriminator, StarGANGenerator
from crgan_cli.networks.translator import ResnetTranslator
from crgan_cli.training.engine.eager import Eager

LABELS = Labels([LabelGroup("classes", ("a", "b", "c"))])
T = FlipShift(shift=2, flip=0.5, padding="reflect")


class Relabel(TwoPlayers):
    """Give each image the labels of its neighbour, and these back again."""

    turns = ("d", "g")

    def player_loss(self, who: str, reals: Views) -> PlayerLoss:
        x, y = reals["real"].x, LABELS.encode(torch.arange(len(reals["real"].x)) % 3)
        fake = Batch(self.G(x, y.roll(1, 0)), y.roll(1, 0))
        if who == "d":
            return self.adversary.discriminator_loss(Batch(x, y), {"fake": fake})
        loss = self.adversary.generator_loss(Batch(x, y), {"fake": fake})
        back = (self.G(fake.x, y) - x).abs().mean()
        return PlayerLoss(loss.terms | {"reconstruction": 10 * back}, loss.diagnostics)


def stargan() -> Task:
    G = StarGANGenerator(16, 3, LABELS.planes, 0.05, 1, "resize")
    D = StarGANDiscriminator(16, 3, LABELS.size, None, 0.05, spectral_norm=True)
    parts = {
        "classification": Classification(1.0, labels=LABELS),
        "gp": GradientPenalty(10.0),
        "cr": ConsistencyRegularization(10.0, classes=True),
    }
    return Relabel(G, Adversary(D, Wasserstein(), CombinedRegularizer(**parts), T))


def cyclegan() -> Task:
    """Its networks, in pix2pix's game, with G's turn first."""
    G = ResnetTranslator(16, 1, 2, 0.05, 1, "instance", "resize")
    D = PatchDiscriminator(16, 2, 1, 0.05, "instance", spectral_norm=False)
    regularizer = CombinedRegularizer(bcr=BalancedConsistency(10.0, 10.0))
    adversary = Adversary(D, LeastSquares(), regularizer, T)
    return Pix2Pix(G, adversary, 1, n_dis=1, lambda_l1=10.0, conditional=False)


def one_step(make: Callable[[], Task], **engine: object) -> dict[str, float]:
    """The numbers of a turn of each player, after which every weight has moved."""
    torch.manual_seed(0)
    task = make()
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    eager = Eager(**engine)  # type: ignore[arg-type]
    prepared(task, eager, Batch(x))
    before = {name: p.clone() for name, p in task.named_parameters()}
    numbers = {}
    for who in task.turns:
        numbers |= {name: value.item() for name, value in played(eager, who).items()}
    still = [n for n, p in task.named_parameters() if torch.equal(p, before[n])]
    assert all(name.endswith("bias") for name in still)  # before an instance norm: cancelled
    return numbers


@pytest.mark.parametrize("make", [stargan, cyclegan])
def test_bf16_folding_and_the_memory_format_change_numbers_by_rounding_alone(
    make: Callable[[], Task],
) -> None:
    plain = one_step(make, channels_last=False)
    assert plain == one_step(make, channels_last=False)
    assert len(fusable_layers(make())) == 2
    for changed, tolerance in (
        ({"channels_last": True}, 1e-4),
        ({"fold": "always"}, 1e-4),
        ({"precision": "bf16"}, 0.1),
    ):
        assert one_step(make, **changed) == pytest.approx(plain, rel=tolerance, abs=tolerance)

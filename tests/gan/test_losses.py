"""Each adversarial loss against its formula at logits small enough to compute by hand."""

from math import exp, log

import pytest
import torch
from support.tiny import SIDE, game

from crgan_cli.gan.losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Batch

REAL, FAKE = [2.0, -0.5], [0.5, -3.0]


def sigmoid(value: float) -> float:
    return 1 / (1 + exp(-value))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


D_CROSS_ENTROPY = mean([-log(sigmoid(r)) for r in REAL]) + mean(
    [-log(1 - sigmoid(f)) for f in FAKE]
)
EXPECTED = {
    Minimax: (D_CROSS_ENTROPY, mean([log(1 - sigmoid(f)) for f in FAKE])),
    NonSaturating: (D_CROSS_ENTROPY, mean([-log(sigmoid(f)) for f in FAKE])),
    # max(0, 1-2)=0, max(0, 1.5)=1.5 -> .75;  max(0, 1.5)=1.5, max(0, -2)=0 -> .75
    Hinge: (1.5, 1.25),
    Wasserstein: (-1.25 - 0.75, 1.25),
    # D: ((1)^2 + (1.5)^2)/4 + (.25 + 9)/4 ; G: ((.5)^2 + 16)/4
    LeastSquares: (3.25 / 4 + 9.25 / 4, 16.25 / 4),
}


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_loss_equals_the_formula_by_hand(kind: type[AdversarialLoss]) -> None:
    real, fake = (torch.tensor(values, dtype=torch.float64) for values in (REAL, FAKE))
    d, g = EXPECTED[kind]
    assert kind().d_loss(real, fake).item() == pytest.approx(d, abs=1e-12)
    assert kind().g_loss(fake).item() == pytest.approx(g, abs=1e-12)


@pytest.mark.parametrize("kind", [Minimax, NonSaturating], ids=lambda kind: kind.__name__)
def test_huge_logits_stay_finite(kind: type[AdversarialLoss]) -> None:
    huge = torch.tensor([1e4, -1e4])
    assert torch.isfinite(kind().d_loss(huge, huge))
    assert torch.isfinite(kind().g_loss(huge))


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
def test_g_is_paid_to_raise_its_logits(kind: type[AdversarialLoss]) -> None:
    fake = torch.zeros(3, requires_grad=True)
    kind().g_loss(fake).backward()
    assert fake.grad is not None
    assert (fake.grad < 0).all()


def test_the_relativistic_loss_compares_pairs_for_both_players() -> None:
    """The softplus of each pair's difference, and of its negative: log(1 + e^x)."""
    real, fake = (torch.tensor(values, dtype=torch.float64) for values in (REAL, FAKE))
    margins = [r - f for r, f in zip(REAL, FAKE, strict=True)]
    d, g = (mean([log(1 + exp(sign * m)) for m in margins]) for sign in (-1, 1))
    scored = ScoredViews({}, {"real": real, "fake": fake}, None)  # type: ignore[arg-type]
    assert Relativistic().d_terms(scored)["adversarial/d"].item() == pytest.approx(d, abs=1e-12)
    assert Relativistic().g_terms(scored)["adversarial/g"].item() == pytest.approx(g, abs=1e-12)


@pytest.mark.usefixtures("float64")
def test_in_a_g_step_d_sees_real_images_only_if_the_loss_compares_with_them() -> None:
    real = {"real": Batch(torch.rand(6, 3, SIDE, SIDE).double() * 2 - 1)}
    for loss, said in ((Relativistic(), "2 views: real fake"), (NonSaturating(), "1 view: fake")):
        task = game(loss=loss)
        seen = []
        task.adversary.D.register_forward_hook(lambda D, given, made, seen=seen: seen.append(made))
        task.player_loss("g", real)
        assert [len(made) for made in seen] == [6 * len(loss.g_roles)]
        assert any(said in line for line in task.describe_turns())

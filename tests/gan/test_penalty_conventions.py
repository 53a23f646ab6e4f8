"""What the YAML files say of other programs' penalties, in numbers: pixels in [0, 1], no 1/2."""

import pytest
import torch
from support.tiny import SIDE, TinyDiscriminator
from torch import Tensor

from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.regularizers.penalties import R1, GradientPenalty, JSRegularizer
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.types import Batch


@pytest.fixture
def D() -> TinyDiscriminator:
    torch.manual_seed(0)
    return TinyDiscriminator().double()


def images() -> Tensor:
    return torch.rand(6, 3, SIDE, SIDE, dtype=torch.float64) * 2 - 1


def term(part: Regularizer, D: TinyDiscriminator, x: Tensor) -> float:
    """The whole term, if the generated images are the real ones."""
    views = {"real": Batch(x), "fake": Batch(x)}
    scores = {name: D(x, None) for name in views}
    return sum(value.item() for value in part.d_terms(ScoredViews(views, scores, D)).values())


def slopes(D: TinyDiscriminator, x: Tensor, *, unit: bool) -> Tensor:
    """The squared gradient per image, by pixels in [0, 1] (`unit`) or in [-1, 1]."""
    pixels = ((x + 1) / 2 if unit else x).detach().requires_grad_()
    scores = D(pixels * 2 - 1 if unit else pixels, None)
    (gradient,) = torch.autograd.grad(scores.sum(), pixels)
    return gradient.square().sum((1, 2, 3))


def test_compare_gans_gradient_penalty_has_a_target_of_a_half_here(D: TinyDiscriminator) -> None:
    x = images()
    theirs = 10 * ((1e-4 + slopes(D, x, unit=True)).sqrt() - 1).square().mean()
    assert term(GradientPenalty(10, target=0.5), D, x) == pytest.approx(theirs.item(), rel=1e-3)
    assert term(GradientPenalty(10), D, x) != pytest.approx(theirs.item(), rel=0.1)


def test_jsr_on_pixels_from_0_to_1_has_four_times_the_weight_here(D: TinyDiscriminator) -> None:
    x = images()
    s = D(x, None).sigmoid()
    theirs = 0.1 / 2 * (((1 - s) ** 2 + s**2) * slopes(D, x, unit=True)).mean()
    assert term(JSRegularizer(0.4), D, x) == pytest.approx(theirs.item())


def test_r1_has_twice_the_weight_of_its_authors_code(D: TinyDiscriminator) -> None:
    x = images()
    assert term(R1(20), D, x) == pytest.approx(10 * slopes(D, x, unit=False).mean().item())

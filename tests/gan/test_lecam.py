"""LeCam's term and its averages, by hand."""

import pytest
import torch
from torch import Tensor, nn

from crgan_cli.gan.regularizers.lecam import LeCam
from crgan_cli.gan.scoring import ScoredViews


def term(part: LeCam, real: list[float], fake: list[float]) -> Tensor:
    scores = {"real": torch.tensor(real), "fake": torch.tensor(fake)}
    return part.d_terms(ScoredViews({}, scores, nn.Identity()))["lecam"]  # pyright: ignore[reportArgumentType]


def test_it_is_the_formula_with_the_averages_of_the_newest_step() -> None:
    part = LeCam(lambda_lc=0.5, decay=0.75, start=1)
    assert term(part, [4.0, 2.0], [-1.0, -3.0]).item() == 0  # before the start
    assert (part.a_real.item(), part.a_fake.item()) == (3, -2)  # of that step alone
    value = term(part, [1.0, -5.0], [2.0, 0.0])
    a_real, a_fake = 0.75 * 3 + 0.25 * -2, 0.75 * -2 + 0.25 * 1
    assert part.a_real.item() == pytest.approx(a_real)
    assert part.a_fake.item() == pytest.approx(a_fake)
    on_real = ((1 - a_fake) ** 2 + 0) / 2  # -5 is below the average of generated images
    on_fake = (0 + (a_real - 0) ** 2) / 2  # 2 is above that of real ones
    assert value.item() == pytest.approx(0.5 * (on_real + on_fake))


def test_gradients_go_to_the_scores_and_not_through_the_averages() -> None:
    part = LeCam(lambda_lc=1.0, decay=0.9, start=0)
    real = torch.tensor([2.0, 4.0], requires_grad=True)
    scores = {"real": real, "fake": torch.tensor([0.0, 0.0])}
    value = part.d_terms(ScoredViews({}, scores, nn.Identity()))["lecam"]  # pyright: ignore[reportArgumentType]
    (gradient,) = torch.autograd.grad(value, real)
    torch.testing.assert_close(gradient, real.detach() - part.a_fake)  # 2 (D - a) / 2 images


def test_its_averages_are_resumed() -> None:
    one, other = (LeCam(lambda_lc=1.0, decay=0.9, start=2) for _ in range(2))
    for _ in range(3):
        term(one, [1.0, 2.0], [0.5, -1.0])
    other.load_state_dict(one.state_dict())
    assert term(one, [3.0], [1.0]) == term(other, [3.0], [1.0])

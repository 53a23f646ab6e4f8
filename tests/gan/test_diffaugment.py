"""DiffAugment against its formulas, step by step."""

import pytest
import torch
from support.tiny import SIDE, TinyDiscriminator, TinyGenerator

from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import Augment, Chain
from crgan_cli.gan.diffaugment import DiffAugment
from crgan_cli.gan.losses import NonSaturating
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.regularizers.consistency import ConsistencyRegularization
from crgan_cli.gan.types import Batch

X = torch.rand(5, 3, 8, 8, generator=torch.manual_seed(1)) * 2 - 1


def apply(x: torch.Tensor, **steps: float | bool) -> torch.Tensor:
    settings = {"colour": False, "translation": 0.0, "cutout": 0.0, **steps}
    torch.manual_seed(3)
    return DiffAugment(**settings).transform(x)  # pyright: ignore[reportArgumentType]


def test_colours_are_brightness_then_saturation_then_contrast() -> None:
    found = apply(X, colour=True)
    torch.manual_seed(3)
    b, s, c = (torch.rand(5, 1, 1, 1) for _ in range(3))
    x = X + b - 0.5
    grey = x.mean(dim=1, keepdim=True)
    x = grey + 2 * s * (x - grey)
    mean = x.flatten(1).mean(1).view(5, 1, 1, 1)
    torch.testing.assert_close(found, mean + (c + 0.5) * (x - mean))


def test_a_translation_moves_whole_pixels_and_zeros_come_in() -> None:
    found = apply(X, translation=0.25)
    torch.manual_seed(3)
    down, right = torch.randint(-2, 3, (5, 1)), torch.randint(-2, 3, (5, 1))
    for image, moved, dy, dx in zip(X, found, down.flatten(), right.flatten(), strict=True):
        expected = torch.zeros_like(image)
        for row in range(8):
            for column in range(8):
                if 0 <= row + dy < 8 and 0 <= column + dx < 8:
                    expected[:, row, column] = image[:, row + dy, column + dx]
        assert torch.equal(moved, expected)


def test_a_cutout_is_a_square_that_the_edges_may_cut() -> None:
    found = apply(torch.ones(400, 1, 8, 8), cutout=0.5)
    torch.manual_seed(3)
    rows, columns = torch.randint(0, 9, (400, 1)), torch.randint(0, 9, (400, 1))
    position = torch.arange(8)

    def inside(centre: torch.Tensor) -> torch.Tensor:
        return (position >= centre - 2) & (position < centre + 2)

    expected = ~(inside(rows)[:, :, None] & inside(columns)[:, None, :])
    assert torch.equal(found[:, 0], expected.float())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_g_learns_through_every_step(layout: torch.memory_format) -> None:
    x = X.contiguous(memory_format=layout).requires_grad_()
    torch.manual_seed(0)
    made = DiffAugment(colour=True, translation=0.125, cutout=0.5).transform(x)
    (gradient,) = torch.autograd.grad(made.square().sum(), x)
    assert gradient.abs().flatten(1).sum(1).min() > 0


class Darker(Augment):
    """Less light, by an amount that no other transform takes."""

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        return x - 0.25


class Twice(Augment):
    """T of this test."""

    def transform(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_d_sees_everything_through_it_in_both_turns_and_t_before_it() -> None:
    torch.manual_seed(0)
    D, G = TinyDiscriminator(), TinyGenerator()
    regularizer = CombinedRegularizer(cr=ConsistencyRegularization(lambda_cr=10))
    adversary = Adversary(D, NonSaturating(), regularizer, Twice(), Chain(darker=Darker()))
    real = Batch(torch.rand(6, 3, SIDE, SIDE) * 2 - 1)
    fake = Batch(G(torch.randn(6, 4), None))
    terms = adversary.discriminator_loss(real, {"fake": fake}).terms
    seen = [D(x - 0.25, None) for x in (real.x, 2 * real.x, fake.x.detach())]
    torch.testing.assert_close(terms["cr/real"], 10 * (seen[0] - seen[1]).square().mean())
    torch.testing.assert_close(terms["adversarial/d"], NonSaturating().d_loss(seen[0], seen[2]))
    g_terms = adversary.generator_loss(real, {"fake": fake}).terms
    torch.testing.assert_close(g_terms["adversarial/g"], NonSaturating().g_loss(seen[2]))

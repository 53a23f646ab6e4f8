"""Orthogonal regularization and weight clipping."""

import pytest
import torch
from support.tiny import game
from torch import nn

from crgan_cli.errors import UserError
from crgan_cli.gan.regularizers.weights import (
    Orthogonal,
    WeightClipping,
    filter_matrices,
    non_orthogonality,
)
from crgan_cli.gan.types import Batch

REAL = {"real": Batch(torch.rand(6, 3, 8, 8, generator=torch.manual_seed(1)).double() * 2 - 1)}


pytestmark = pytest.mark.usefixtures("float64")


def test_only_angles_between_filters_count() -> None:
    filters = torch.tensor([[3.0, 0.0], [1.0, 2.0], [0.0, 5.0]])
    # products 3, 0 and 10 of the pairs, each twice in the matrix
    assert non_orthogonality(filters).item() == 2 * (3**2 + 0**2 + 10**2)
    assert non_orthogonality(torch.eye(4) * 7).item() == 0


def test_its_gradient_is_four_times_the_product_of_the_paper() -> None:
    w = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(non_orthogonality(w), w)
    products = w @ w.T
    expected = 4 * (products - products.diag().diag()) @ w
    torch.testing.assert_close(gradient, expected)


def test_the_filters_of_every_kind_of_layer_are_its_rows() -> None:
    layers = nn.Sequential(
        nn.Linear(3, 4),
        nn.Conv2d(3, 5, 2),
        nn.ConvTranspose2d(3, 6, 2),
        nn.utils.parametrizations.spectral_norm(nn.Linear(7, 2)),
        nn.Embedding(9, 9),
        nn.BatchNorm2d(8),
    )
    shapes = [tuple(each.shape) for each in filter_matrices(layers)]
    assert shapes == [(4, 3), (5, 12), (6, 12), (2, 7)]


def test_g_gets_it_in_its_turn() -> None:
    task = game(Orthogonal(beta=0.1))
    assert "orthogonal" not in task.player_loss("d", REAL).terms
    terms = task.player_loss("g", REAL).terms
    expected = sum(non_orthogonality(each) for each in filter_matrices(task.G))
    torch.testing.assert_close(terms["orthogonal"], 0.1 * expected)
    with torch.autocast("cpu", torch.bfloat16):
        inside = task.player_loss("g", REAL).terms["orthogonal"]
    torch.testing.assert_close(inside, terms["orthogonal"])  # a penalty is no bf16
    with pytest.raises(UserError, match="works on the generator of images from latents, and Pix"):
        task.adversary.require_roles(("real", "fake"), latents=False, task="Pix2Pix")


def test_weights_are_clipped_before_every_turn() -> None:
    task = game(WeightClipping(clip=0.05))
    before = [each.detach().clone() for each in task.adversary.D.parameters()]
    G = [each.detach().clone() for each in task.G.parameters()]
    assert max(each.abs().max() for each in before) > 0.05
    task.set_turn("g", 0)
    task.prepare_turn()
    for was, now in zip(before, task.adversary.D.parameters(), strict=True):
        assert torch.equal(now, was.clamp(-0.05, 0.05))
    assert all(torch.equal(was, now) for was, now in zip(G, task.G.parameters(), strict=True))
    assert task.player_loss("d", REAL).terms.keys() == {"adversarial/d"}

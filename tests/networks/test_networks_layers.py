"""Conditional batch norm, attention, heads."""

import pytest
import torch
from torch import nn

from crgan_cli.errors import UserError
from crgan_cli.networks import layers, norms


def test_scaled_rounds_and_never_reaches_zero() -> None:
    assert [layers.scale_channels(64, w) for w in (1.0, 0.25, 0.3, 0.001)] == [64, 16, 19, 1]


def test_initialise_draws_weights_and_zeroes_biases() -> None:
    net = nn.Sequential(nn.Linear(200, 300), nn.BatchNorm1d(300))
    layers.init_weights(net, layers.init_normal_002)
    assert net[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert net[0].bias.abs().max() == 0
    assert net[1].weight.min() == 1


def test_sngan_weights_have_gain_root_two_in_3x3_kernels_only() -> None:
    for size, gain in ((3, 2**0.5), (1, 1.0)):
        weight = layers.init_glorot_sngan(torch.empty(64, 32, size, size))
        limit = gain * (6 / ((64 + 32) * size**2)) ** 0.5
        assert 0.98 * limit < weight.abs().max() <= limit


def test_conditional_batch_norm_is_one_plus_the_maps_of_the_code() -> None:
    norm = norms.vector_batch_norm(4)(3).double()
    x, code = torch.randn(6, 3, 5, 5).double(), torch.randn(6, 4).double()
    mean = x.mean((0, 2, 3), keepdim=True)
    var = x.var((0, 2, 3), keepdim=True, correction=0)
    gain = 1 + code @ norm.gain.weight.T
    shift = code @ norm.shift.weight.T
    by_hand = (x - mean) / (var + 1e-5).sqrt() * gain[..., None, None] + shift[..., None, None]
    torch.testing.assert_close(norm(x, code), by_hand)


def test_label_norm_without_classes_is_plain_batch_norm() -> None:
    norm = norms.label_batch_norm(0)(3)
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(norm(x, None), nn.BatchNorm2d(3)(x))


def test_the_projection_head_is_the_formula() -> None:
    head = layers.logit_head(5, 3).double()
    assert isinstance(head, layers.ProjectionHead)
    h, y = torch.randn(4, 5).double(), torch.tensor([2, 0, 1, 2])
    linear = head.linear
    by_hand = [
        linear.weight[0] @ h[i] + linear.bias[0] + head.embed.weight[y[i]] @ h[i] for i in range(4)
    ]
    torch.testing.assert_close(head(h, y), torch.stack(by_hand))


def test_attention_starts_as_the_identity_and_is_the_formula() -> None:
    attend = layers.SelfAttention(16).double()
    x = torch.randn(2, 16, 4, 4).double()
    assert torch.equal(attend(x), x)
    nn.init.constant_(attend.sigma, 0.7)
    theta, phi, g, out = (
        torch.einsum("oc,nchw->nohw", conv.weight[:, :, 0, 0], x)
        if conv is not attend.out
        else conv.weight[:, :, 0, 0]
        for conv in (attend.theta, attend.phi, attend.g, attend.out)
    )
    pooled = [t.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)).flatten(2) for t in (phi, g)]
    weights = torch.softmax(torch.einsum("ndi,ndj->nij", theta.flatten(2), pooled[0]), dim=2)
    seen = torch.einsum("nij,nej->nei", weights, pooled[1]).reshape(2, 8, 4, 4)
    by_hand = x + 0.7 * torch.einsum("ce,nehw->nchw", out, seen)
    torch.testing.assert_close(attend(x), by_hand)


def test_the_sigmoid_image_is_compare_gans_carried_to_minus_one_one() -> None:
    x = torch.tensor([-50.0, 0.0, 50.0])
    torch.testing.assert_close(layers.sigmoid_image(x), torch.tensor([-1.0, 0.0, 1.0]))


def test_conditional_without_classes_says_what_to_type() -> None:
    with pytest.raises(UserError, match=r"architecture\.conditional=false"):
        layers.count_labels(True, 0)
    assert [layers.count_labels(c, 10) for c in (True, False)] == [10, 0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_keeps_the_memory_format(layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=layout)
    y = norms.InstanceNorm(3)(x)
    assert y.is_contiguous(memory_format=layout)
    torch.testing.assert_close(y, nn.InstanceNorm2d(3)(x))
    torch.testing.assert_close(y.mean((2, 3)), torch.zeros(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.var((2, 3), correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)

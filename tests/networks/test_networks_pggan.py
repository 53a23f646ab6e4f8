"""PGGAN's networks: parameter counts of the authors' nets, and every formula written out."""

from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from crgan_cli.errors import UserError
from crgan_cli.gan.scoring import mixes_samples
from crgan_cli.networks.equalized import (
    EqualizedConv,
    EqualizedLinear,
    EqualizedNearestConv3,
    scale_weight,
    scaled_once,
)
from crgan_cli.networks.growth import Growth
from crgan_cli.networks.pggan import (
    MinibatchStd,
    PGGANDiscriminator,
    PGGANGenerator,
    pixel_norm,
    require_groups,
)
from crgan_cli.networks.verdict import Verdict

SMALL: dict[str, Any] = {"fmap_base": 64, "fmap_max": 16, "width": 1.0}


def generator(resolution: int = 16, **changes: Any) -> PGGANGenerator:
    torch.manual_seed(1)
    settings = {"channels": 3, "classes": 0, "labels": "none", "z_dim": 6, **SMALL}
    return PGGANGenerator(resolution, **settings | changes)


def discriminator(resolution: int = 16, **changes: Any) -> PGGANDiscriminator:
    torch.manual_seed(2)
    settings = {"channels": 3, "classes": 0, "labels": "none", "mbstd_group": 4, **SMALL}
    return PGGANDiscriminator(resolution, **settings | changes)


# --- counts ---------------------------------------------------------------------------------------

PUBLISHED = [
    (1024, 3, 8192, 512, 23_079_115, 23_087_249),
    (256, 3, 8192, 512, 23_044_309, 23_052_353),
    (64, 3, 8192, 512, 22_490_383, 22_498_049),
    (32, 3, 8192, 512, 20_719_628, 20_726_785),
    (32, 1, 8192, 512, 20_715_524, 20_722_689),
    (32, 3, 4096, 128, 1_296_908, 1_298_689),  # the paper's net for CIFAR-10
]


@pytest.mark.parametrize(("side", "channels", "base", "most", "g", "d"), PUBLISHED)
def test_the_nets_have_the_parameters_of_the_authors(
    side: int, channels: int, base: int, most: int, g: int, d: int
) -> None:
    sizes = {"channels": channels, "fmap_base": base, "fmap_max": most}
    with torch.device("meta"):
        G = generator(side, **sizes, z_dim=min(512, most))
        D = discriminator(side, **sizes)
    assert [sum(p.numel() for p in net.parameters()) for net in (G, D)] == [g, d]


# --- layers ---------------------------------------------------------------------------------------


def test_equalised_layers_scale_their_weights_when_they_are_used() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 4, 4)
    conv, first = EqualizedConv(5, 7, 3), EqualizedLinear(5, 7, gain=1.0)
    expected = F.conv2d(x, conv.weight * (2 / (5 * 9)) ** 0.5, conv.bias, padding=1)
    assert torch.allclose(conv(x), expected, atol=1e-6)
    flat = x[:, :, 0, 0]
    assert torch.allclose(first(flat), flat @ first.weight.T / 5**0.5 + first.bias, atol=1e-6)
    up = EqualizedNearestConv3(5, 7)
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = F.conv2d(doubled, up.weight * (2 / (5 * 9)) ** 0.5, up.bias, padding=1)
    for up.use_fused in (False, True):
        assert torch.allclose(up(x), expected, atol=1e-5)
    weights = EqualizedConv(64, 64, 3).weight.detach()
    assert weights.mean().abs() < 0.02
    assert weights.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("bf16", [False, True])
def test_weights_that_are_scaled_once_give_the_same_numbers(bf16: bool) -> None:
    """Two calls of D, as in a turn, and a penalty in full precision; the last digits may differ."""
    D = discriminator().train()
    x = torch.rand(2, 4, 3, 16, 16) * 2 - 1
    found = []
    for context in (scaled_once(), nullcontext()):
        with context:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                one, other = D(x[0], None), D(x[1], None)
            image = x[1].clone().requires_grad_()
            (slope,) = torch.autograd.grad(D(image, None).sum(), image, create_graph=True)
            total = (one.square() - other).sum() + (slope.flatten(1).norm(dim=1) - 1).square().sum()
        found.append([total, *torch.autograd.grad(total, list(D.parameters()), allow_unused=True)])
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            apart = (ours - theirs).detach().norm() / theirs.detach().norm()
            assert apart < (0.05 if bf16 else 1e-5)


def test_a_scaled_weight_is_kept_for_one_turn_and_never_without_its_graph() -> None:
    layer, x = EqualizedLinear(3, 2), torch.randn(4, 3)
    with scaled_once():
        with torch.no_grad():
            layer(x)
        assert layer(x).requires_grad
        kept = scale_weight(layer, layer.weight, layer.scale)
        assert scale_weight(layer, layer.weight, layer.scale) is kept
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = scale_weight(layer, layer.weight, layer.scale)
            assert cast.dtype == torch.bfloat16
            assert scale_weight(layer, layer.weight, layer.scale) is cast
            assert scale_weight(layer, layer.weight, layer.scale, cast=False) is kept
    assert scale_weight(layer, layer.weight, layer.scale) is not kept
    with pytest.raises(ZeroDivisionError), scaled_once():
        raise ZeroDivisionError
    with scaled_once():
        assert scale_weight(layer, layer.weight, layer.scale) is not kept


def test_pixel_norm_by_hand() -> None:
    x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert pixel_norm(x).flatten().tolist() == pytest.approx([3 / 12.5**0.5, 4 / 12.5**0.5])
    assert pixel_norm(torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


def test_the_minibatch_deviation_is_of_strided_groups() -> None:
    x = torch.randn(8, 3, 2, 2, dtype=torch.float64)
    y = MinibatchStd(4)(x)
    assert torch.equal(y[:, :3], x)
    for n in range(8):  # 2 groups of 4: every second sample
        members = [m for m in range(8) if m % 2 == n % 2]
        total = 0.0
        for c in range(3):
            for i in range(4):
                values = [x[m, c].flatten()[i].item() for m in members]
                mean = sum(values) / 4
                total += (sum((v - mean) ** 2 for v in values) / 4 + 1e-8) ** 0.5
        assert y[n, 3].flatten().tolist() == pytest.approx([total / 12] * 4, rel=1e-6)


def test_a_small_batch_is_one_group_and_an_odd_one_is_refused() -> None:
    x = torch.randn(3, 2, 2, 2)
    assert MinibatchStd(4)(x)[:, 2].unique().numel() == 1
    D = discriminator()
    assert mixes_samples(D)
    for n in (1, 3, 4, 8):
        require_groups(D, n)
    with pytest.raises(UserError, match=r"groups of 4 .*batch of 10.*such as 8 per process"):
        require_groups(D, 10)


# --- whole networks, written out ------------------------------------------------------------------


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def he(layer: EqualizedConv, gain: float = 2**0.5) -> Tensor:
    return layer.weight * gain / layer.weight[0].numel() ** 0.5


def normal(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def half(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def shake(network: torch.nn.Module) -> None:
    """Move the biases from 0, or a wrong one would not be seen."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)


@pytest.mark.parametrize(("level", "alpha"), [(0, 1.0), (1, 0.3), (2, 0.0), (2, 1.0)])
def test_the_generator_is_the_papers(level: int, alpha: float) -> None:
    G = generator().double()
    shake(G)
    G.growth.follow(level, alpha)
    z = torch.randn(3, 6, dtype=torch.float64)

    dense = G.first.dense.weight * 2**0.5 / 4 / 6**0.5
    x = (normal(z) @ dense.T).view(3, 16, 4, 4) + G.first.bias.view(1, -1, 1, 1)
    x = normal(leaky(x))
    x = normal(leaky(F.conv2d(x, he(G.first.conv), G.first.conv.bias, padding=1)))
    images = [F.conv2d(x, he(G.to_rgb[0], 1.0), G.to_rgb[0].bias)]
    for block, to_rgb in zip(G.blocks, list(G.to_rgb)[1:], strict=True):
        x = normal(leaky(F.conv2d(twice(x), he(block.up), block.up.bias, padding=1)))
        x = normal(leaky(F.conv2d(x, he(block.conv), block.conv.bias, padding=1)))
        images.append(F.conv2d(x, he(to_rgb, 1.0), to_rgb.bias))
    expected = images[level]
    if level:
        expected = (1 - alpha) * twice(images[level - 1]) + alpha * expected
    assert torch.allclose(G(z, None), expected, atol=1e-9)
    with torch.no_grad():
        for _ in range(2 - level):
            expected = twice(expected)
        assert torch.allclose(G.eval()(z, None), expected, atol=1e-9)


@pytest.mark.parametrize(("level", "alpha"), [(0, 1.0), (1, 0.3), (2, 0.0), (2, 1.0)])
def test_the_discriminator_is_the_papers(level: int, alpha: float) -> None:
    D = discriminator().double()
    shake(D)
    D.growth.follow(level, alpha)
    image = torch.rand(8, 3, 4 << level, 4 << level, dtype=torch.float64) * 2 - 1

    def see(x: Tensor, i: int) -> Tensor:
        return leaky(F.conv2d(x, he(D.from_rgb[i]), D.from_rgb[i].bias))

    def down(x: Tensor, i: int) -> Tensor:
        for conv in (D.blocks[i].conv1, D.blocks[i].conv2):
            x = leaky(F.conv2d(x, he(conv), conv.bias, padding=1))
        return half(x)

    x = see(image, level)
    if level:
        x = (1 - alpha) * see(half(image), level - 1) + alpha * down(x, level - 1)
        for i in reversed(range(level - 1)):
            x = down(x, i)
    x = MinibatchStd(4)(x)
    x = leaky(F.conv2d(x, he(D.last.conv), D.last.conv.bias, padding=1))
    x = leaky(x.flatten(1) @ he(D.last.dense).T + D.last.dense.bias)
    expected = (x @ he(D.logits, 1.0).T + D.logits.bias)[:, 0]
    assert torch.allclose(D(image, None), expected, atol=1e-9)


def test_labels_join_the_latents_and_d_classifies_or_projects() -> None:
    y = torch.tensor([0, 2, 1, 2])
    G = generator(classes=3, labels="ac")
    z = torch.randn(4, 6)
    assert G.first.dense.in_features == 9
    assert not torch.equal(G(z, y), G(z, y.flip(0)))
    x = torch.randn(4, 3, 16, 16)
    verdict = discriminator(classes=3, labels="ac")(x, None)
    assert isinstance(verdict, Verdict)
    assert verdict.classes is not None
    assert (verdict.logits.shape, verdict.classes.shape) == ((4,), (4, 3))
    D = discriminator(classes=3, labels="projection")
    seen: list[Tensor] = []
    D.last.register_forward_hook(lambda module, inputs, h: seen.append(h))
    logits = D(x, y)
    w, b = D.logits.weight[0] / 16**0.5, D.logits.bias
    assert torch.allclose(logits, seen[0] @ w + b + (D.embed.weight[y] * seen[0]).sum(1), atol=1e-5)
    with pytest.raises(UserError, match=r"architecture\.labels=none"):
        generator(labels="projection")


# --- growth ---------------------------------------------------------------------------------------


def test_the_level_before_is_computed_only_while_it_fades_out() -> None:
    G, D = generator(), discriminator()
    D.growth = G.growth
    calls: list[str] = []
    for name, layers in (("g", G.to_rgb), ("d", D.from_rgb)):
        for i, layer in enumerate(layers):
            layer.register_forward_hook(lambda *_, seen=f"{name}{i}": calls.append(seen))
    expected = {
        (0, 1.0): "g0 d0",
        (1, 0.5): "g1 g0 d1 d0",
        (1, 1.0): "g1 d1",
        (2, 0.0): "g2 g1 d2 d1",
    }
    for (level, alpha), names in expected.items():
        calls.clear()
        G.growth.follow(level, alpha)
        D(G(torch.randn(4, 6), None), None)
        assert " ".join(calls) == names
        other = generator()
        other.load_state_dict(G.state_dict())
        assert other.growth.mixes == G.growth.mixes == (alpha < 1)


def test_at_alpha_1_nothing_of_the_old_level_is_left_in_any_precision() -> None:
    growth = Growth(2)
    for dtype in (torch.float32, torch.bfloat16):
        old, new = torch.randn(2, 100).to(dtype)
        assert torch.equal(growth.fade(old, new), new)
        growth.follow(2, 0.0)
        assert torch.equal(growth.fade(old, new), old)
        growth.follow(2, 1.0)


def test_a_copy_grows_with_the_network_and_a_state_tells_how_far_it_was() -> None:
    G = generator()
    average = deepcopy(G)
    assert average.growth is G.growth
    G.growth.follow(1, 0.25)
    other = generator()
    other.load_state_dict(average.state_dict())
    assert (other.growth.level, other.growth.alpha.item()) == (1, 0.25)
    z = torch.randn(2, 6)
    assert torch.equal(other(z, None), G(z, None))


@pytest.mark.parametrize(("side", "instead"), [(24, 32), (2, 4), (100, 128)])
def test_a_side_that_is_no_power_of_two_is_answered_with_the_next(side: int, instead: int) -> None:
    for network in (generator, discriminator):
        with pytest.raises(UserError, match=rf"{side}.*dataset.resolution={instead}"):
            network(side)


def test_a_d_that_has_not_grown_up_is_measured_on_images_of_the_full_size() -> None:
    D = discriminator(16)
    D.growth.follow(1, 0.5)
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(D.eval()(x, None), D.train()(half(x), None))

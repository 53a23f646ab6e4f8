"""Folded convolutions: the same numbers as the plain ones, and the choice of the form."""

import hashlib
import time
from copy import deepcopy
from typing import Literal

import pytest
import torch
from support.architectures import lively
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks.biggan import BigGANDiscriminator, BigGANGenerator
from crgan_cli.networks.fast import fused_resample
from crgan_cli.networks.fast.fused_resample import (
    FusedResampleConv3,
    NearestConv3,
    PooledConv3,
    ZeroInsertionConv3,
)
from crgan_cli.networks.fast.spectral import SpectralNorm
from crgan_cli.networks.resnet import (
    ResNet5Discriminator,
    ResNet5Generator,
    ResNetDiscriminator,
    ResNetGenerator,
)
from crgan_cli.networks.resnet_sngan import SNGANDiscriminator, SNGANGenerator

KINDS = [PooledConv3, NearestConv3, ZeroInsertionConv3]
IMAGES = {"resolution": 32, "channels": 3, "classes": 4, "conditional": True}


def biggan_generator(spectral_norm: bool) -> nn.Module:
    return BigGANGenerator(
        **IMAGES,
        z_dim=8,
        embed_dim=3,
        ch=2,
        g_multipliers=[4, 4, 4, 2],
        attention=True,
        width=1.0,
        spectral_norm=spectral_norm,
    )


def biggan_discriminator(spectral_norm: bool) -> nn.Module:
    return BigGANDiscriminator(
        **IMAGES,
        ch=2,
        d_multipliers=[1, 2, 2, 2],
        d_bottom=8,
        d_skip="always",
        attention=True,
        width=1.0,
        spectral_norm=spectral_norm,
    )


GENERATORS = {
    "resnet": lambda sn: ResNetGenerator(**IMAGES, z_dim=8, width=0.02),
    "resnet_sngan": lambda sn: SNGANGenerator(**IMAGES, z_dim=8, width=0.02),
    "biggan": biggan_generator,
}
DISCRIMINATORS = {
    "resnet": lambda sn: ResNetDiscriminator(**IMAGES, width=0.03, spectral_norm=sn),
    "resnet_sngan": lambda sn: SNGANDiscriminator(**IMAGES, width=0.03, spectral_norm=sn),
    "biggan": biggan_discriminator,
}


def assert_near(ours: Tensor, theirs: Tensor, within: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=within)


def derivatives(form: fused_resample.Form, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Value, gradients, and gradients of a function of the gradients."""
    leaves = [part.clone().requires_grad_() for part in (x, weight, bias)]
    y = form(leaves[0], leaves[1], leaves[2])
    first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum((g.square().sum() for g in first), y.sum()), leaves)
    return [part.detach() for part in (y, *first, *second)]


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_folded_form_has_the_values_and_derivatives_of_the_plain_one(
    kind: type[FusedResampleConv3], size: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    weight, bias = (torch.randn(*s, dtype=torch.float64) for s in ((4, 3, 3, 3), (4,)))
    plain, folded = (derivatives(form, x, weight, bias) for form in (kind.plain, kind.fused))
    assert all(g.abs().sum() > 0 for g in plain)
    for ours, theirs in zip(folded, plain, strict=True):
        assert_near(ours, theirs, 1e-12 * float(theirs.abs().max()))


@pytest.mark.parametrize("folded", [False, True])
def test_the_three_layers_are_what_they_are_called(folded: bool) -> None:
    x = torch.randn(2, 3, 4, 6)
    spread = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    corners = torch.zeros(2, 3, 8, 12)
    corners[:, :, ::2, ::2] = x

    def layer_and_conv(kind: type[FusedResampleConv3], before: Tensor) -> tuple[Tensor, Tensor]:
        layer = kind(3, 5)
        layer.use_fused = folded
        return layer(x), F.conv2d(before, layer.weight, layer.bias, padding=1)

    mine, conv = layer_and_conv(PooledConv3, x)
    squares = [conv[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    torch.testing.assert_close(mine, sum(squares) / 4)
    torch.testing.assert_close(*layer_and_conv(NearestConv3, spread))
    torch.testing.assert_close(*layer_and_conv(ZeroInsertionConv3, corners))


def test_zero_insertion_puts_the_value_in_the_top_left_corner_in_either_layout() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).repeat(1, 2, 1, 1)
    expected = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    for layout in (torch.contiguous_format, torch.channels_last):
        corners = fused_resample.insert_zeros(x.contiguous(memory_format=layout))
        assert corners.is_contiguous(memory_format=layout)
        assert corners[0].tolist() == [expected] * 2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_work_in_bf16_and_keep_the_layout(
    kind: type[FusedResampleConv3], layout: torch.memory_format
) -> None:
    layer = kind(8, 8).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(2, 8, 8, 8).contiguous(memory_format=layout)
    exact = layer(x)
    for layer.use_fused in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
        assert y.dtype == torch.bfloat16
        assert y.is_contiguous(memory_format=layout)
        torch.testing.assert_close(y.float(), exact, rtol=0.02, atol=0.02)
        y.float().square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()


def judged(net: nn.Module, given: Tensor, folded: bool) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of a loss that holds the slope of the output."""
    fused_resample.set_fused(net, dict.fromkeys(fused_resample.fusable_layers(net), folded))
    x = given.clone().requires_grad_()
    y = net(x, torch.arange(len(x)) % 4)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    loss = y.square().mean() + slope.square().mean()
    grads = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    return y.detach(), [g for g in grads if g is not None]


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("player", ["g", "d"])
def test_a_folded_network_is_the_plain_one(name: str, player: str, spectral_norm: bool) -> None:
    build = (GENERATORS if player == "g" else DISCRIMINATORS)[name]
    net = lively(build(spectral_norm))
    given = torch.randn(3, 8) if player == "g" else torch.rand(3, 3, 32, 32)
    for module in net.modules():
        if isinstance(module, SpectralNorm):
            module.eval()  # so that no power iteration tells one call from the other
    plain, grads = judged(net, given.double(), folded=False)
    folded, others = judged(net, given.double(), folded=True)
    assert_near(folded, plain, 1e-11 * float(plain.abs().max()))
    assert len(grads) >= len(list(net.parameters())) - 1
    same = [torch.equal(ours, theirs) for ours, theirs in zip(others, grads, strict=True)]
    assert not all(same), "the two were computed in the same way"
    scale = max(float(g.abs().max()) for g in grads)
    for ours, theirs in zip(others, grads, strict=True):
        assert_near(ours, theirs, 1e-10 * scale)


@pytest.mark.parametrize(
    ("name", "g", "d"),
    [
        ("resnet", "917664d84327", "7eabfb9e0c22"),
        ("resnet_sngan", "874b138f60b7", "6723f82133ca"),
        ("biggan", "8725fb9c324f", "67a024ed2a14"),
    ],
)
def test_weights_have_the_names_of_checkpoints_from_before_folding(
    name: str, g: str, d: str
) -> None:
    for player, digest in ((GENERATORS, g), (DISCRIMINATORS, d)):
        keys = "\n".join(player[name](False).state_dict())
        assert hashlib.sha256(keys.encode()).hexdigest().startswith(digest), keys


# --- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps", "xpu"])
@pytest.mark.parametrize("fold", ["auto", "always", "never"])
def test_the_choice_follows_from_the_setting_and_the_kind_of_device(
    fold: Literal["auto", "always", "never"], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_resample, "FUSED_PAYS", {"cpu": True, "cuda": False, "mps": True})
    net = nn.Sequential(PooledConv3(2, 2), nn.ReLU(), NearestConv3(2, 2), ZeroInsertionConv3(2, 2))
    expected = {"auto": device != "cuda", "always": True, "never": False}[fold]
    choices = fused_resample.choose_fused(net, fold, torch.device(device))
    assert choices == {"0": expected, "2": expected, "3": expected}


@pytest.mark.parametrize("player", ["g", "d"])
def test_choosing_leaves_no_trace_and_reads_no_clock(
    player: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal commands give equal bits: neither load nor an earlier run decides."""
    for clock in ("perf_counter", "monotonic", "process_time", "time"):
        monkeypatch.setattr(time, clock, lambda: pytest.fail("a stopwatch"))
    net = (biggan_generator if player == "g" else biggan_discriminator)(True)
    before = deepcopy(net)
    monkeypatch.setattr(nn.Module, "__call__", lambda *_: pytest.fail("the network was run"))
    state = torch.get_rng_state()
    first = fused_resample.choose_fused(net, "auto", torch.device("cpu"))
    assert len(first) >= 2
    assert fused_resample.choose_fused(net, "auto", torch.device("cpu")) == first
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before.state_dict()[key]), key
    assert not any(layer.use_fused for layer in fused_resample.fusable_layers(net).values())


def test_images_are_drawn_in_the_plain_form() -> None:
    layer, x = PooledConv3(3, 5).eval(), torch.rand(2, 3, 8, 8)
    before = layer(x)
    layer.use_fused = True
    assert torch.equal(layer(x), before)
    assert not torch.equal(layer.train()(x), before)  # but for rounding


def test_choices_can_be_applied_to_an_equal_network_and_to_no_other() -> None:
    net = DISCRIMINATORS["resnet"](False)
    choices = {name: i % 2 == 0 for i, name in enumerate(fused_resample.fusable_layers(net))}
    fused_resample.set_fused(net, choices)
    for equal in (DISCRIMINATORS["resnet"](False), deepcopy(net)):
        fused_resample.set_fused(equal, choices)
        assert {n: m.use_fused for n, m in fused_resample.fusable_layers(equal).items()} == choices
    with pytest.raises(AssertionError, match="another network"):
        fused_resample.set_fused(GENERATORS["resnet"](False), choices)


def test_resnet5_folds_all_of_its_changes_of_size() -> None:
    size = {"resolution": 128, "channels": 3, "width": 0.02}
    assert len(fused_resample.fusable_layers(ResNet5Generator(**size, z_dim=4))) == 10
    assert (
        len(fused_resample.fusable_layers(ResNet5Discriminator(**size, spectral_norm=False))) == 12
    )

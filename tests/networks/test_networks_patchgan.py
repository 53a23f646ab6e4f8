"""PatchGAN: published sizes, patches, the formula, and penalties on the gradient of its maps."""

from collections.abc import Callable

import pytest
import torch
from support.architectures import lively
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli import networks
from crgan_cli.errors import UserError
from crgan_cli.gan.regularizers.penalties import (
    DRAGAN,
    R1,
    GradientPenalty,
    GradientRegularizer,
)
from crgan_cli.gan.scoring import ScoredViews, mixes_samples
from crgan_cli.gan.types import Batch
from crgan_cli.networks.fast.adjoint import input_gradient, is_piecewise_linear
from crgan_cli.networks.fast.spectral import SpectralNorm
from crgan_cli.networks.norms import NormKind
from crgan_cli.networks.patchgan import RECEPTIVE_FIELDS, PatchDiscriminator

LAYERS = range(6)


def patches(
    layers: int = 3,
    *,
    side: int = 32,
    channels: int = 3,
    width: float = 0.05,
    norm: NormKind = "batch",
    spectral_norm: bool = False,
) -> PatchDiscriminator:
    kind = networks.PatchDiscriminator
    return kind(side, channels, layers, width, norm, spectral_norm)  # type: ignore[arg-type]


def images(n: int, side: int = 32, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, side, side, dtype=torch.float64) * 2 - 1


SIZES = {
    ("batch", 6): (9_024, 139_585, 666_433, 2_768_705, 6_964_033, 11_159_361),
    ("instance", 3): (8_705, 136_385, 662_977, 2_764_737, 6_959_553, 11_154_369),
}


@pytest.mark.parametrize(("norm", "channels"), SIZES)
def test_the_sizes_and_the_maps_are_the_published_ones(norm: NormKind, channels: int) -> None:
    for layers, size, side in zip(
        LAYERS, SIZES[norm, channels], (256, 126, 62, 30, 14, 6), strict=True
    ):
        with torch.device("meta"):
            net = patches(layers, side=256, channels=channels, width=1.0, norm=norm)
            logits = net(torch.zeros(2, channels, 256, 256), None)
        assert sum(p.numel() for p in net.parameters()) == size
        assert logits.shape == (2, 1, side, side)


@pytest.mark.parametrize("layers", LAYERS)
def test_one_logit_depends_on_a_patch_of_its_receptive_field(layers: int) -> None:
    side = RECEPTIVE_FIELDS[layers] + 2 ** (layers + 2)
    net = patches(layers, side=side, width=0.001, norm="none", channels=1)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.3)  # positive, so that nothing cancels
    x = torch.rand(1, 1, side, side, requires_grad=True)
    logits = net(x, None)[0, 0]
    middle = len(logits) // 2
    (gradient,) = torch.autograd.grad(logits[middle, middle], x)
    seen = gradient[0, 0].nonzero()
    low, high = seen.amin(0), seen.amax(0)
    field = RECEPTIVE_FIELDS[layers]
    assert (high - low + 1).tolist() == [field, field]
    assert len(seen) == field**2


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_it_is_the_table(layers: int, norm: NormKind) -> None:
    net = lively(patches(layers, norm=norm))
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    gains = iter(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    strides = [2] * layers + [1, 1] if layers else [1, 1, 1]
    dims = (0, 2, 3) if norm == "batch" else (2, 3)
    h = x = images(2)
    for index, (conv, stride) in enumerate(zip(convs, strides, strict=True)):
        last = index == len(convs) - 1
        normed = norm == "batch" and index > 0 and not (last and layers)
        assert (conv.bias is None) == normed
        h = F.conv2d(h, conv.weight, conv.bias, stride, padding=1 if layers else 0)
        if last:
            break
        if index and norm != "none":
            mean, var = h.mean(dims, keepdim=True), h.var(dims, keepdim=True, correction=0)
            h = (h - mean) / (var + 1e-5).sqrt()
        if index and norm == "batch":
            layer = next(gains)
            h = h * layer.weight[:, None, None] + layer.bias[:, None, None]
        h = F.leaky_relu(h, 0.2)
    torch.testing.assert_close(net(x, None), h)


def test_weights_start_as_the_authors() -> None:
    net = patches(width=0.5)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or module.bias.abs().max() == 0
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight - 1).abs().mean().item() == pytest.approx(0.016, rel=0.5)


@pytest.mark.parametrize(
    ("layers", "least", "words"),
    [(1, 6, r"d_layers=0 \(patches of 1 "), (3, 24, r"d_layers=2 \(patches of 34 ")],
)
def test_an_image_too_small_for_one_logit_is_refused(layers: int, least: int, words: str) -> None:
    assert patches(layers, side=least)(images(1, least).float(), None).shape == (1, 1, 1, 1)
    with pytest.raises(UserError, match=f"d_layers={layers} needs at least {least} .*{words}"):
        patches(layers, side=least - 1)


def test_only_batch_norm_mixes_the_images_of_a_batch() -> None:
    for norm, mixes in (("batch", True), ("instance", False), ("none", False)):
        net = lively(patches(norm=norm))
        x = images(3)
        assert mixes_samples(net) == mixes
        assert torch.allclose(net(x, None)[:1], net(x[:1], None)) != mixes


def test_logits_are_fp32_under_autocast() -> None:
    net, x = patches(norm="instance"), images(2).float()
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(x, None)
        features = net.layers[:-1](x)
    assert (features.dtype, logits.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(logits, net.layers[-1](features.float()))


def test_spectral_norm_is_on_every_convolution_where_it_is_asked_for() -> None:
    net = patches(norm="none", spectral_norm=True)
    assert sum(isinstance(m, SpectralNorm) for m in net.modules()) == 5
    assert is_piecewise_linear(net)
    assert not any(isinstance(m, SpectralNorm) for m in patches().modules())


# --- the gradient of a sum of logits --------------------------------------------------------------


def by_autograd(net: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, None).sum(), x, create_graph=True)
    return gradient


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_without_a_norm_the_adjoint_network_gives_autograds_gradient(layers: int) -> None:
    net, x = lively(patches(layers, norm="none")), images(2, 33)
    assert is_piecewise_linear(net)
    ours, theirs = input_gradient(net, x, None), by_autograd(net, x)
    torch.testing.assert_close(ours, theirs)
    assert ours.any()
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    pairs = (torch.autograd.grad(g.square().sum(), weights) for g in (ours, theirs))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other)
        assert one.any()


def gp(real: Tensor, fake: Tensor) -> Tensor:
    a = torch.rand(len(real), 1, 1, 1, dtype=torch.float64)
    return a * real + (1 - a) * fake


def dragan(real: Tensor, fake: Tensor) -> Tensor:
    a = torch.rand(len(real), 1, 1, 1, dtype=torch.float64)
    std = (real - real.mean()).square().mean().sqrt()
    return real + a * 0.5 * std * torch.rand(real.shape, dtype=torch.float64)


Place = Callable[[Tensor, Tensor], Tensor]
PENALTIES: dict[str, tuple[GradientRegularizer, Place, Callable[[Tensor], Tensor]]] = {
    "gp": (GradientPenalty(10.0), gp, lambda norm: 10 * (norm - 1).square().mean()),
    "dragan": (DRAGAN(10.0), dragan, lambda norm: 10 * (norm - 1).square().mean()),
    "r1": (R1(10.0), lambda real, fake: real, lambda norm: 5 * norm.square().mean()),
}


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_is_the_formula_and_reaches_the_weights(name: str, norm: NormKind) -> None:
    regularizer, place, formula = PENALTIES[name]
    net = lively(patches(2, norm=norm))
    assert regularizer.needs_double_backward(net) == (norm != "none")
    real, fake = images(3), images(3)
    views = {"real": Batch(real), "fake": Batch(fake)}
    scored = ScoredViews(views, {role: net(batch.x, None) for role, batch in views.items()}, net)
    torch.manual_seed(1)
    (value,) = regularizer.d_terms(scored).values()
    torch.manual_seed(1)
    slope = by_autograd(net, place(real, fake))
    by_hand = formula(torch.stack([g.square().sum().sqrt() for g in slope]))
    torch.testing.assert_close(value, by_hand)
    assert value > 0
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    pairs = (torch.autograd.grad(each, weights, retain_graph=True) for each in (value, by_hand))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other)
        assert one.any()

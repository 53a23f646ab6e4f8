"""CycleGAN's residual translator: published sizes, the formula, reflection, sizes it refuses."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli import networks
from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import to_plain
from crgan_cli.errors import UserError
from crgan_cli.networks.image_to_image import Reflect, ReflectionPad, Upsampling
from crgan_cli.networks.norms import NormKind
from crgan_cli.networks.translator import ResnetTranslator


def translator(
    side: int = 32,
    *,
    c_in: int = 3,
    c_out: int = 3,
    width: float = 0.05,
    blocks: int | None = 2,
    norm: NormKind = "instance",
    upsampling: Upsampling = "deconv",
) -> ResnetTranslator:
    return ResnetTranslator(side, c_in, c_out, width, blocks, norm, upsampling)


def images(n: int, height: int, width: int, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, height, width) * 2 - 1


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("width", "published"),
    [(1.0, (11_378_179, 7_837_699, 4_297_219)), (0.5, (2_850_563, 1_965_059, 1_079_555))],
)
def test_the_sizes_are_the_published_ones(width: float, published: tuple[int, ...]) -> None:
    with torch.device("meta"):
        sizes = tuple(size(translator(width=width, blocks=n)) for n in (9, 6, 3))
    assert sizes == published


@pytest.mark.parametrize(("side", "blocks"), [(32, 6), (128, 6), (252, 6), (256, 9), (512, 9)])
def test_the_resolution_decides_the_blocks_unless_they_are_given(side: int, blocks: int) -> None:
    with torch.device("meta"):
        assert size(translator(side, blocks=None)) == size(translator(blocks=blocks))


def test_the_yaml_is_the_published_network_and_the_code_fills_in_the_channels() -> None:
    config = to_plain(compose(["architecture=translator", "dataset=demo"]).architecture)
    assert config == {
        "_target_": {
            "generator": "crgan_cli.networks.ResnetTranslator",
            "discriminator": "crgan_cli.networks.PatchDiscriminator",
        },
        "resolution": 32,
        "width": 1.0,
        "blocks": None,
        "norm": "instance",
        "upsampling": "deconv",
        "d_layers": 3,
        "d_norm": "instance",
        "spectral_norm": False,
    }
    assert networks.ResnetTranslator is ResnetTranslator


def reflected(h: Tensor, p: int) -> Tensor:
    return F.pad(h, (p, p, p, p), mode="reflect")


@pytest.mark.parametrize("upsampling", ["deconv", "resize"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_it_is_the_table(norm: NormKind, upsampling: Upsampling) -> None:
    """c7s1-64, d128, d256, R256 x 2, u128, u64, c7s1-3."""
    net = translator(norm=norm, upsampling=upsampling, c_in=2).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    convs = iter(m for m in net.modules() if isinstance(m, kinds))
    gains = iter(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    dims = (0, 2, 3) if norm == "batch" else (2, 3)

    def normed(h: Tensor) -> Tensor:
        if norm == "none":
            return h
        mean, var = h.mean(dims, keepdim=True), h.var(dims, keepdim=True, correction=0)
        h = (h - mean) / (var + 1e-5).sqrt()
        if norm == "batch":
            layer = next(gains)
            h = h * layer.weight[:, None, None] + layer.bias[:, None, None]
        return h

    def conv(h: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        layer = next(convs)
        assert (layer.bias is None) == (norm == "batch" and layer.weight.shape[:2] != (3, 3))
        return F.conv2d(h, layer.weight, layer.bias, stride, padding)

    def doubled(h: Tensor) -> Tensor:
        if upsampling == "resize":
            return conv(h.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1)
        layer = next(convs)
        return F.conv_transpose2d(h, layer.weight, layer.bias, 2, 1, 1)

    x = images(2, 12, 16, channels=2).double()
    h = F.relu(normed(conv(reflected(x, 3))))
    h = F.relu(normed(conv(h, stride=2, padding=1)))
    h = F.relu(normed(conv(h, stride=2, padding=1)))
    assert h.shape == (2, 13, 3, 4)
    for _ in range(2):
        inner = F.relu(normed(conv(reflected(h, 1))))
        h = h + normed(conv(reflected(inner, 1)))
    h = F.relu(normed(doubled(h)))
    h = F.relu(normed(doubled(h)))
    out = conv(reflected(h, 3)).tanh()
    assert next(convs, None) is None
    assert out.shape == (2, 3, 12, 16)
    torch.testing.assert_close(net(x), out)


def test_weights_start_as_the_authors() -> None:
    net = translator(width=0.3, blocks=1, norm="batch")
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or module.bias.abs().max() == 0
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight - 1).abs().mean().item() == pytest.approx(0.016, rel=0.5)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("padding", "shape"), [(1, (2, 3, 2, 5)), (3, (1, 4, 4, 7))])
def test_reflection_is_torchs_forward_bit_for_bit_and_in_its_gradient(
    padding: int, shape: tuple[int, ...], memory: torch.memory_format
) -> None:
    x = torch.randn(shape).double().contiguous(memory_format=memory).requires_grad_()
    theirs = nn.ReflectionPad2d(padding)(x)
    for pad in (ReflectionPad(padding), lambda x: Reflect.apply(x, padding)):  # a CPU's, CUDA's
        ours = pad(x)
        assert torch.equal(ours, theirs)
        assert ours.is_contiguous(memory_format=memory)
        probe = torch.randn_like(ours)
        (one,) = torch.autograd.grad(ours, x, probe, retain_graph=True)
        (other,) = torch.autograd.grad(theirs, x, probe, retain_graph=True)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)
        assert torch.autograd.gradcheck(pad, (x,))
        assert torch.autograd.gradgradcheck(pad, (x,))


@pytest.mark.parametrize(("side", "other"), [(30, 32), (4, 8), (1, 8), (33, 32)])
def test_a_resolution_that_cannot_be_made_is_refused(side: int, other: int) -> None:
    words = f"{side}, but architecture=translator works at 8, 12 or another .*resolution={other},"
    with pytest.raises(UserError, match=words):
        translator(side)


@pytest.mark.parametrize(
    ("given", "fitting"), [((33, 64), "36x64"), ((4, 10), "8x12"), ((7, 1), "8x8")]
)
def test_images_of_another_size_are_refused_with_one_that_fits(
    given: tuple[int, int], fitting: str
) -> None:
    words = f"{given[0]}x{given[1]} pixels .* multiples of 4, and at least 8. .* to {fitting}"
    with pytest.raises(UserError, match=words):
        translator()(images(1, *given))
    assert translator()(images(1, 8, 36)).shape == (1, 3, 8, 36)


@pytest.mark.parametrize("upsampling", ["deconv", "resize"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_it_trains_in_float64_under_autocast_and_in_channels_last(
    norm: NormKind, upsampling: Upsampling
) -> None:
    net, x = translator(norm=norm, upsampling=upsampling), images(1, 16, 16)
    plain = net.eval()(x)
    again = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert again.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain, again)
    with torch.autocast("cpu", torch.bfloat16):
        y = net.train()(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.double()(x.double()).dtype == torch.float64

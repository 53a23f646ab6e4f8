"""pix2pix's U-Net: published sizes, the formula, dropout, and the sizes it refuses."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli import networks
from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import to_plain
from crgan_cli.errors import UserError
from crgan_cli.networks.fast.fused_resample import NearestConv3
from crgan_cli.networks.image_to_image import Upsampling
from crgan_cli.networks.norms import NormKind
from crgan_cli.networks.unet import UNetGenerator


def unet(
    side: int = 32,
    *,
    c_in: int = 3,
    c_out: int = 3,
    width: float = 0.05,
    norm: NormKind = "batch",
    dropout: float = 0.5,
    upsampling: Upsampling = "deconv",
) -> UNetGenerator:
    return UNetGenerator(side, c_in, c_out, width, norm, dropout, upsampling)


def images(n: int, height: int, width: int, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, height, width) * 2 - 1


@pytest.mark.parametrize(
    ("given", "published"),
    [
        ({}, (54_413_955, 41_828_995, 29_244_035, 16_659_075)),
        ({"norm": "instance"}, (54_409_603, 41_825_667, 29_241_731, 16_657_795)),
        ({"c_in": 1}, (54_411_907, 41_826_947, 29_241_987, 16_657_027)),
        ({"width": 0.25}, (3_404_451, 2_617_507, 1_830_563, 1_043_619)),
    ],
)
def test_the_sizes_are_the_published_ones(given: dict, published: tuple[int, ...]) -> None:
    for side, size in zip((256, 128, 64, 32), published, strict=True):
        with torch.device("meta"):
            net = unet(side, **({"width": 1.0} | given))
        assert sum(p.numel() for p in net.parameters()) == size
        assert net.multiple == side


def test_the_yaml_has_the_published_values_and_the_code_fills_in_the_channels() -> None:
    config = to_plain(compose(["architecture=unet", "dataset=demo"]).architecture)
    assert config == {
        "_target_": {
            "generator": "crgan_cli.networks.UNetGenerator",
            "discriminator": "crgan_cli.networks.PatchDiscriminator",
        },
        "resolution": 32,
        "width": 1.0,
        "norm": "batch",
        "dropout": 0.5,
        "upsampling": "deconv",
        "d_layers": 3,
        "d_norm": "batch",
        "spectral_norm": False,
    }
    assert networks.UNetGenerator is UNetGenerator
    for key in ("in_channels", "out_channels", "d_in_channels"):
        with pytest.raises(UserError, match=f"'{key}' in architecture"):
            compose(["architecture=unet", f"+architecture.{key}=3"])


def normalise(h: Tensor, norm: nn.Module, dims: tuple[int, ...]) -> Tensor:
    mean, var = h.mean(dims, keepdim=True), h.var(dims, keepdim=True, correction=0)
    h = (h - mean) / (var + 1e-5).sqrt()
    if isinstance(norm, nn.BatchNorm2d):
        h = h * norm.weight[:, None, None] + norm.bias[:, None, None]
    return h


@pytest.mark.parametrize("upsampling", ["deconv", "resize"])
@pytest.mark.parametrize(("norm", "dims"), [("batch", (0, 2, 3)), ("instance", (2, 3))])
def test_it_is_the_table(norm: NormKind, dims: tuple[int, ...], upsampling: Upsampling) -> None:
    """C64-C128-C256-C512-C512 and back, each block of the decoder joined with the encoder."""
    net = unet(norm=norm, upsampling=upsampling, dropout=0.0, c_in=2).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    convs = [m for m in net.modules() if isinstance(m, kinds)]
    norms = iter(m for m in net.modules() if isinstance(m, (nn.BatchNorm2d, nn.InstanceNorm2d)))
    assert [conv.weight.shape[0] for conv in convs[:5]] == [3, 6, 13, 26, 26]
    h = x = images(2, 32, 64, channels=2).double()
    skips = []
    for index, conv in enumerate(convs[:5]):
        assert (conv.bias is None) == (norm == "batch")
        h = F.leaky_relu(h, 0.2) if index else h
        h = F.conv2d(h, conv.weight, conv.bias, stride=2, padding=1)
        h = normalise(h, next(norms), dims) if index in (1, 2, 3) else h
        skips.append(h)
    assert h.shape == (2, 26, 1, 2)
    skips.pop()
    for index, conv in enumerate(convs[5:]):
        assert (conv.bias is None) == (norm == "batch" and index < 4)
        h = F.relu(h)
        if upsampling == "resize":
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = F.conv2d(h, conv.weight, conv.bias, padding=1)
        else:
            h = F.conv_transpose2d(h, conv.weight, conv.bias, stride=2, padding=1)
        if skips:
            h = torch.cat([normalise(h, next(norms), dims), skips.pop()], dim=1)
    assert next(norms, None) is None
    torch.testing.assert_close(net(x), h.tanh())
    assert net(x).shape == (2, 3, 32, 64)


def test_weights_start_as_the_authors() -> None:
    net = unet(width=0.5)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight - 1).abs().mean().item() == pytest.approx(0.016, rel=0.5)
            assert module.bias.abs().max() == 0
    assert net.up[-1][1].bias.abs().max() == 0


@pytest.mark.parametrize(
    ("side", "dropped"), [(256, [0, 1, 2]), (128, [0, 1, 2]), (64, [0, 1]), (32, [0])]
)
def test_dropout_is_in_the_decoders_first_three_blocks_of_512(
    side: int, dropped: list[int]
) -> None:
    net = unet(side, dropout=0.3)
    found = [[m for m in block if isinstance(m, nn.Dropout)] for block in net.up]
    assert [index for index, layers in enumerate(found) if layers] == dropped
    assert {layer.p for layers in found for layer in layers} == {0.3}
    assert not any(isinstance(m, nn.Dropout) for m in net.down.modules())


def test_dropout_is_its_only_noise_and_is_switched_apart_from_batch_norm() -> None:
    net, x = unet(), images(2, 32, 32)
    assert not torch.equal(net(x), net(x))
    for layer in net.modules():
        layer.train(not isinstance(layer, nn.Dropout))
    assert torch.equal(net(x), net(x))
    net.eval()
    for layer in net.modules():
        layer.train(isinstance(layer, nn.Dropout))
    assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    ("side", "multiple"), [(32, 32), (96, 32), (192, 64), (256, 256), (512, 256), (768, 256)]
)
def test_the_side_is_halved_as_often_as_it_can_be_at_most_8_times(side: int, multiple: int) -> None:
    net = unet(side, width=0.001, norm="none")
    assert net.multiple == multiple
    assert net(images(1, 2 * multiple, multiple)).shape == (1, 3, 2 * multiple, multiple)


@pytest.mark.parametrize(("side", "other"), [(28, 32), (16, 32), (286, 288), (100, 96)])
def test_a_resolution_that_cannot_be_made_is_refused(side: int, other: int) -> None:
    words = f"{side}, but architecture=unet works at 32, 64, 128, 256 .* Use .*resolution={other}"
    with pytest.raises(UserError, match=words):
        unet(side)


def test_images_of_another_size_are_refused_with_one_that_fits() -> None:
    with pytest.raises(UserError, match=r"33x64 pixels .* multiples of 32.* to 64x64"):
        unet()(images(1, 33, 64))


@pytest.mark.parametrize("upsampling", ["deconv", "resize"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_it_trains_in_float64_under_autocast_and_in_channels_last(
    norm: NormKind, upsampling: Upsampling
) -> None:
    net, x = unet(norm=norm, upsampling=upsampling), images(1, 32, 32)  # 1: as in the paper
    assert any(isinstance(m, NearestConv3) for m in net.modules()) == (upsampling == "resize")
    plain = net.eval()(x)
    again = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(plain, again)
    with torch.autocast("cpu", torch.bfloat16):
        y = net.train()(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.double()(x.double()).dtype == torch.float64

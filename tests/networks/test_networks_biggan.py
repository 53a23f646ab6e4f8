"""BigGAN's conventions: at equal settings the formulas of StudioGAN and of compare_gan.

The formulas are written out here from their code: StudioGAN's src/models/big_resnet.py and
src/config.py (ReLUs in place), compare_gan's resnet_biggan.py, resnet_ops.py and arch_ops.py.
"""

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import to_plain
from crgan_cli.config.stored import difference, from_text, to_text
from crgan_cli.gan.build import build_networks
from crgan_cli.networks.biggan import BigGANDiscriminator, BigGANGenerator
from crgan_cli.networks.layers import ToUnitInterval

NEW = ("input_range", "bn_eps", "g_upsampling", "gain_offset")
"""Settings that older runs do not have."""

COMPARE_GAN = (
    "architecture.d_skip=widths_differ",
    "architecture.d_bottom=4",
    "architecture.input_range=zero_one",
    "architecture.bn_eps=1e-5",
    "architecture.g_upsampling=zeros",
    "architecture.gain_offset=0",
)


def composed(*words: str) -> DictConfig:
    small = ("dataset=cifar10", "architecture=biggan_lite", "architecture.width=0.02")
    return compose([*small, "architecture.spectral_norm=false", *words])


def built(config: DictConfig) -> tuple[BigGANGenerator, BigGANDiscriminator]:
    """In float64, training mode, with weights of order 1: no layer hides behind a zero."""
    G, D = build_networks(config)
    assert isinstance(G, BigGANGenerator)
    assert isinstance(D, BigGANDiscriminator)
    for parameter in (*G.double().parameters(), *D.double().parameters()):
        nn.init.normal_(parameter, std=0.3)
    return G, D


def latents() -> tuple[Tensor, Tensor]:
    return torch.randn(4, 80, dtype=torch.float64), torch.tensor([0, 3, 3, 9])


def images() -> tuple[Tensor, Tensor]:
    return torch.rand(4, 3, 32, 32, dtype=torch.float64) * 2 - 1, latents()[1]


# --- D --------------------------------------------------------------------------------------------


def conv3(layer: nn.Module, x: Tensor) -> Tensor:
    """A 3x3 convolution, whatever resampling the layer would add."""
    assert isinstance(layer, nn.Conv2d)
    return F.conv2d(x, layer.weight, layer.bias, padding=1)


def conv1(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    return F.conv2d(x, layer.weight, layer.bias)


def two_convs(body: nn.Module, x: Tensor) -> Tensor:
    """3x3, ReLU, 3x3."""
    first, second = (layer for layer in body.modules() if isinstance(layer, nn.Conv2d))
    return conv3(second, torch.relu(conv3(first, x)))


def head(D: BigGANDiscriminator, h: Tensor, y: Tensor) -> Tensor:
    """ReLU, sum over places, a linear map and the projection."""
    pooled = torch.relu(h).sum((2, 3))
    return D.head.linear(pooled)[:, 0] + (D.head.embed(y) * pooled).sum(1)


def score_as_studiogan(D: BigGANDiscriminator, x: Tensor, y: Tensor) -> Tensor:
    _, first, attention, second, *rest = D.blocks
    h = F.avg_pool2d(two_convs(first.body, x), 2)
    h = attention(h + conv1(first.shortcut[1], F.avg_pool2d(x, 2)))
    h.relu_()  # in place: x0 = x, the shortcut, is changed too
    h = F.avg_pool2d(two_convs(second[1].body, h) + conv1(second[1].shortcut[1], h), 2)
    for block in rest:
        h.relu_()
        h = two_convs(block[1].body, h) + h
    return head(D, h, y)


def test_the_discriminator_of_biggan_lite_is_studiogans() -> None:
    _, D = built(composed())
    x, y = images()
    with torch.no_grad():
        torch.testing.assert_close(D(x, y), score_as_studiogan(D, x, y))


def test_without_the_relu_the_shortcuts_see_x_as_published() -> None:
    _, D = built(composed("architecture.d_skip=always"))
    x, y = images()
    _, first, attention, second, *rest = D.blocks
    h = F.avg_pool2d(two_convs(first.body, x), 2)
    h = attention(h + conv1(first.shortcut[1], F.avg_pool2d(x, 2)))
    h = F.avg_pool2d(two_convs(second.body, h.relu()) + conv1(second.shortcut[1], h), 2)
    for block in rest:
        h = two_convs(block.body, h.relu()) + h
    torch.testing.assert_close(D(x, y), head(D, h, y))


def test_compare_gans_discriminator_sees_images_from_0_to_1() -> None:
    _, D = built(composed(*COMPARE_GAN))
    x, y = images()
    _, first, attention, *rest = D.blocks
    moved = (x + 1) / 2
    h = F.avg_pool2d(two_convs(first.body, moved), 2)
    h = attention(h + conv1(first.shortcut[1], F.avg_pool2d(moved, 2)))
    for i, body in enumerate(rest):  # widths are equal: no shortcut
        h = two_convs(body, h.relu())
        h = F.avg_pool2d(h, 2) if i < 2 else h
    torch.testing.assert_close(D(x, y), head(D, h, y))


# --- G --------------------------------------------------------------------------------------------


def generate(
    G: BigGANGenerator, z: Tensor, y: Tensor, *, eps: float, offset: float, zeros: bool
) -> Tensor:
    def batch_norm(x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        return (x - mean) / (var + eps).sqrt()

    def conditional(norm: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
        gain, shift = offset + norm.gain(condition), norm.shift(condition)
        return batch_norm(x) * gain[:, :, None, None] + shift[:, :, None, None]

    def enlarge(x: Tensor) -> Tensor:
        out = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        if zeros:
            out[:, :, 1::2], out[..., 1::2] = 0, 0
        return out

    first, *chunks = z.chunk(4, 1)
    h = G.stem(first).view(len(z), -1, 4, 4)
    for chunk, each in zip(chunks, G.blocks, strict=True):
        condition = torch.cat([chunk, G.shared(y)], 1)
        block = getattr(each, "block", each)  # the second is followed by attention
        out = enlarge(conditional(block.norm1, h, condition).relu())
        out = conditional(block.norm2, conv3(block.conv1, out), condition).relu()
        (shortcut,) = (m for m in block.shortcut if isinstance(m, nn.Conv2d))
        h = conv3(block.conv2, out) + conv1(shortcut, enlarge(h))
        h = h if block is each else each.attention(h)
    norm = G.final_norm.norm
    h = batch_norm(h) * norm.weight[:, None, None] + norm.bias[:, None, None]
    return conv3(G.out, h.relu()).tanh()


def test_the_generator_of_biggan_lite_is_studiogans() -> None:
    G, _ = built(composed())
    z, y = latents()
    expected = generate(G, z, y, eps=1e-4, offset=1.0, zeros=False)
    torch.testing.assert_close(G(z, y), expected)


def test_compare_gans_generator_inserts_zeros_and_has_gains_around_0() -> None:
    G, _ = built(composed(*COMPARE_GAN))
    z, y = latents()
    expected = generate(G, z, y, eps=1e-5, offset=0.0, zeros=True)
    torch.testing.assert_close(G(z, y), expected)


# --- the settings ---------------------------------------------------------------------------------


def test_biggan_sees_what_compare_gans_does_and_upsamples_as_published() -> None:
    chosen = composed("architecture=biggan").architecture
    assert [chosen[key] for key in NEW] == ["zero_one", 1e-5, "nearest", 1.0]
    assert chosen.d_skip == "widths_differ"


def test_a_stored_run_without_the_settings_is_built_as_it_was_trained(tmp_path: Path) -> None:
    config = composed("architecture.d_skip=always", f"data_root={tmp_path}")
    old = to_plain(config)
    for key in NEW:
        del old["architecture"][key]
    text = to_text(OmegaConf.create(old))
    G, D = build_networks(from_text(text))
    assert isinstance(D.blocks[0], ToUnitInterval)
    assert {m.eps for m in G.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-5}
    same = build_networks(
        composed(
            "architecture.d_skip=always",
            "architecture.input_range=zero_one",
            "architecture.bn_eps=1e-5",
        )
    )
    for mine, theirs in zip((G, D), same, strict=True):
        assert mine.state_dict().keys() == theirs.state_dict().keys()
        mine.load_state_dict(theirs.state_dict())
    x, y = images()
    assert torch.equal(D(x.float(), y), same.D(x.float(), y))
    # and resumed with today's file it is refused by name
    assert difference(old, to_plain(config)) == [
        "architecture.input_range: (absent) -> minus_one_one",
        "architecture.bn_eps: (absent) -> 0.0001",
    ]

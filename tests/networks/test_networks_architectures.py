"""Every architecture: published sizes, shapes and ranges, independence of samples, labels."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.architectures import lively
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli import networks
from crgan_cli.errors import UserError
from crgan_cli.networks.biggan import BigGANDiscriminator, BigGANGenerator
from crgan_cli.networks.dcgan import DCGANDiscriminator, DCGANGenerator, SameDeconv5
from crgan_cli.networks.layers import WEIGHTED_LAYERS
from crgan_cli.networks.mlp import MLPDiscriminator, MLPGenerator
from crgan_cli.networks.mlp_maxout import MLPMaxoutDiscriminator, MLPMaxoutGenerator
from crgan_cli.networks.resnet import (
    ResNet5Discriminator,
    ResNet5Generator,
    ResNetDiscriminator,
    ResNetGenerator,
)
from crgan_cli.networks.resnet_sngan import SNGANDiscriminator, SNGANGenerator
from crgan_cli.networks.sndcgan import SNDCGANDiscriminator, SNDCGANGenerator

CONF = Path(__file__).parents[2] / "conf" / "architecture"
Settings = dict[str, object]

PAIRS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "sndcgan": (SNDCGANGenerator, SNDCGANDiscriminator),
    "dcgan": (DCGANGenerator, DCGANDiscriminator),
    "resnet": (ResNetGenerator, ResNetDiscriminator),
    "resnet_sngan": (SNGANGenerator, SNGANDiscriminator),
    "resnet5": (ResNet5Generator, ResNet5Discriminator),
    "biggan_lite": (BigGANGenerator, BigGANDiscriminator),
    "biggan": (BigGANGenerator, BigGANDiscriminator),
    "mlp": (MLPGenerator, MLPDiscriminator),
    "mlp_maxout": (MLPMaxoutGenerator, MLPMaxoutDiscriminator),
}
CONDITIONAL = ["resnet", "resnet_sngan", "biggan_lite", "biggan", "mlp", "mlp_maxout"]
WITHOUT_DROPOUT = {"d_dropout": 0.0, "d_input_dropout": 0.0}
IMAGENET: Settings = {"resolution": 128, "classes": 1000, "conditional": True}
GREY: Settings = {"resolution": 28, "channels": 1}
CGAN_PY: Settings = {
    "conditional": True,
    "label": "embedding",
    "d_units": [512, 512, 512],
    "d_dropout": 0.4,
}
TINY_SIDE = {name: 128 if name == "resnet5" else 32 for name in PAIRS}


def settings(name: str, **changes: object) -> Settings:
    """The YAML of an architecture for a data set of 32 px, 3 channels and 10 classes."""
    from omegaconf import OmegaConf

    facts = {"resolution": 32, "channels": 3, "classes": 10}
    whole = OmegaConf.create(
        {"dataset": facts, "architecture": OmegaConf.load(CONF / f"{name}.yaml")}
    )
    plain = OmegaConf.to_container(whole, resolve=True)
    assert isinstance(plain, dict)
    return plain["architecture"] | changes


def build(kind: type[nn.Module], given: Settings) -> nn.Module:
    names = inspect.signature(kind).parameters
    return kind(**{key: value for key, value in given.items() if key in names})


def tiny(name: str, player: int, **changes: object) -> nn.Module:
    width = 0.02 if name in ("resnet5", "biggan", "biggan_lite") else 0.05
    given = {"resolution": TINY_SIDE[name], "width": width} | changes
    return build(PAIRS[name][player], settings(name, **given))


def sizes(name: str, **changes: object) -> tuple[int, int]:
    """Parameters of G and D; spectral norm adds none and is slow on the meta device."""
    given = settings(name, spectral_norm=False, **changes)
    with torch.device("meta"):
        nets = [build(kind, given) for kind in PAIRS[name]]
    g, d = (sum(p.numel() for p in net.parameters()) for net in nets)
    return g, d


def labels(net: nn.Module, n: int) -> Tensor | None:
    return torch.arange(n) % net.classes if net.classes else None


def images(name: str, n: int) -> Tensor:
    return torch.rand(n, 3, TINY_SIDE[name], TINY_SIDE[name]) * 2 - 1


@pytest.mark.parametrize(
    ("name", "changes", "g", "d"),
    [
        ("sndcgan", {"resolution": 32}, 3_828_739, 5_860_865),
        ("sndcgan", {"resolution": 64}, 7_048_195, 5_885_441),
        ("sndcgan", {"resolution": 128}, 19_926_019, 5_983_745),
        ("dcgan", {"resolution": 32}, 4_572_163, 4_308_609),
        ("dcgan", {"resolution": 64}, 5_364_739, 4_314_753),
        ("dcgan", {"resolution": 128}, 8_535_043, 4_339_329),
        ("dcgan", {"resolution": 32, "batch_norm": True}, 4_572_163, 4_310_401),
        ("dcgan", {"resolution": 64, "batch_norm": True}, 5_364_739, 4_316_545),
        ("dcgan", {"resolution": 128, "batch_norm": True}, 8_535_043, 4_341_121),
        ("resnet", {}, 5_849_603, 1_483_137),
        ("resnet_sngan", {}, 4_276_739, 1_053_825),
        ("resnet_sngan", IMAGENET, 41_996_931, 39_443_137),
        ("resnet5", {"resolution": 128}, 13_786_115, 15_086_529),
        ("biggan_lite", {}, 9_416_196, 2_415_170),
        ("biggan_lite", {"d_skip": "widths_differ", "z_dim": 120}, 9_523_716, 2_378_114),
        ("biggan_lite", {"d_skip": "widths_differ", "attention": False}, 9_231_875, 2_332_033),
        ("biggan", {"resolution": 128, "classes": 1000}, 70_433_988, 87_982_370),
        ("mlp", GREY, 1_510_032, 533_505),
        ("mlp", GREY | CGAN_PY, 1_511_412, 932_965),
        ("mlp", GREY | CGAN_PY | {"resolution": 32}, 1_757_412, 1_055_845),
        ("mlp_maxout", GREY, 2_503_984, 1_231_441),
        ("mlp_maxout", GREY | {"conditional": True}, 2_413_984, 1_224_351),
    ],
)
def test_at_width_1_the_sizes_are_the_published_ones(
    name: str, changes: Settings, g: int, d: int
) -> None:
    assert sizes(name, **changes) == (g, d)


@pytest.mark.parametrize("name", PAIRS)
def test_every_key_of_the_yaml_is_read(name: str) -> None:
    read = {key for kind in PAIRS[name] for key in inspect.signature(kind).parameters}
    assert settings(name).keys() - {"_target_", "prior"} == read
    targets = settings(name)["_target_"]
    assert targets == {
        who: f"crgan_cli.networks.{kind.__name__}"
        for who, kind in zip(("generator", "discriminator"), PAIRS[name], strict=True)
    }
    assert all(getattr(networks, kind.__name__) is kind for kind in PAIRS[name])


@pytest.mark.parametrize("name", PAIRS)
def test_a_generator_makes_images_between_minus_one_and_one(name: str) -> None:
    net = tiny(name, 0)
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    last = [m for m in net.modules() if isinstance(m, kinds)][-1]
    with torch.no_grad():  # saturated, so that both ends of the range are reached
        last.bias.view(3, -1).copy_(torch.tensor([[-100.0], [0.0], [100.0]]))
    x = net(torch.randn(3, net.z_dim), labels(net, 3))
    assert x.shape == (3, net.channels, net.resolution, net.resolution)
    assert net.resolution == TINY_SIDE[name]
    torch.testing.assert_close(x[:, 0], torch.full_like(x[:, 0], -1))
    torch.testing.assert_close(x[:, 2], torch.full_like(x[:, 2], 1))
    assert x[:, 1].abs().max() < 1


@pytest.mark.parametrize("name", PAIRS)
def test_scores_are_one_a_sample_and_independent_of_the_rest_of_the_batch(name: str) -> None:
    # without spectral norm, whose vectors move from one call in training mode to the next
    net = lively(tiny(name, 1, spectral_norm=False, **WITHOUT_DROPOUT))
    x, y = images(name, 3).double(), labels(net, 3)
    scores = net(x, y)
    assert scores.shape == (3,)
    assert scores.unique().shape == (3,)
    alone = net(x[1:2], None if y is None else y[1:2])
    torch.testing.assert_close(alone, scores[1:2], rtol=1e-9, atol=0)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


def test_a_discriminator_with_batch_norm_shows_it() -> None:
    net = tiny("dcgan", 1, batch_norm=True)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == 3
    x = images("dcgan", 3)
    assert not torch.allclose(net(x, None)[:1], net(torch.cat([x[:1], -x[1:]]), None)[:1])


@pytest.mark.parametrize("name", PAIRS)
def test_a_gradient_penalty_reaches_every_weight_of_the_discriminator(name: str) -> None:
    net = tiny(name, 1)
    if hasattr(net, "blocks") and "biggan" in name:
        nn.init.ones_(dict(net.named_parameters())["blocks.2.sigma"])  # 0 hides the attention
    x = images(name, 2).requires_grad_()
    (slope,) = torch.autograd.grad(net(x, labels(net, 2)).sum(), x, create_graph=True)
    (slope.square().sum((1, 2, 3)) - 1).square().mean().backward()
    for key, parameter in net.named_parameters():
        if not key.endswith("bias"):  # a slope does not depend on the last bias
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", PAIRS)
def test_networks_work_in_float64_and_under_autocast(name: str) -> None:
    g, d = tiny(name, 0), tiny(name, 1)
    with torch.autocast("cpu", torch.bfloat16):
        fake = g(torch.randn(2, g.z_dim), labels(g, 2))
        score = d(fake.float(), labels(d, 2))
    assert fake.dtype == torch.bfloat16
    score.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in g.parameters())
    g, d = g.double(), d.double()
    fake = g(torch.randn(2, g.z_dim, dtype=torch.float64), labels(g, 2))
    assert d(fake, labels(d, 2)).dtype == torch.float64


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize("player", [0, 1], ids=["G", "D"])
def test_a_conditional_network_depends_on_the_label(name: str, player: int) -> None:
    net = tiny(name, player, conditional=True).eval()
    if name == "resnet_sngan" and player == 0:
        net.train()
        nn.init.normal_(net.blocks[0].norm1.gain.weight)  # the classes start equal
    given = images(name, 2) if player else torch.randn(2, net.z_dim)
    assert net.classes == 10
    same, other = torch.tensor([3, 4]), torch.tensor([3, 5])
    first, second = net(given, same), net(given, other)
    assert not torch.equal(first[1], second[1])
    if not net.training:
        torch.testing.assert_close(first[0], second[0])


@pytest.mark.parametrize("name", CONDITIONAL)
def test_without_conditional_labels_are_not_looked_at(name: str) -> None:
    for player in (0, 1):
        net = tiny(name, player, conditional=False).eval()
        given = images(name, 2) if player else torch.randn(2, net.z_dim)
        assert net.classes == 0
        assert torch.equal(net(given, None), net(given, torch.tensor([99, 99])))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditional_without_classes_is_refused(name: str) -> None:
    for player in (0, 1):
        with pytest.raises(UserError, match=r"architecture\.conditional=false"):
            tiny(name, player, conditional=True, classes=0)


@pytest.mark.parametrize(
    ("name", "side", "words"),
    [
        ("sndcgan", 50, "multiple of 8"),
        ("dcgan", 40, "architecture=sndcgan"),
        ("resnet", 64, "32 or 48 pixels.*biggan_lite"),
        ("resnet_sngan", 96, "32 or 48 or 128 pixels.*biggan_lite"),
        ("resnet5", 96, "128 or 192 pixels.*biggan_lite"),
        ("biggan_lite", 128, "32 or 48 or 64 or 96 pixels.*architecture=.*biggan "),
        ("biggan", 56, "32 or 48 or 64 or 96 or 128 or 192 pixels.*sndcgan"),
    ],
)
def test_a_resolution_that_cannot_be_made_is_refused(name: str, side: int, words: str) -> None:
    for player in (0, 1):
        with pytest.raises(UserError, match=f"dataset.resolution is {side}.*{words}"):
            tiny(name, player, resolution=side)


def test_biggan_refuses_a_latent_that_does_not_divide_and_names_one_that_does() -> None:
    with pytest.raises(UserError, match=r"z_dim=78 cannot be split into 4.*z_dim=80"):
        tiny("biggan_lite", 0, z_dim=78)


def test_biggan_refuses_too_few_multipliers() -> None:
    with pytest.raises(UserError, match=r"at least 4 numbers.*not 3"):
        tiny("biggan_lite", 0, g_multipliers=[4, 4, 4])


@pytest.mark.parametrize("name", ["sndcgan", "dcgan", "biggan_lite"])
def test_sixty_four_pixels_work_too(name: str) -> None:
    g, d = tiny(name, 0, resolution=64), tiny(name, 1, resolution=64)
    x = g(torch.randn(2, g.z_dim), labels(g, 2))
    assert x.shape == (2, 3, 64, 64)
    assert d(x, labels(d, 2)).shape == (2,)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("sndcgan", 48),
        ("dcgan", 96),
        ("resnet", 48),
        ("resnet_sngan", 48),
        ("resnet5", 192),
        ("biggan_lite", 48),
        ("biggan_lite", 96),
        ("biggan", 96),
    ],
)
def test_sides_of_three_times_a_power_of_two_begin_at_6x6(name: str, side: int) -> None:
    g, d = tiny(name, 0, resolution=side), tiny(name, 1, resolution=side)
    assert g.resolution == side
    first = next(layer for layer in g.modules() if isinstance(layer, nn.Linear))
    assert first.out_features % 36 == 0
    x = g(torch.randn(2, g.z_dim), labels(g, 2))
    assert x.shape == (2, 3, side, side)
    assert d(x, labels(d, 2)).shape == (2,)


@pytest.mark.parametrize(
    ("name", "sides", "stem"),
    [
        ("sndcgan", (40, 24), None),
        ("dcgan", (32, 48), None),
        ("mlp", (5, 3), None),
        ("mlp_maxout", (3, 5), None),
        ("resnet", (32, 48), (4, 6)),
        ("resnet", (64, 48), (8, 6)),
        ("resnet_sngan", (64, 32), (8, 4)),
        ("resnet_sngan", (128, 192), (4, 6)),
        ("resnet5", (192, 128), (6, 4)),
        ("biggan_lite", (96, 48), (12, 6)),
        ("biggan", (64, 80), (4, 5)),
    ],
)
def test_height_and_width_may_differ(
    name: str, sides: tuple[int, int], stem: tuple[int, int] | None
) -> None:
    g, d = (tiny(name, player, resolution=list(sides)) for player in (0, 1))
    assert getattr(g, "stem_sides", None) == stem
    x = g(torch.randn(2, g.z_dim), labels(g, 2))
    assert x.shape == (2, 3, *sides)
    assert d(x, labels(d, 2)).shape == (2,)


@pytest.mark.parametrize(
    ("name", "sides"), [("resnet", (40, 32)), ("resnet5", (160, 128)), ("biggan", (96, 56))]
)
def test_a_longer_side_that_leaves_a_rest_is_refused(name: str, sides: tuple[int, int]) -> None:
    for player in (0, 1):
        with pytest.raises(UserError, match="the longer one a multiple of 16, or of 64 from 128"):
            tiny(name, player, resolution=list(sides))


@pytest.mark.parametrize("name", ["resnet", "resnet_sngan"])
def test_the_resnet_of_stl_10_goes_from_6x6_and_512_channels_to_64_and_back(name: str) -> None:
    with torch.device("meta"):
        g, d = (
            build(kind, settings(name, resolution=48, spectral_norm=False)) for kind in PAIRS[name]
        )
    assert g.stem.weight.shape == (512 * 6 * 6, 128)
    assert [block.conv1.weight.shape[1] for block in g.blocks] == [512, 256, 128]
    assert g.out.weight.shape == (3, 64, 3, 3)
    shapes: list[tuple[int, ...]] = []
    for block in d.blocks:
        block.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    d(torch.zeros(1, 3, 48, 48, device="meta"), None)
    expected = [(64, 24, 24), (128, 12, 12), (256, 6, 6), (512, 3, 3), (1024, 3, 3)]
    assert shapes[-5:] == expected


def test_biggan_at_64_has_compare_gans_widths() -> None:
    given = settings("biggan", resolution=64, spectral_norm=False)
    with torch.device("meta"):
        g, d = (build(kind, given) for kind in PAIRS["biggan"])
    assert g.stem.weight.shape == (16 * 96 * 16, 24)
    assert g.out.weight.shape[1] == 2 * 96
    assert d.blocks[1].body[1].weight.shape[:2] == (2 * 96, 3)
    assert d.head.linear.weight.shape == (1, 16 * 96)


@pytest.mark.parametrize("bottom", [4, 8])
def test_biggans_bottom_sets_how_many_blocks_go_down(bottom: int) -> None:
    net = tiny("biggan_lite", 1, d_bottom=bottom)
    x = images("biggan_lite", 1)
    assert net.blocks(x).shape[-1] == bottom


def test_compare_gans_biggan_has_no_skip_at_equal_widths() -> None:
    net = tiny("biggan_lite", 1, d_skip="widths_differ", width=0.05)
    assert [hasattr(block, "shortcut") for block in net.blocks[1:]] == [True, *[False] * 4]
    net = tiny("biggan_lite", 1, d_skip="always", width=0.05)
    assert [hasattr(block, "shortcut") for block in net.blocks[1:]] == [
        True,
        False,  # the attention
        *[True] * 3,
    ]


def test_biggans_label_embedding_has_no_spectral_norm_and_the_rest_of_g_has() -> None:
    net = tiny("biggan_lite", 0)
    plain = [
        name
        for name, m in net.named_modules()
        if isinstance(m, WEIGHTED_LAYERS) and not hasattr(m, "parametrizations")
    ]
    assert plain == ["shared"]
    normed = tiny("biggan_lite", 1)
    assert hasattr(normed.head.embed, "parametrizations")


@pytest.mark.parametrize("name", ["sndcgan", "dcgan", "resnet", "resnet_sngan", "resnet5"])
def test_spectral_norm_is_on_all_of_d_where_it_is_asked_for_and_never_on_g(name: str) -> None:
    def count(net: nn.Module) -> tuple[int, int]:
        weighted = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        return len(weighted), sum(hasattr(m, "parametrizations") for m in weighted)

    layers, normed = count(tiny(name, 1))
    assert layers == normed > 4
    assert count(tiny(name, 1, spectral_norm=False))[1] == 0
    assert count(tiny(name, 0))[1] == 0


def test_sndcgans_first_batch_norm_is_over_the_flat_vector() -> None:
    net = tiny("sndcgan", 0, width=1.0)
    first = next(m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    assert first.num_features == 4 * 4 * 512


def test_a_same_deconvolution_crops_one_at_the_top_and_two_at_the_bottom() -> None:
    deconv = SameDeconv5(2, 3)
    x = torch.randn(1, 2, 4, 4)
    full = F.conv_transpose2d(x, deconv.weight, deconv.bias, stride=2)
    assert full.shape[-1] == 11
    torch.testing.assert_close(deconv(x), full[:, :, 1:9, 1:9])


def test_sndcgans_discriminator_is_the_table() -> None:
    net = lively(tiny("sndcgan", 1, spectral_norm=False))
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    h = x = images("sndcgan", 2).double()
    for conv, (size, stride) in zip(convs, [(3, 1), (4, 2)] * 3 + [(3, 1)], strict=True):
        assert conv.kernel_size == (size, size)
        h = F.leaky_relu(F.conv2d(h, conv.weight, conv.bias, stride, padding=1), 0.1)
    torch.testing.assert_close(net(x, None), net.head.linear(h.flatten(1))[:, 0])


def test_dcgans_discriminator_is_the_table() -> None:
    net = lively(tiny("dcgan", 1, spectral_norm=False))
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    x = images("dcgan", 2).double()
    h = (x + 1) / 2
    for conv in convs:
        padded = h.new_zeros(*h.shape[:2], h.shape[2] + 3, h.shape[3] + 3)
        padded[:, :, 1:-2, 1:-2] = h  # TensorFlow's SAME
        h = F.leaky_relu(F.conv2d(padded, conv.weight, conv.bias, stride=2), 0.2)
    assert len(convs) == 4
    torch.testing.assert_close(net(x, None), net.head.linear(h.flatten(1))[:, 0])


def _in_unit_interval(x: Tensor) -> Tensor:
    return (x + 1) / 2


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("resnet", lambda h: h.mean((2, 3))),
        ("resnet5", lambda h: h.mean((2, 3))),
        ("resnet_sngan", lambda h: h.sum((2, 3))),
        ("biggan_lite", lambda h: h.sum((2, 3))),
    ],
)
def test_the_logit_is_linear_in_the_pooled_features(
    name: str, pool: Callable[[Tensor], Tensor]
) -> None:
    net = lively(tiny(name, 1, conditional=False, spectral_norm=False))
    x = images(name, 2).double()
    h = x if name in ("resnet_sngan", "biggan_lite") else _in_unit_interval(x)
    for block in [b for b in net.blocks if any(True for _ in b.parameters())]:
        h = block(h)
    by_hand = pool(h.clamp_min(0)) @ net.head.linear.weight[0] + net.head.linear.bias
    torch.testing.assert_close(net(x, None), by_hand)


def test_each_class_of_sngan_starts_with_gain_one_and_shift_zero() -> None:
    net = tiny("resnet_sngan", 0, conditional=True)
    assert net.blocks[0].norm1.gain.weight.abs().max() == 0
    assert net.blocks[0].norm1.shift.weight.abs().max() == 0
    assert net.final_norm.norm.affine


def test_each_block_of_biggan_gets_its_own_chunk_of_z() -> None:
    net = tiny("biggan_lite", 0)
    z, y = torch.arange(80.0).repeat(2, 1), torch.tensor([1, 2])
    first, conditions = net.conditions(z, y)
    assert first[0].tolist() == list(range(20))
    assert [condition.shape for condition in conditions] == [(2, 148)] * 3
    assert conditions[2][0, :20].tolist() == list(range(60, 80))
    torch.testing.assert_close(conditions[1][:, 20:], net.shared.weight[y])


def test_attention_sits_where_features_have_half_the_images_side() -> None:
    sides: list[int] = []
    for player in (0, 1):
        net = tiny("biggan_lite", player)
        attention = next(m for m in net.modules() if type(m).__name__ == "SelfAttention")
        attention.register_forward_hook(lambda _, args, __: sides.append(args[0].shape[-1]))
        net(images("biggan_lite", 2) if player else torch.randn(2, 80), labels(net, 2))
    assert sides == [16, 16]

"""StarGAN's networks: published sizes, the formulas, the sizes they refuse, gradients of D."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli import networks
from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import to_plain
from crgan_cli.errors import UserError
from crgan_cli.gan.regularizers.penalties import R1, GradientPenalty, GradientRegularizer
from crgan_cli.gan.scoring import mixes_samples, score
from crgan_cli.gan.types import Batch
from crgan_cli.networks.fast.adjoint import is_piecewise_linear
from crgan_cli.networks.fast.spectral import SpectralNorm
from crgan_cli.networks.image_to_image import Upsampling
from crgan_cli.networks.stargan import StarGANDiscriminator, StarGANGenerator


def generator(
    planes: int = 5, *, width: float = 0.05, blocks: int = 2, upsampling: Upsampling = "deconv"
) -> StarGANGenerator:
    return StarGANGenerator(32, 3, planes, width, blocks, upsampling)


def discriminator(
    side: int = 16,
    labels: int = 5,
    *,
    layers: int | None = None,
    width: float = 0.05,
    spectral_norm: bool = False,
) -> StarGANDiscriminator:
    return StarGANDiscriminator(side, 3, labels, layers, width, spectral_norm)


def images(n: int, side: int = 16) -> Tensor:
    return torch.rand(n, 3, side, side) * 2 - 1


def lively(net: nn.Module) -> nn.Module:
    """In float64 with weights and biases of order 1, so that no layer hides behind a zero."""
    for parameter in net.double().parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_generators_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        sizes = [size(generator(planes, width=1.0, blocks=6)) for planes in (5, 8, 15)]
    assert sizes == [8_430_528, 8_439_936, 8_461_888]


@pytest.mark.parametrize(
    ("side", "labels", "published", "map_side"),
    [
        (128, 5, 44_762_048, 2),
        (128, 8, 44_786_624, 2),
        (128, 13, 44_827_584, 2),
        (256, 5, 44_884_928, 4),
        (256, 13, 45_147_072, 4),
        (64, 5, 11_175_872, 2),
        (32, 5, 2_771_392, 2),
    ],
)
def test_the_discriminators_sizes_and_maps_are_the_published_ones(
    side: int, labels: int, published: int, map_side: int
) -> None:
    with torch.device("meta"):
        net = discriminator(side, labels, width=1.0)
        verdict = net(torch.zeros(2, 3, side, side), None)
    assert size(net) == published
    assert verdict.logits.shape == (2, 1, map_side, map_side)
    assert verdict.classes is not None
    assert verdict.classes.shape == (2, labels)


def test_the_yaml_is_the_published_network_and_the_code_fills_in_the_labels() -> None:
    config = to_plain(compose(["architecture=stargan", "dataset=demo"]).architecture)
    assert config == {
        "_target_": {
            "generator": "crgan_cli.networks.StarGANGenerator",
            "discriminator": "crgan_cli.networks.StarGANDiscriminator",
        },
        "resolution": 32,
        "channels": 1,
        "width": 1.0,
        "blocks": 6,
        "upsampling": "deconv",
        "d_layers": None,
        "spectral_norm": False,
    }
    assert networks.StarGANGenerator is StarGANGenerator
    for key in ("label_planes", "d_labels"):
        with pytest.raises(UserError, match=f"'{key}' in architecture"):
            compose(["architecture=stargan", f"+architecture.{key}=3"])


@pytest.mark.parametrize("upsampling", ["deconv", "resize"])
def test_the_generator_is_the_table(upsampling: Upsampling) -> None:
    net = lively(generator(upsampling=upsampling))
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    convs = iter(m for m in net.modules() if isinstance(m, kinds))
    gains = iter(m for m in net.modules() if isinstance(m, nn.InstanceNorm2d))

    def normed(h: Tensor) -> Tensor:
        mean, var = h.mean((2, 3), keepdim=True), h.var((2, 3), keepdim=True, correction=0)
        layer = next(gains)
        h = (h - mean) / (var + 1e-5).sqrt()
        return h * layer.weight[:, None, None] + layer.bias[:, None, None]

    def conv(h: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        layer = next(convs)
        assert layer.bias is None
        return F.conv2d(h, layer.weight, None, stride, padding)

    def doubled(h: Tensor) -> Tensor:
        if upsampling == "resize":
            return conv(h.repeat_interleave(2, 2).repeat_interleave(2, 3))
        return F.conv_transpose2d(h, next(convs).weight, None, 2, 1)

    x, y = images(2, 16)[..., :12].double(), torch.rand(2, 5).double()
    planes = y[:, :, None, None] * torch.ones(2, 5, 16, 12)
    h = F.relu(normed(conv(torch.cat([x, planes], 1), padding=3)))
    h = F.relu(normed(conv(h, stride=2)))
    h = F.relu(normed(conv(h, stride=2)))
    for _ in range(2):
        inner = F.relu(normed(conv(h)))
        h = h + normed(conv(inner))
    h = F.relu(normed(doubled(h)))
    h = F.relu(normed(doubled(h)))
    out = conv(h, padding=3).tanh()
    assert next(convs, None) is None
    assert out.shape == (2, 3, 16, 12)
    torch.testing.assert_close(net(x, y), out)


def test_the_labels_reach_the_image() -> None:
    """With reflection instead of zeros, the first norm would remove their constant planes."""
    net, x = generator(), images(1).expand(2, -1, -1, -1)
    one, other = net(x, torch.eye(5)[:2])
    assert not torch.allclose(one, other)
    first, norm = net.layers[0], net.layers[1]
    assert isinstance(first, nn.Conv2d)
    planes = torch.eye(5)[:2, :, None, None].expand(-1, -1, 22, 22)  # reflected, by 3 on each side
    removed = norm(F.conv2d(planes, first.weight[:, 3:]))
    torch.testing.assert_close(removed, torch.zeros_like(removed), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("side", "layers"), [(8, None), (16, None), (24, None), (32, 2), (16, 4)])
def test_the_discriminator_is_the_table(side: int, layers: int | None) -> None:
    net = lively(discriminator(side, layers=layers))
    assert isinstance(net, StarGANDiscriminator)
    convs = [m for m in net.layers if isinstance(m, nn.Conv2d)]
    assert len(convs) == (layers or {8: 2, 16: 3, 24: 3}[side])
    assert [conv.out_channels for conv in convs] == [round(3.2 * 2**i) for i in range(len(convs))]
    h = x = images(2, side).double()
    for conv in convs:
        assert conv.bias is not None
        h = F.leaky_relu(F.conv2d(h, conv.weight, conv.bias, 2, 1), 0.01)
    assert h.shape[2] == side // 2 ** len(convs)
    verdict = net(x, None)
    torch.testing.assert_close(verdict.logits, F.conv2d(h, net.source.weight, None, 1, 1))
    classes = torch.einsum("nchw,kchw->nk", h, net.classifier.weight)
    torch.testing.assert_close(verdict.classes, classes)


def test_weights_start_as_pytorch_draws_them() -> None:
    """U(-b, b) with b = 1 / sqrt(inputs of a unit), biases too; norms with gain 1 and shift 0."""
    for net in (generator(width=0.3), discriminator(width=0.3)):
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                bound = module.weight[0].numel() ** -0.5
                assert 0.9 * bound < module.weight.abs().max() <= bound
            if isinstance(module, nn.InstanceNorm2d):
                assert module.weight.eq(1).all()
                assert module.bias.eq(0).all()
                assert not module.track_running_stats


def test_the_discriminator_is_for_one_size() -> None:
    with pytest.raises(UserError, match=r"are 16x32 pixels.* made for 16x16"):
        discriminator()(images(1, 32)[:, :, :16], None)
    with pytest.raises(UserError, match=r"is 16, and .*d_layers=5 halves .* at most .*d_layers=4"):
        discriminator(layers=5)


def test_the_generator_refuses_sizes_with_one_that_fits() -> None:
    with pytest.raises(UserError, match=r"architecture=stargan works at 8, 12 .*resolution=32,"):
        StarGANGenerator(30, 3, 5, 0.1, 1, "deconv")
    with pytest.raises(UserError, match=r"18x18 pixels .*StarGAN needs .* to 20x20"):
        generator()(images(1, 18), torch.zeros(1, 5))


@pytest.mark.parametrize("upsampling", ["deconv", "resize"])
def test_both_train_under_autocast_and_in_channels_last(upsampling: Upsampling) -> None:
    G, D, y = generator(upsampling=upsampling), discriminator(), torch.eye(5)[:2]
    x, last = images(2), images(2).to(memory_format=torch.channels_last)
    plain = G(last.contiguous(), y)
    again = G.to(memory_format=torch.channels_last)(last, y)
    assert again.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain, again)
    with torch.autocast("cpu", torch.bfloat16):
        fake = G(x, y)
        back = G(fake, y)  # bf16 images
        verdict = D(fake.float(), None)
        features = D.layers(fake.float())
    assert (fake.dtype, back.dtype, features.dtype) == (torch.bfloat16,) * 3
    assert (verdict.logits.dtype, verdict.classes.dtype) == (torch.float32,) * 2
    (verdict.logits.sum() + verdict.classes.sum() + back.float().square().sum()).backward()
    for net in (G, D):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_the_discriminator_scores_each_image_alone_and_can_have_spectral_norm() -> None:
    net = discriminator(spectral_norm=True)
    assert not mixes_samples(net)
    assert sum(isinstance(m, SpectralNorm) for m in net.modules()) == 3 + 2
    assert net.classifies


# --- penalties: the gradient of the sum of the source map -----------------------------------------


def slope(D: nn.Module, x: Tensor) -> Tensor:
    """The squared norm of the gradient of the sum over the source map, image by image."""
    squares = []
    for image in x.split(1):
        image = image.detach().requires_grad_()
        (g,) = torch.autograd.grad(D(image, None).logits.sum(), image, create_graph=True)
        squares.append((g**2).sum())
    return torch.stack(squares)


@pytest.mark.parametrize("gradient", ["auto", "autograd"])
@pytest.mark.parametrize("spectral_norm", [False, True], ids=["plain", "spectral norm"])
@pytest.mark.parametrize("name", ["gp", "r1"])
def test_penalties_are_their_formulas_on_the_source_map(
    name: str, spectral_norm: bool, gradient: str
) -> None:
    kinds: dict[str, type[GradientRegularizer]] = {"gp": GradientPenalty, "r1": R1}
    part = kinds[name](10.0, gradient=gradient)  # type: ignore[call-arg]
    D = lively(discriminator(spectral_norm=spectral_norm)).eval()
    assert is_piecewise_linear(D)
    assert part.needs_double_backward(D) == (gradient == "autograd")
    views = {role: Batch(images(3).double(), torch.eye(5)[:3]) for role in ("real", "fake")}
    torch.manual_seed(1)
    (value,) = part.d_terms(score(D, views, jointly=True)).values()
    real, fake = views["real"].x, views["fake"].x
    if name == "gp":
        torch.manual_seed(1)
        a = torch.rand(3, 1, 1, 1, dtype=torch.float64)
        by_hand = 10 * ((slope(D, a * real + (1 - a) * fake).sqrt() - 1) ** 2).mean()
    else:
        by_hand = 5 * slope(D, real).mean()
    torch.testing.assert_close(value, by_hand)
    weights = list(D.parameters())
    found, wanted = (torch.autograd.grad(v, weights, allow_unused=True) for v in (value, by_hand))
    for one, other, weight in zip(found, wanted, weights, strict=True):
        zero = torch.zeros_like(weight)
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other)
    assert sum(g is not None and bool(g.any()) for g in found) >= 4  # three layers and the source

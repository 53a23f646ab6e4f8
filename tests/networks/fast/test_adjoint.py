"""The adjoint network against autograd, layer by layer and architecture by architecture."""

import inspect
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from crgan_cli.gan.regularizers.penalties import (
    DRAGAN,
    R1,
    GradientPenalty,
    GradientRegularizer,
    JSRegularizer,
)
from crgan_cli.gan.scoring import score
from crgan_cli.gan.types import Batch
from crgan_cli.networks.biggan import BigGANDiscriminator
from crgan_cli.networks.blocks import Residual
from crgan_cli.networks.dcgan import DCGANDiscriminator
from crgan_cli.networks.fast.adjoint import input_gradient, is_piecewise_linear, linearise
from crgan_cli.networks.fast.fused_resample import (
    NearestConv3,
    PooledConv3,
    fusable_layers,
    set_fused,
)
from crgan_cli.networks.fast.spectral import fixed_spectral_norm
from crgan_cli.networks.layers import SelfAttention, ToUnitInterval
from crgan_cli.networks.resnet import ResNet5Discriminator, ResNetDiscriminator
from crgan_cli.networks.resnet_sngan import SNGANDiscriminator
from crgan_cli.networks.sndcgan import SNDCGANDiscriminator

Settings = dict[str, object]

BIGGAN: Settings = {
    "resolution": 32,
    "channels": 3,
    "ch": 3,
    "d_multipliers": [1, 2, 2, 2],
    "d_bottom": 8,
    "d_skip": "always",
    "attention": False,
    "width": 1.0,
}
SMALL: Settings = {"channels": 3, "width": 0.03}

NETWORKS: dict[str, tuple[type[nn.Module], Settings]] = {
    "sndcgan": (SNDCGANDiscriminator, {**SMALL, "resolution": 16}),
    "dcgan": (DCGANDiscriminator, {**SMALL, "resolution": 16, "batch_norm": False}),
    "resnet": (ResNetDiscriminator, {**SMALL, "resolution": 32}),
    "resnet_sngan": (SNGANDiscriminator, {**SMALL, "resolution": 32}),
    "resnet5": (ResNet5Discriminator, {**SMALL, "resolution": 128}),
    "biggan": (BigGANDiscriminator, BIGGAN),
    "biggan, few skips": (BigGANDiscriminator, BIGGAN | {"d_skip": "widths_differ"}),
}
CONDITIONAL = ("resnet", "resnet_sngan", "biggan")
CASES = [(name, 0) for name in NETWORKS] + [(name, 5) for name in CONDITIONAL]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def build(name: str, classes: int, *, spectral_norm: bool) -> nn.Module:
    """A small D with weights and biases of order 1, so that no layer hides behind a zero.

    In eval mode, where spectral norm keeps nothing of a call and so no two calls differ.
    """
    kind, given = NETWORKS[name]
    given = given | {"classes": classes or 10, "conditional": bool(classes)}
    given |= {"spectral_norm": spectral_norm}
    known = inspect.signature(kind).parameters
    net = kind(**{key: value for key, value in given.items() if key in known})
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net.eval()


def images(name: str, n: int) -> Tensor:
    side = NETWORKS[name][1]["resolution"]
    assert isinstance(side, int)
    return torch.rand(n, 3, side, side) * 2 - 1


def by_autograd(D: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x, y).sum(), x, create_graph=True)
    return gradient


def weight_gradients(value: Tensor, net: nn.Module) -> list[Tensor]:
    """0 for what `value` does not depend on; autograd gives None there, or zeros."""
    weights = list(net.parameters())
    found = torch.autograd.grad(value, weights, allow_unused=True, retain_graph=True)
    pairs = zip(found, weights, strict=True)
    return [torch.zeros_like(p) if g is None else g for g, p in pairs]


def assert_same(got: Tensor, want: Tensor) -> None:
    """To 1e-10 of the largest number."""
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10 * float(want.detach().abs().max()))


@pytest.mark.parametrize("folded", [False, True], ids=["unfolded", "folded"])
@pytest.mark.parametrize("spectral_norm", [False, True], ids=["plain", "spectral_norm"])
@pytest.mark.parametrize(("name", "classes"), CASES)
def test_the_gradient_and_its_gradient_are_autograds(
    name: str, classes: int, spectral_norm: bool, folded: bool
) -> None:
    D = build(name, classes, spectral_norm=spectral_norm)
    set_fused(D, dict.fromkeys(fusable_layers(D), folded))
    x = images(name, 3)
    y = torch.tensor([1, 0, 1]) if classes else None
    assert is_piecewise_linear(D)
    ours, theirs = input_gradient(D, x, y), by_autograd(D, x, y)
    assert ours.any()
    assert_same(ours, theirs)
    probe = torch.randn_like(x)  # any function of the gradient will do
    got, want = (
        weight_gradients((g * probe).sum() + g.flatten(1).square().sum(1).sqrt().mean(), D)
        for g in (ours, theirs)
    )
    assert sum(bool(g.any()) for g in want) >= len(want) // 2
    for one, other in zip(got, want, strict=True):
        assert_same(one, other)


PENALTIES: dict[str, Callable[[Literal["auto", "autograd"]], GradientRegularizer]] = {
    "gp": lambda gradient: GradientPenalty(10.0, gradient=gradient),
    "dragan": lambda gradient: DRAGAN(10.0, gradient=gradient),
    "jsr": lambda gradient: JSRegularizer(0.1, gradient=gradient),
    "r1": lambda gradient: R1(10.0, gradient=gradient),
}


@pytest.mark.parametrize("spectral_norm", [False, True], ids=["plain", "spectral_norm"])
@pytest.mark.parametrize(("name", "classes"), CASES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_every_penalty_is_that_of_double_backward(
    penalty: str, name: str, classes: int, spectral_norm: bool
) -> None:
    """As in a turn: in training mode, with all weights normalised once."""
    D = build(name, classes, spectral_norm=spectral_norm).train()
    y, y_fake = (torch.arange(3).add(i) if classes else None for i in (0, 2))
    views = {
        "real": Batch(images(name, 3), y),
        "fake": Batch(images(name, 3), y_fake),
    }
    found = []
    with fixed_spectral_norm(D):
        scored = score(D, views, jointly=True)
        for gradient in ("auto", "autograd"):
            regularizer = PENALTIES[penalty](gradient)
            assert regularizer.needs_double_backward(D) == (gradient == "autograd")
            torch.manual_seed(1)
            value = sum(regularizer.d_terms(scored).values())
            assert isinstance(value, Tensor)
            found.append((value, *weight_gradients(value, D)))
    assert found[1][0] > 0
    for ours, theirs in zip(*found, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("name", ["sndcgan", "resnet", "biggan"])
def test_the_logits_come_with_it(name: str) -> None:
    D = build(name, 5 if name == "resnet" else 0, spectral_norm=True)
    x, y = images(name, 2), torch.tensor([4, 2]) if name == "resnet" else None
    logits, _ = linearise(D, x, y)
    assert_same(logits, D(x, y).detach())
    assert not logits.requires_grad


def folded(layer: PooledConv3) -> PooledConv3:
    layer.use_fused = True
    return layer


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "a stride that leaves the last row out": lambda: nn.Conv2d(4, 6, 3, stride=2),
    "stride 3, padding, dilation, groups": lambda: nn.Conv2d(
        4, 6, (3, 2), stride=(3, 2), padding=(2, 1), dilation=(2, 1), groups=2
    ),
    "no bias": lambda: nn.Conv2d(4, 6, 4, 2, 1, bias=False),
    "convolution and pooling": lambda: PooledConv3(4, 5),
    "convolution and pooling in one": lambda: folded(PooledConv3(4, 5)),
    "pooling of an odd side": lambda: nn.AvgPool2d(2),
    "pooling with overlap": lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "padding that differs by side": lambda: nn.ZeroPad2d((1, 2, 0, 3)),
    "to [0, 1]": ToUnitInterval,
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.3),
    "two paths": lambda: Residual(nn.Conv2d(4, 4, 1), nn.Identity()),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4 * 7 * 9, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_pulled_back_as_autograd_does(name: str) -> None:
    layer = LAYERS[name]()
    assert is_piecewise_linear(layer)
    x = torch.randn(2, 4, 7, 9)
    tracked = x.clone().requires_grad_()
    expected = layer(tracked)
    v = torch.randn_like(expected)
    y, pull = linearise(layer, x)
    assert_same(y, expected.detach())
    assert_same(pull(v), torch.autograd.grad(expected, tracked, v)[0])


@pytest.mark.parametrize(("layer", "slope"), [(nn.ReLU(), 0.0), (nn.LeakyReLU(0.2), 0.2)])
def test_at_0_the_slope_is_torchs(layer: nn.Module, slope: float) -> None:
    _, pull = linearise(layer, torch.zeros(3))
    torch.testing.assert_close(pull(torch.ones(3)), torch.full((3,), slope))


def test_a_layer_in_place_leaves_the_images_alone() -> None:
    x = torch.tensor([-1.0, 1.0])
    linearise(nn.Sequential(nn.ReLU(inplace=True)), x)
    assert x.tolist() == [-1.0, 1.0]


class Doubled(nn.Conv2d):
    """A convolution that does something else."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Quadratic(nn.Module):
    """No layer that we know."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square()


UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: SelfAttention(8),
    "batch norm": lambda: nn.BatchNorm2d(4),
    "a layer of one's own": Quadratic,
    "another forward": lambda: Doubled(3, 3, 1),
    "a convolution for generators": lambda: NearestConv3(3, 3),
    "reflected borders": lambda: nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
    "padding in words": lambda: nn.Conv2d(3, 3, 3, padding="same"),
    "weights made by a hook": lambda: nn.utils.spectral_norm(nn.Linear(3, 3)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_to_be_piecewise_linear_is_not_taken_for_it(name: str) -> None:
    layer = UNKNOWN[name]()
    assert not is_piecewise_linear(layer)
    assert not is_piecewise_linear(nn.Sequential(nn.ReLU(), Residual(nn.Identity(), layer)))


def test_a_discriminator_is_known_by_all_its_layers() -> None:
    kind, given = NETWORKS["biggan"]
    with_attention = given | {"attention": True, "conditional": False, "classes": 0}
    assert not is_piecewise_linear(kind(**with_attention, spectral_norm=True))
    batch_norm = DCGANDiscriminator(16, 3, 0.05, batch_norm=True, spectral_norm=False)
    assert not is_piecewise_linear(batch_norm)
    D = build("resnet", 0, spectral_norm=True)
    assert is_piecewise_linear(D)
    D.pool = lambda h: h.amax((2, 3))  # type: ignore[assignment]
    assert not is_piecewise_linear(D)


class Operations(TorchDispatchMode):
    """The names of the operations that run, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_each_convolution_is_run_forth_and_back_and_differentiated_once() -> None:
    """4 passes in place of 6, and none of them over zeros."""
    D = build("sndcgan", 0, spectral_norm=False)
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in D.modules())
    with Operations() as run:
        input_gradient(D, torch.rand(2, 3, 16, 16), None).square().sum().backward()
    assert run.seen.count("convolution") == 2 * convolutions
    assert run.seen.count("convolution_backward") == convolutions
    assert not {"_local_scalar_dense", "nonzero"} & set(run.seen)


def test_spectral_norm_makes_one_power_iteration_a_call() -> None:
    """In training mode, where each reading of a weight may be another power iteration."""
    D = build("sndcgan", 0, spectral_norm=True).train()
    state = {name: buffer.clone() for name, buffer in D.named_buffers()}
    x = torch.rand(2, 3, 16, 16)
    ours = input_gradient(D, x, None)
    after = {name: buffer.clone() for name, buffer in D.named_buffers()}
    for name, buffer in D.named_buffers():
        buffer.copy_(state[name])
    assert_same(ours, by_autograd(D, x, None))
    for name, buffer in D.named_buffers():
        assert_same(buffer, after[name])

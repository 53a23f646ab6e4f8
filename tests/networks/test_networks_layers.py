"""Spectral norm, conditional batch norm, attention, heads."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from crgan_cli.errors import UserError
from crgan_cli.networks import layers


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def vectors(module: nn.Module) -> tuple[Tensor, Tensor]:
    buffers = dict(module.named_buffers())
    found = [buffers[name] for name in sorted(buffers) if name.endswith(("_u", "_v"))]
    return found[0], found[1]


class Precisions(TorchFunctionMode):
    """Notes, for each matrix-vector product, whether autocast was on."""

    def __init__(self) -> None:
        super().__init__()
        self.autocast: list[bool] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.mv:
            self.autocast.append(torch.is_autocast_enabled("cpu"))
        return func(*args, **(kwargs or {}))


def test_scaled_rounds_and_never_reaches_zero() -> None:
    assert [layers.scaled(64, w) for w in (1.0, 0.25, 0.3, 0.001)] == [64, 16, 19, 1]


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 8, 3), nn.Linear(6, 9), nn.Embedding(5, 7)], ids=type
)
def test_spectral_norm_leaves_a_largest_singular_value_of_one(layer: nn.Module) -> None:
    nn.init.normal_(layer.weight, std=3.0)
    layers.spectral_norm(layer)
    with torch.no_grad():
        for _ in range(50):
            weight = layer.weight  # what a forward does
        top = torch.linalg.matrix_norm(weight.flatten(1), 2)
    torch.testing.assert_close(top, torch.tensor(1.0), rtol=1e-4, atol=0)


def test_spectral_norm_does_one_power_iteration_a_forward_and_none_in_eval_mode() -> None:
    layer = layers.spectral_norm(nn.Linear(4, 3))
    u, v = (t.clone() for t in vectors(layer))
    weight = layer.get_parameter("parametrizations.weight.original").detach()
    layer(torch.randn(2, 4))
    by_hand_u = nn.functional.normalize(weight @ v, dim=0)
    by_hand_v = nn.functional.normalize(weight.T @ by_hand_u, dim=0)
    after_u, after_v = (t.clone() for t in vectors(layer))
    torch.testing.assert_close(after_u, by_hand_u)
    torch.testing.assert_close(after_v, by_hand_v)
    assert not torch.equal(after_u, u)
    layer.eval()(torch.randn(2, 4))
    assert torch.equal(vectors(layer)[0], after_u)


def test_spectral_norm_is_the_gradient_through_sigma_with_u_and_v_held() -> None:
    layer = layers.spectral_norm(nn.Linear(4, 3, bias=False)).double().eval()
    x = torch.randn(5, 4, dtype=torch.float64)
    layer(x).square().sum().backward()
    weight = layer.get_parameter("parametrizations.weight.original")
    u, v = vectors(layer)
    copy = weight.detach().clone().requires_grad_()
    (x @ (copy / (u @ copy @ v)).T).square().sum().backward()
    torch.testing.assert_close(weight.grad, copy.grad)


def test_spectral_norm_stays_out_of_autocast_and_is_differentiable_twice() -> None:
    layer = layers.spectral_norm(nn.Linear(4, 3))
    x = torch.randn(2, 4, requires_grad=True)
    with Precisions() as seen, torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        assert torch.is_autocast_enabled("cpu")
    assert out.dtype == torch.bfloat16
    assert seen.autocast == [False] * 3  # two of the power iteration, one of sigma
    (slope,) = torch.autograd.grad(out.float().square().sum(), x, create_graph=True)
    slope.square().sum().backward()
    grad = layer.get_parameter("parametrizations.weight.original").grad
    assert grad is not None
    assert grad.dtype == torch.float32
    assert grad.abs().sum() > 0


def test_spectral_norm_adds_no_parameters_and_takes_every_weighted_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 1))
    before = sum(p.numel() for p in net.parameters())
    layers.spectrally_normalise(net)
    assert sum(p.numel() for p in net.parameters()) == before
    assert len([n for n, _ in net.named_buffers() if n.endswith("_u")]) == 2


def test_a_copy_has_its_own_vectors_and_a_state_dict_carries_them() -> None:
    layer = layers.spectral_norm(nn.Linear(4, 3))
    twin = copy.deepcopy(layer)
    x = torch.randn(2, 4)
    layer(x)
    assert not torch.equal(vectors(layer)[0], vectors(twin)[0])
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), twin(x))


def test_initialise_draws_weights_and_zeroes_biases() -> None:
    net = nn.Sequential(nn.Linear(200, 300), nn.BatchNorm1d(300))
    layers.initialise(net, layers.normal_002)
    assert net[0].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert net[0].bias.abs().max() == 0
    assert net[1].weight.min() == 1


def test_sngan_weights_have_gain_root_two_in_3x3_kernels_only() -> None:
    for size, gain in ((3, 2**0.5), (1, 1.0)):
        weight = layers.glorot_sngan(torch.empty(64, 32, size, size))
        limit = gain * (6 / ((64 + 32) * size**2)) ** 0.5
        assert 0.98 * limit < weight.abs().max() <= limit


def test_conditional_batch_norm_is_one_plus_the_maps_of_the_code() -> None:
    norm = layers.code_norm(4)(3).double()
    x, code = torch.randn(6, 3, 5, 5).double(), torch.randn(6, 4).double()
    mean = x.mean((0, 2, 3), keepdim=True)
    var = x.var((0, 2, 3), keepdim=True, correction=0)
    gain = 1 + code @ norm.gain.weight.T
    shift = code @ norm.shift.weight.T
    by_hand = (x - mean) / (var + 1e-5).sqrt() * gain[..., None, None] + shift[..., None, None]
    torch.testing.assert_close(norm(x, code), by_hand)


def test_label_norm_without_classes_is_plain_batch_norm() -> None:
    norm = layers.label_norm(0)(3)
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(norm(x, None), nn.BatchNorm2d(3)(x))


def test_the_projection_head_is_the_formula() -> None:
    head = layers.head(5, 3).double()
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
        layers.label_count(True, 0)
    assert [layers.label_count(c, 10) for c in (True, False)] == [10, 0]

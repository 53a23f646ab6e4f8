"""Spectral norm: Algorithm 1 written out, and all layers together against one at a time."""

import copy
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from support.nosync import NoSync
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from crgan_cli.networks.biggan import BigGANDiscriminator
from crgan_cli.networks.fast.spectral import (
    MatrixView,
    SpectralNorm,
    apply_spectral_norm,
    fixed_spectral_norm,
    spectral_norm,
)
from crgan_cli.networks.sndcgan import SNDCGANDiscriminator

FORMS = pytest.mark.parametrize("together", [True, False], ids=["together", "each"])
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(3, 8, 3),
    "conv 1x1": lambda: nn.Conv2d(5, 4, 1),
    "deconv": lambda: nn.ConvTranspose2d(3, 5, 4),
    "linear": lambda: nn.Linear(6, 9),
    "row": lambda: nn.Linear(7, 1),
    "embedding": lambda: nn.Embedding(5, 7),
}
EVERY_LAYER = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


def norm_of(layer: nn.Module) -> SpectralNorm:
    norm = layer.get_submodule("parametrizations.weight.0")
    assert isinstance(norm, SpectralNorm)
    return norm


def stored(layer: nn.Module) -> nn.Parameter:
    return layer.get_parameter("parametrizations.weight.original")


def rows(layer: nn.Module, weight: Tensor) -> Tensor:
    """(output channels, everything else): columns in the order of a contiguous weight."""
    if isinstance(layer, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    return weight.reshape(len(weight), -1)


def by_hand(layer: nn.Module, weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """W_SN, u' and sigma of Algorithm 1, differentiable in the weight."""
    W = rows(layer, weight)
    with torch.no_grad():
        v = W.T @ u / (W.T @ u).norm()
        new_u = W @ v / (W @ v).norm()
    sigma = new_u @ W @ v
    return weight / sigma, new_u, sigma


class Net(nn.Module):
    """All kinds of layers; the convolution in the middle is used twice, the last layer never."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 2, 4, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.out = nn.Linear(2 * 8 * 8, 1)
        self.embed = nn.Embedding(3, 2 * 8 * 8)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.first(x), 0.1)
        h = F.leaky_relu(self.shared(F.leaky_relu(self.shared(h), 0.1)), 0.1)
        h = torch.tanh(self.norm(self.up(h))).flatten(1)
        return self.out(h)[:, 0] + (h * self.embed(torch.arange(len(x)) % 3)).sum(1)


def net() -> Net:
    made = Net().double()
    apply_spectral_norm(made)
    return made


def images(n: int = 5) -> Tensor:
    return torch.randn(n, 3, 4, 4, dtype=torch.float64)


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in module.state_dict().items()}


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in module.named_parameters()}


def assert_same(one: dict[str, Tensor | None], other: dict[str, Tensor | None]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        a, b = one[name], other[name]
        assert (a is None) == (b is None), name
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, msg=name)


# --- one layer -----------------------------------------------------------------------------------


@EVERY_LAYER
def test_a_call_is_algorithm_1_by_hand_and_stores_its_u(make: Callable[[], nn.Module]) -> None:
    layer = spectral_norm(make()).double()
    nn.init.normal_(stored(layer))
    norm = norm_of(layer)
    for _ in range(2):
        weight, u, _ = by_hand(layer, stored(layer), norm.u.clone())
        torch.testing.assert_close(layer.weight, weight, rtol=1e-12, atol=0)
        torch.testing.assert_close(norm.u, u, rtol=1e-12, atol=1e-14)
    layer.eval()
    weight, _, _ = by_hand(layer, stored(layer), norm.u.clone())
    torch.testing.assert_close(layer.weight, weight, rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.u, u, rtol=0, atol=0)


@EVERY_LAYER
def test_many_calls_leave_a_largest_singular_value_of_one(make: Callable[[], nn.Module]) -> None:
    layer = spectral_norm(make())
    nn.init.normal_(stored(layer), std=3.0)
    with torch.no_grad():
        for _ in range(100):
            weight = layer.weight  # what a forward does
        top = torch.linalg.matrix_norm(rows(layer, weight), 2)
    torch.testing.assert_close(top, torch.tensor(1.0), rtol=1e-4, atol=0)


def test_a_new_layer_has_made_fifteen_power_iterations() -> None:
    layer = nn.Linear(4, 3).double()
    with torch.random.fork_rng():
        u = torch.randn(3, dtype=torch.float64)
    for _ in range(15):
        u = by_hand(layer, layer.weight, u / u.norm())[1]
    torch.testing.assert_close(norm_of(spectral_norm(layer)).u, u)


@EVERY_LAYER
def test_the_gradient_goes_through_sigma_with_u_and_v_held(make: Callable[[], nn.Module]) -> None:
    layer = spectral_norm(make()).double()
    target = torch.randn_like(stored(layer))
    W = stored(layer).detach().clone().requires_grad_()
    (by_hand(layer, W, norm_of(layer).u)[0] * target).sum().backward()
    (layer.weight * target).sum().backward()
    torch.testing.assert_close(stored(layer).grad, W.grad, rtol=1e-12, atol=1e-14)


def test_it_adds_no_parameters_and_takes_every_weighted_layer() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 1))
    before = sum(p.numel() for p in plain.parameters())
    apply_spectral_norm(plain)
    assert sum(p.numel() for p in plain.parameters()) == before
    assert len([name for name in plain.state_dict() if name.endswith("weight.0.u")]) == 2


@EVERY_LAYER
def test_a_matrix_is_written_back_as_it_was_read(make: Callable[[], nn.Module]) -> None:
    layer = make()
    assert isinstance(layer.weight, Tensor)
    matrix = MatrixView.from_weight(layer.weight, int(isinstance(layer, nn.ConvTranspose2d)))
    torch.testing.assert_close(matrix.write(matrix.read(layer.weight)), layer.weight)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_neither_memory_format_of_a_kernel_is_copied(layout: torch.memory_format) -> None:
    for shape in ((8, 3, 3, 3), (8, 1, 3, 3), (8, 5, 1, 1), (1, 4, 4, 4)):
        weight = torch.randn(shape).contiguous(memory_format=layout)
        read = MatrixView.from_weight(weight, 0).read(weight)
        assert read.is_contiguous()
        assert read.data_ptr() == weight.data_ptr()
    assert MatrixView.from_weight(weight, 1).read(weight).shape == (4, 16)


# --- all layers at once --------------------------------------------------------------------------


@FORMS
def test_within_normalised_every_weight_is_algorithm_1_once(together: bool) -> None:
    made = net()
    layers = [m for m in made.modules() if hasattr(m, "parametrizations")]
    assert len(layers) == 6
    expected = [by_hand(layer, stored(layer), norm_of(layer).u.clone()) for layer in layers]
    with fixed_spectral_norm(made, together=together):
        for layer, (weight, u, _) in zip(layers, expected, strict=True):
            assert layer.weight is layer.weight
            torch.testing.assert_close(layer.weight, weight, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(norm_of(layer).u, u, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_together_and_each_are_the_same_numbers(
    layout: torch.memory_format, training: bool
) -> None:
    one = net().to(memory_format=layout).train(training)
    other = copy.deepcopy(one)
    for made, together in ((one, True), (other, False)):
        for turn in range(2):
            torch.manual_seed(turn)
            with fixed_spectral_norm(made, together=together):
                loss = made(images()).square().sum() - made(images(4)).sum()
                loss.backward()
    assert stored(one.unused).grad is None
    assert_same(gradients(one), gradients(other))
    assert_same(bits(one), bits(other))


@FORMS
def test_normalised_weights_have_the_gradient_of_algorithm_1(together: bool) -> None:
    made, x = net(), images()
    Ws = {n: p.detach().clone().requires_grad_() for n, p in made.named_parameters()}
    weights = dict(Ws)
    for name, layer in made.named_modules():
        if hasattr(layer, "parametrizations"):
            key = f"{name}.parametrizations.weight.original"
            weights[f"{name}.weight"] = by_hand(layer, weights.pop(key), norm_of(layer).u)[0]
    plain = Net().double()
    torch.func.functional_call(plain, weights, (x,)).square().sum().backward()
    with fixed_spectral_norm(made, together=together):
        made(x).square().sum().backward()
    assert_same(gradients(made), {name: W.grad for name, W in Ws.items()})


@FORMS
def test_after_normalised_a_forward_is_a_power_iteration_again(together: bool) -> None:
    made = net()
    with fixed_spectral_norm(made, together=together):
        u = norm_of(made.first).u.clone()
        made(images())
        made(images())
        torch.testing.assert_close(norm_of(made.first).u, u, rtol=0, atol=0)
    assert all(m.cached_weight is None for m in made.modules() if isinstance(m, SpectralNorm))
    made(images())
    assert not torch.equal(norm_of(made.first).u, u)


def test_weights_are_dropped_where_a_turn_fails() -> None:
    made = net()
    with pytest.raises(ZeroDivisionError), fixed_spectral_norm(made):
        raise ZeroDivisionError
    assert norm_of(made.first).cached_weight is None


def test_eval_mode_leaves_u_and_networks_have_their_own_modes() -> None:
    one, other = net(), net().eval()
    before = norm_of(one.first).u.clone(), norm_of(other.first).u.clone()
    with fixed_spectral_norm(one, other):
        assert not torch.equal(norm_of(one.first).u, before[0])
        assert torch.equal(norm_of(other.first).u, before[1])


@FORMS
def test_networks_without_spectral_norm_are_as_they_were(together: bool) -> None:
    plain = Net()
    before = plain.first.weight
    with fixed_spectral_norm(plain, nn.Identity(), together=together):
        assert plain.first.weight is before


def test_normalised_does_not_nest() -> None:
    made = net()
    with (
        fixed_spectral_norm(made),
        pytest.raises(AssertionError, match="within"),
        fixed_spectral_norm(made),
    ):
        pass
    with fixed_spectral_norm(made, made):  # once, though named twice
        pass


@FORMS
def test_a_frozen_weight_has_no_graph_and_its_neighbour_has(together: bool) -> None:
    made = net()
    stored(made.first).requires_grad_(False)
    with fixed_spectral_norm(made, together=together):
        assert not made.first.weight.requires_grad
        assert made.out.weight.requires_grad
        made(images()).sum().backward()
    assert stored(made.first).grad is None
    assert stored(made.out).grad is not None
    with torch.no_grad(), fixed_spectral_norm(made, together=together):
        assert not made.out.weight.requires_grad
    with fixed_spectral_norm(made.requires_grad_(False), together=together):
        assert not made.out.weight.requires_grad


def test_a_gradient_penalty_is_the_same_together_and_each() -> None:
    one = net()
    other = copy.deepcopy(one)
    x = images().requires_grad_()
    for made, together in ((one, True), (other, False)):
        with fixed_spectral_norm(made, together=together):
            (slope,) = torch.autograd.grad(made(x).sum(), x, create_graph=True)
            ((slope.flatten(1).norm(dim=1) - 1).square().mean() + made(x).mean()).backward()
    assert_same(gradients(one), gradients(other))


def test_a_second_derivative_in_the_weights_is_refused() -> None:
    made = net()
    with fixed_spectral_norm(made):
        loss = made(images()).square().sum()
        (slope,) = torch.autograd.grad(loss, stored(made.first), create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            slope.sum().backward()


@FORMS
def test_autocast_stays_outside_forward_and_backward(together: bool) -> None:
    made = spectral_norm(nn.Linear(40, 30))
    twin = copy.deepcopy(made)
    x = torch.randn(2, 40)
    with fixed_spectral_norm(made, together=together):
        exact = made.weight.detach()
        with torch.autocast("cpu", torch.bfloat16):
            made(x).float().square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16), fixed_spectral_norm(twin, together=together):
        out = twin(x)
        assert out.dtype == torch.bfloat16
        assert torch.equal(twin.weight, exact)
        out.float().square().sum().backward()
        assert torch.is_autocast_enabled("cpu")
    assert stored(twin).grad.dtype == torch.float32
    torch.testing.assert_close(stored(twin).grad, stored(made).grad)


class Products(TorchFunctionMode):
    """Notes the matrix products of a forward, and whether autocast was on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, bool]] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.mv, torch.Tensor.matmul, torch.Tensor.__matmul__):
            self.seen.add((func.__name__, torch.is_autocast_enabled("cpu")))
        return func(*args, **(kwargs or {}))


def test_no_product_of_spectral_norm_is_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    made, addr = spectral_norm(nn.Linear(4, 3)), torch.addr

    def watched(*args: Tensor, alpha: float) -> Tensor:
        noted.seen.add(("addr", torch.is_autocast_enabled("cpu")))
        return addr(*args, alpha=alpha)

    monkeypatch.setattr(torch, "addr", watched)  # a mode does not see a backward
    with Products() as noted, torch.autocast("cpu", torch.bfloat16):
        assert made.weight.dtype == torch.float32
        with fixed_spectral_norm(made):
            made.weight.sum().backward()
    assert noted.seen == {("matmul", False), ("mv", False), ("addr", False)}


# --- copies, checkpoints, engines ----------------------------------------------------------------


@FORMS
def test_u_stays_where_a_cuda_graph_has_seen_it(together: bool) -> None:
    layer = spectral_norm(nn.Linear(4, 3))
    nn.init.normal_(stored(layer))
    norm = norm_of(layer)
    place, before = norm.u.data_ptr(), norm.u.clone()
    with fixed_spectral_norm(layer, together=together):
        layer(torch.randn(2, 4)).sum().backward()
    assert norm.u.data_ptr() == place
    assert not norm.u.requires_grad
    assert not torch.equal(norm.u, before)


def test_a_copy_has_its_own_u_and_a_state_dict_carries_it() -> None:
    layer = spectral_norm(nn.Linear(4, 3))
    nn.init.normal_(stored(layer))
    twin = copy.deepcopy(layer)
    x = torch.randn(2, 4)
    with fixed_spectral_norm(layer):
        layer(x)
    assert not torch.equal(norm_of(layer).u, norm_of(twin).u)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), twin(x))


def test_a_gradient_lies_in_memory_as_its_kernel_does() -> None:
    made = net().to(memory_format=torch.channels_last)
    with fixed_spectral_norm(made):
        made(images().contiguous(memory_format=torch.channels_last)).sum().backward()
    weight = stored(made.shared)
    assert weight.grad.stride() == weight.stride()
    assert weight.is_contiguous(memory_format=torch.channels_last)


# torch's own look at a tensor that is no leaf; it hides the warning, and here warnings are errors
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@FORMS
def test_a_compiled_network_sees_each_turns_weights(together: bool) -> None:
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 1)).double()
    apply_spectral_norm(made)
    twin = copy.deepcopy(made)
    torch._dynamo.reset()
    compiled = Counter()

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        compiled["times"] += 1
        return graph.forward

    made.compile(backend=backend)
    for _ in range(3):
        x = images()
        for each in (made, twin):
            with fixed_spectral_norm(each, together=together):
                each(x).sum().backward()
    assert compiled["times"] == 1
    assert_same(gradients(made), gradients(twin))


# --- kernels -------------------------------------------------------------------------------------


def launches(lists: tuple[list[Tensor], ...]) -> int:
    """Of a foreach operation: one if all pairs have one shape, else one for each pair."""
    shapes = [[x.shape for x in each] for each in lists]
    return 1 if all(each == shapes[0] for each in shapes) else len(shapes[0])


class Kernels(TorchDispatchMode):
    """Counts the operations that a GPU would launch: no views, no memory without values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(("empty", "detach")):
            self.seen[name] += launches(args) if name.startswith("_foreach") else 1
        return func(*args, **(kwargs or {}))


def kernels(D: nn.Module, together: bool) -> tuple[Counter[str], Counter[str]]:
    """Of the normalised weights of a network, and of the gradients behind theirs."""
    targets = [torch.randn_like(stored(m)) for m in D.modules() if hasattr(m, "parametrizations")]
    with Kernels() as forward, fixed_spectral_norm(D, together=together):
        weights = [m.weight for m in D.modules() if hasattr(m, "parametrizations")]
    with Kernels() as backward:
        torch.autograd.backward(weights, targets)
    return forward.seen, backward.seen


def small(kind: type[nn.Module]) -> nn.Module:
    if kind is SNDCGANDiscriminator:
        return SNDCGANDiscriminator(32, 3, 0.05, spectral_norm=True)
    return BigGANDiscriminator(
        32, 3, 10, True, 96, [2, 2, 2, 2], 8, "always", True, 0.05, spectral_norm=True
    )


@pytest.mark.parametrize(("kind", "layers"), [(SNDCGANDiscriminator, 8), (BigGANDiscriminator, 16)])
def test_together_takes_three_kernels_a_layer_and_a_handful(
    kind: type[nn.Module], layers: int
) -> None:
    forward, backward = kernels(small(kind), together=True)
    assert forward.total() <= 3 * layers + 5, forward
    assert backward.total() <= 3 * layers + 3, backward
    each = kernels(small(kind), together=False)
    assert each[0].total() >= 7 * layers
    assert each[1].total() >= 5 * layers


@FORMS
def test_nothing_waits_for_the_device(together: bool) -> None:
    made = net()
    with NoSync() as watched, fixed_spectral_norm(made, together=together):
        made(images()).sum().backward()
    assert "mv" in {name for name, _ in watched.seen}

"""Weights cast together: the numbers of autocast alone, the gradients too, and no trace."""

import copy
from collections import Counter
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from support.architectures import GENERATION
from support.nosync import NoSync
from support.turns import CPU, played, prepared, real
from torch import Tensor, nn

from crgan_cli.config.compose import compose
from crgan_cli.gan.build import build_networks, build_task
from crgan_cli.gan.tasks.base import Task
from crgan_cli.networks.fast.bf16_weights import bf16_weights, full_precision
from crgan_cli.networks.fast.fused_resample import PooledConv3
from crgan_cli.networks.fast.spectral import apply_spectral_norm, fixed_spectral_norm
from crgan_cli.networks.norms import ConditionalBatchNorm
from crgan_cli.training.engine.eager import Eager

BF16 = torch.bfloat16


class Net(nn.Module):
    """One layer of each kind that is cast, used twice or not at all, and two kinds that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(3, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = ConditionalBatchNorm(4, lambda c: nn.Embedding(2, c))
        self.out = nn.Linear(4, 2)
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(len(x), dtype=torch.long, device=x.device)
        h = self.shared(torch.relu(self.first(x)))
        return self.out(self.norm(self.shared(h), y).mean((2, 3)))


CAST = ("first", "shared", "out", "unused")


def net(*, spectral: bool = False) -> Net:
    torch.manual_seed(0)
    made = Net()
    if spectral:
        apply_spectral_norm(made)
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def images(seed: int = 1) -> Tensor:
    return torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed))


def autocast() -> torch.autocast:
    return torch.autocast("cpu", BF16)


def types(made: nn.Module) -> dict[str, torch.dtype]:
    """Of what the layers of a network compute with."""
    return {
        f"{name}.{key}": getattr(layer, key).dtype
        for name, layer in made.named_modules()
        for key in ("weight", "bias")
        if isinstance(getattr(layer, key, None), Tensor)
    }


def gradients(made: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in made.named_parameters()}


def assert_equal(ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None]) -> None:
    assert ours.keys() == theirs.keys()
    for name, other in theirs.items():
        mine = ours[name]
        if other is None:
            assert mine is None, name
        else:
            assert mine is not None, name
            assert torch.equal(mine, other), name


# --- the numbers of autocast ----------------------------------------------------------------------


class Alone(Eager):
    """Leaves all casts to autocast."""

    def bf16_weights(self, who: str) -> AbstractContextManager[None]:
        return nullcontext()


def small(*words: str) -> Task:
    torch.manual_seed(0)
    config = compose([*words, "architecture.width=0.02", "dataset=demo"])
    return build_task(config, build_networks(config))


def turns_of(engine: Eager, *words: str) -> tuple[dict, dict]:
    """The readings of a turn of each player, and what gradients it left."""
    task = small(*words)
    side = 128 if "dataset.resolution=128" in words else 32
    prepared(task, engine, real(2, 1, side, classes=10))
    readings, grads = {}, {}
    for who in ("d", "g"):
        readings |= played(engine, who)
        grads |= {f"{who}.{n}": g for n, g in gradients(task.player(who)).items()}
    return readings, grads


LABELLED = ("resnet_sngan", "biggan_lite")
WORDS = {"resnet5": ("dataset.resolution=128",)} | dict.fromkeys(
    LABELLED, ("architecture.conditional=true",)
)


@pytest.mark.parametrize("regularizer", ["icr", "gp", "jsr"])
@pytest.mark.parametrize("architecture", GENERATION)
def test_a_turn_is_that_of_autocast_bit_by_bit(architecture: str, regularizer: str) -> None:
    words = (f"architecture={architecture}", f"regularizer={regularizer}")
    words += WORDS.get(architecture, ())
    ours, theirs = turns_of(Eager("bf16"), *words), turns_of(Alone("bf16"), *words)
    assert_equal(ours[0], theirs[0])
    if regularizer != "icr" or not architecture.startswith("biggan"):
        assert_equal(ours[1], theirs[1])
        return
    # G makes two calls here, of normalised weights, which autocast casts anew for each: it adds
    # their gradients in fp32, and here they are added in bf16, of 8 bits
    for name, other in theirs[1].items():
        if other is not None:
            assert (ours[1][name] - other).norm() <= 2**-7 * other.norm(), name


@pytest.mark.parametrize("architecture", ["resnet", "resnet_sngan", "biggan_lite"])
def test_a_folded_kernel_is_made_in_fp32_and_then_cast(architecture: str) -> None:
    words = (f"architecture={architecture}", "regularizer=gp")
    ours, theirs = (turns_of(kind("bf16", fold="always"), *words) for kind in (Eager, Alone))
    assert_equal(ours[0], theirs[0])
    assert_equal(ours[1], theirs[1])


@pytest.mark.parametrize("together", [True, False])
def test_layer_by_layer_normalised_weights_are_cast_as_well(together: bool) -> None:
    one = net(spectral=True)
    other = copy.deepcopy(one)
    found = []
    for made, casts in ((one, bf16_weights), (other, nullcontext)):
        with fixed_spectral_norm(made, together=together), autocast(), casts(made):  # type: ignore
            assert (made.first.weight.dtype == BF16) == (casts is bf16_weights)
            found.append(made(images()))
            found[-1].float().sum().backward()
    assert torch.equal(*found)
    shared = "shared.parametrizations.weight.original"  # used twice: added in bf16
    ours, theirs = gradients(one), gradients(other)
    mine, its = ours.pop(shared), theirs.pop(shared)
    assert mine is not None
    assert its is not None
    assert (mine - its).norm() <= 2**-7 * its.norm()
    assert_equal(ours, theirs)


# --- what is cast, and what is not ----------------------------------------------------------------


@pytest.mark.parametrize("spectral", [True, False])
def test_weights_and_biases_are_cast_and_embeddings_and_batch_norm_are_not(spectral: bool) -> None:
    made = net(spectral=spectral)
    with fixed_spectral_norm(made):
        exact = {name: getattr(made, name).weight.detach() for name in CAST}
        with bf16_weights(made):
            for name, dtype in types(made).items():
                expected = BF16 if name.split(".")[0] in CAST else torch.float32
                assert dtype == expected, name
            for name, weight in exact.items():
                assert torch.equal(getattr(made, name).weight, weight.to(BF16))
                assert getattr(made, name).weight.stride() == weight.stride()
        assert all(getattr(made, name).weight.dtype == torch.float32 for name in CAST)


def test_a_layer_that_will_be_normalised_at_every_call_is_left_to_autocast() -> None:
    made = net(spectral=True)
    with bf16_weights(made):
        assert {types(made)[f"{name}.weight"] for name in CAST} == {torch.float32}


class Centred(nn.Linear):
    """A linear map whose weights have mean 0."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight - self.weight.mean(), self.bias)


def test_a_layer_with_a_forward_of_its_own_is_left_to_autocast() -> None:
    made = Centred(2, 3)
    with bf16_weights(made):
        assert set(types(made).values()) == {torch.float32}


def test_what_autocast_leaves_alone_stays_as_it_is() -> None:
    made = nn.Sequential(nn.Linear(2, 3).double(), nn.Linear(2, 3).to(BF16), nn.Embedding(2, 3))
    before = {id(p) for p in made.parameters()}
    with bf16_weights(made):
        assert {id(layer.weight) for layer in made} <= before


def test_a_folded_layer_keeps_its_weight_and_not_its_bias() -> None:
    layer = PooledConv3(2, 3)
    layer.use_fused = True
    assert layer.bias is not None
    with bf16_weights(layer):
        assert (layer.weight.dtype, layer.bias.dtype) == (torch.float32, BF16)


def test_other_types_may_be_asked_for() -> None:
    made = net()
    with bf16_weights(made, dtype=torch.float16):
        assert made.out.weight.dtype == torch.float16


@pytest.mark.parametrize(
    ("precision", "compile"), [("fp32", False), ("tf32", False), ("bf16", True)]
)
def test_an_engine_in_fp32_or_with_a_compiler_casts_nothing(precision: str, compile: bool) -> None:
    task = small("regularizer=none")
    engine = Eager(precision, compile=compile)  # type: ignore[arg-type]
    engine.prepare(task, CPU)
    with engine.bf16_weights("d"):
        assert set(types(task).values()) == {torch.float32}


# --- no trace -------------------------------------------------------------------------------------


def everything(made: nn.Module) -> dict[str, object]:
    """Which objects a network is made of, and what its layers answer for their weights."""
    found: dict[str, object] = {
        f"{name} {key}": id(each)
        for name, layer in made.named_modules()
        for key, each in {**layer._parameters, **layer._buffers, **vars(layer)}.items()
        if isinstance(each, Tensor)
    }
    return found | types(made) | {f"asks {n}": p.requires_grad for n, p in made.named_parameters()}


@pytest.mark.parametrize("spectral", [True, False])
def test_parameters_and_state_are_untouched_within_and_after(spectral: bool) -> None:
    made = net(spectral=spectral).requires_grad_(False)
    made.out.requires_grad_()
    outside = everything(made)
    with fixed_spectral_norm(made):
        before = everything(made)
        named, state = dict(made.named_parameters()), made.state_dict()
        with bf16_weights(made):
            assert all(p is named[name] for name, p in made.named_parameters())
            assert {k: (v.data_ptr(), v.dtype) for k, v in made.state_dict().items()} == {
                k: (v.data_ptr(), v.dtype) for k, v in state.items()
            }
        assert everything(made) == before
    after = everything(made)
    assert {key for key in outside.keys() | after.keys() if outside.get(key) != after.get(key)} == (
        set()
    )


def test_all_is_put_back_where_a_turn_fails() -> None:
    made = net(spectral=True)
    with fixed_spectral_norm(made):
        before = everything(made)
        with pytest.raises(ZeroDivisionError), bf16_weights(made):
            raise ZeroDivisionError
        assert everything(made) == before
        with bf16_weights(made):
            low = everything(made)
            with full_precision(made, CPU):
                assert everything(made) == before
            assert everything(made) == low
            with pytest.raises(ZeroDivisionError), full_precision(made, CPU):
                raise ZeroDivisionError
            assert everything(made) == low


def test_a_failing_cast_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = net()
    before = everything(made)

    def fails(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(torch, "_foreach_copy_", fails)
        with pytest.raises(MemoryError), bf16_weights(made):
            pass
    assert everything(made) == before


def test_networks_are_cast_once_though_named_twice_and_contexts_do_not_nest() -> None:
    made = net()
    with (
        bf16_weights(made, made),
        pytest.raises(AssertionError, match="within"),
        bf16_weights(made),
    ):
        pass
    with bf16_weights(), bf16_weights(nn.ReLU()):  # nothing to cast
        pass


def test_a_copy_made_between_turns_has_weights_of_its_own() -> None:
    made = net(spectral=True)
    with fixed_spectral_norm(made), bf16_weights(made):
        pass
    twin = copy.deepcopy(made)
    with torch.no_grad():
        made.out.bias.fill_(3.0)
    with fixed_spectral_norm(made, twin), bf16_weights(made):
        assert made.out.bias.dtype == BF16
        assert twin.out.bias.dtype == torch.float32
        assert not torch.equal(made.out.bias.float(), twin.out.bias)


# --- gradients ------------------------------------------------------------------------------------


def test_gradients_by_hand() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1 + 2**-12, 3.0]]))  # 1 in bf16
        layer.bias.zero_()
    with bf16_weights(layer), autocast():
        out = layer(torch.tensor([[2.0, 1 + 2**-12]]))
    assert out.item() == 5.0
    out.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.tolist() == [[2.0, 1.0]]


def test_an_unused_weight_has_no_gradient_and_a_gradient_lies_as_its_kernel_does() -> None:
    made = net()
    with bf16_weights(made), autocast():
        made(images().contiguous(memory_format=torch.channels_last)).float().sum().backward()
    assert gradients(made)["unused.weight"] is None
    assert made.shared.weight.grad is not None
    assert made.shared.weight.grad.stride() == made.shared.weight.stride()
    assert made.shared.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_frozen_weight_has_no_graph_and_its_neighbour_has() -> None:
    made = net()
    made.first.requires_grad_(False)
    with bf16_weights(made):
        assert not made.first.weight.requires_grad
        assert made.shared.weight.requires_grad
        with autocast():
            made(images()).float().sum().backward()
    assert made.first.weight.grad is None
    assert made.shared.weight.grad is not None
    with torch.no_grad(), bf16_weights(made):
        assert not made.shared.weight.requires_grad
    with bf16_weights(made.requires_grad_(False)):
        assert not made.shared.weight.requires_grad


@pytest.mark.parametrize("spectral", [True, False])
def test_full_precision_within_is_full_precision_without(spectral: bool) -> None:
    made = net(spectral=spectral).eval()
    with fixed_spectral_norm(made):
        exact = made(images())
        with autocast(), bf16_weights(made):
            rounded = made(images())
            with full_precision(made, CPU):
                assert torch.equal(made(images()), exact)
                assert not torch.is_autocast_enabled("cpu")
            assert torch.is_autocast_enabled("cpu")
            assert torch.equal(made(images()), rounded)
    assert rounded.dtype == BF16
    with full_precision(made, CPU):  # there is nothing to hide
        assert set(types(made).values()) == {torch.float32}


def test_the_gradients_of_both_precisions_add_up_on_the_weight() -> None:
    found = []
    for low, full in ((1, 0), (0, 1), (1, 1)):
        made = net(spectral=True).eval()
        with fixed_spectral_norm(made), autocast(), bf16_weights(made):
            loss = low * made(images()).float().square().sum()
            with full_precision(made, CPU):
                x = images(2).requires_grad_()
                (slope,) = torch.autograd.grad(made(x).sum(), x, create_graph=True)
                loss = loss + full * slope.square().sum()
            loss.backward()
        found.append({name: g for name, g in gradients(made).items() if g is not None})
    only_low, only_full, both = found
    assert both["shared.parametrizations.weight.original"].norm() > 0
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, only_low[name] + only_full[name])


def test_a_second_derivative_through_a_cast_is_refused() -> None:
    made = net()
    with bf16_weights(made), autocast():
        loss = made(images()).float().square().sum()
    (slope,) = torch.autograd.grad(loss, made.first.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


# --- kernels --------------------------------------------------------------------------------------


def casts(engine: Eager, who: str) -> Counter[str]:
    """The operations of a turn of SNDCGAN with an average, by name."""
    prepared(small("architecture=sndcgan", "regularizer=none"), engine, real(2, 1, 32))
    played(engine, who)
    with NoSync() as watched:
        played(engine, who)
    return Counter(name for name, _ in watched.seen)


@pytest.mark.parametrize(("who", "gradients"), [("d", 14), ("g", 10)])
def test_a_turn_casts_its_24_weights_in_one_operation_each_way(who: str, gradients: int) -> None:
    """All but those of the logit, which is fp32."""
    ours, theirs = casts(Eager("bf16"), who), casts(Alone("bf16"), who)
    assert theirs["_to_copy"] - ours["_to_copy"] == 24 + gradients
    assert ours["_foreach_copy_"] - theirs["_foreach_copy_"] == 2

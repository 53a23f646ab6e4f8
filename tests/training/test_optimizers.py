"""The optimizers of two players, and their settings over time."""

from copy import deepcopy

import pytest
import torch
from support.tiny import TinyDiscriminator, TinyGenerator
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from crgan_cli.config.build import build_group
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose
from crgan_cli.errors import UserError
from crgan_cli.training.engine.turn_log import bound_gradient
from crgan_cli.training.optimizers import SGD, Adam, AdamInMemoryOrder, Optimization


def adam(**changed: object) -> Adam:
    settings = {
        "lr_g": 1e-3,
        "lr_d": 4e-3,
        "beta1": 0.5,
        "beta2": 0.9,
        "eps": 1e-6,
        "n_dis": 2,
        "decay": "none",
    }
    return Adam(**{**settings, **changed})  # pyright: ignore[reportArgumentType]


def sgd(**changed: object) -> SGD:
    settings = {
        "lr_g": 0.1,
        "lr_d": 0.05,
        "n_dis": 1,
        "decay_factor": 2.0,
        "lr_floor": 0.2,
        "momentum": 0.5,
        "final_momentum": 0.7,
        "momentum_steps": 4,
    }
    return SGD(**{**settings, **changed})  # pyright: ignore[reportArgumentType]


def players() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"d": TinyDiscriminator(), "g": TinyGenerator()}


def test_each_player_has_its_own_rate_and_all_else_in_common() -> None:
    found = adam().build(players())
    rates = {who: each.param_groups[0]["lr"].item() for who, each in found.items()}
    assert rates == pytest.approx({"g": 1e-3, "d": 4e-3})
    for optimizer in found.values():
        (group,) = optimizer.param_groups
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.5, 0.9), 1e-6, 0)


def test_an_optimizer_holds_its_player_alone() -> None:
    both = players()
    for who, optimizer in adam().build(both).items():
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in both[who].parameters()}


def test_linear_decay_by_hand() -> None:
    settings = adam(decay="linear")
    optimizers = settings.build(players())
    for step, left in ((0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25)):
        settings.schedule(optimizers, step, steps=4)
        assert optimizers["g"].param_groups[0]["lr"].item() == pytest.approx(1e-3 * left)
        assert optimizers["d"].param_groups[0]["lr"].item() == pytest.approx(4e-3 * left)


def test_decay_from_a_share_of_the_steps_by_hand() -> None:
    settings = adam(decay="linear", decay_from=0.5)
    rates = [settings.learning_rate("g", step, 8) / 1e-3 for step in range(8)]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def rates(settings: Adam, who: str, steps: int) -> list[float]:
    """The shares of the learning rate, step by step."""
    return [settings.learning_rate(who, step, steps) / settings.lr[who] for step in range(steps)]


def test_cosine_decay_by_hand() -> None:
    """(1 + cos(pi p)) / 2 at p = 0, 1/4, 1/2, 3/4; from half of the steps at p = 0, 1/2."""
    half = 2**0.5 / 4
    assert rates(adam(decay="cosine"), "g", 4) == pytest.approx([1, 0.5 + half, 0.5, 0.5 - half])
    late = adam(decay="cosine", decay_from=0.5)
    assert rates(late, "g", 4) == pytest.approx([1, 1, 1, 0.5])


def test_warm_up_by_hand_and_the_decay_begins_after_it() -> None:
    """Of 8 steps 4 rise by a quarter; then p = 0, 1/4, 1/2, 3/4."""
    rise = [0.25, 0.5, 0.75, 1.0]
    assert rates(adam(warmup=4), "g", 8) == pytest.approx([*rise, 1, 1, 1, 1])
    assert rates(adam(warmup=4, decay="linear"), "g", 8) == pytest.approx(
        [*rise, 1, 0.75, 0.5, 0.25]
    )
    half = 2**0.5 / 4
    assert rates(adam(warmup=4, decay="cosine"), "d", 8) == pytest.approx(
        [*rise, 1, 0.5 + half, 0.5, 0.5 - half]
    )
    assert rates(adam(warmup=4, decay="cosine"), "g", 4) == pytest.approx(rise)


def test_d_may_have_a_schedule_of_its_own() -> None:
    own = adam(decay="linear", warmup=2, decay_d="none", warmup_d=0)
    assert rates(own, "d", 4) == [1, 1, 1, 1]
    assert rates(own, "g", 4) == pytest.approx([0.5, 1, 1, 0.5])
    late = adam(decay="linear", decay_from_d=0.5)
    assert rates(late, "d", 4) == pytest.approx([1, 1, 1, 0.5])


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    adam(warmup=4).require_steps(4)
    with pytest.raises(UserError, match=r"optimizer.warmup_d=5 is longer than the run, steps=4"):
        adam(warmup_d=5).require_steps(4)


@pytest.mark.parametrize(
    ("name", "rate", "n_dis", "at_three_quarters"),
    [("cyclegan", 2e-4, 1, 0.5), ("stargan", 1e-4, 5, 1.0), ("stargan_paper", 1e-4, 5, 0.5)],
)
def test_the_settings_of_unpaired_translation(
    name: str, rate: float, n_dis: int, at_three_quarters: float
) -> None:
    settings = build_group(compose([f"optimizer={name}"]).optimizer)
    assert isinstance(settings, Adam)
    assert (settings.betas, settings.n_dis) == ((0.5, 0.999), n_dis)
    for who in ("g", "d"):
        assert settings.learning_rate(who, 100, 200) == pytest.approx(rate)
        assert settings.learning_rate(who, 150, 200) == pytest.approx(rate * at_three_quarters)


def test_without_decay_the_rate_stays() -> None:
    settings = adam()
    optimizers = settings.build(players())
    settings.schedule(optimizers, 3, steps=4)
    assert optimizers["d"].param_groups[0]["lr"].item() == pytest.approx(4e-3)


@pytest.mark.parametrize(
    "settings",
    [adam(decay="linear"), adam(decay="cosine", warmup=3), sgd()],
    ids=["adam", "cosine", "sgd"],
)
def test_what_changes_keeps_its_place_in_memory(settings: Optimization) -> None:
    """A CUDA graph reads it there."""
    optimizers = settings.build(players())
    (group,) = optimizers["g"].param_groups
    changing = settings.scheduled("g", 2, 4)
    places = {key: group[key] for key in changing}
    settings.schedule(optimizers, 2, steps=4)
    for key, value in changing.items():
        assert group[key] is places[key]
        assert group[key].item() == pytest.approx(value)


def test_a_restored_optimizer_has_the_settings_of_its_configuration() -> None:
    """The moments are those that were saved, whatever else was saved with them."""
    before, after = adam(lr_g=5.0, beta1=0.1), adam()
    both = players()
    saved = before.build(both)
    for p in both["g"].parameters():
        p.grad = torch.ones_like(p)
    saved["g"].step()
    restored = after.build(both)
    restored["g"].load_state_dict(saved["g"].state_dict())
    after.refresh(restored)
    (group,) = restored["g"].param_groups
    assert (group["lr"].item(), group["betas"]) == (pytest.approx(1e-3), (0.5, 0.9))
    moments = restored["g"].state_dict()["state"]
    assert {state["step"].item() for state in moments.values()} == {1.0}
    assert all((state["exp_avg"] > 0).all() for state in moments.values())


def test_the_first_step_by_hand() -> None:
    """At the first step Adam moves by lr * g / (|g| + eps), whatever the betas."""
    player = nn.ParameterDict({"w": torch.tensor([1.0, -2.0, 0.5])})
    (optimizer,) = adam(eps=0.1).build({"d": player}).values()
    gradient = torch.tensor([0.3, -0.1, 0.0])
    player["w"].grad = gradient
    optimizer.step()
    moved = 4e-3 * gradient / (gradient.abs() + 0.1)
    torch.testing.assert_close(player["w"].detach(), torch.tensor([1.0, -2.0, 0.5]) - moved)


def with_gradients(*gradients: Tensor) -> list[nn.Parameter]:
    """Parameters that have these gradients."""
    found = [nn.Parameter(torch.zeros_like(each)) for each in gradients]
    for parameter, gradient in zip(found, gradients, strict=True):
        parameter.grad = gradient.clone()
    return found


@pytest.mark.parametrize(("largest", "share"), [(2.5, 0.5), (5.0, 1.0), (50.0, 1.0)])
def test_clipping_by_hand(largest: float, share: float) -> None:
    """(3, 0) and (0, 4) have the norm 5 together. The log has it as it was."""
    mine = [*with_gradients(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]))]
    unused = nn.Parameter(torch.ones(2))
    logged = bound_gradient("d", [*mine, unused], largest, measure=True)
    assert logged["gradient_norm/d"].item() == 5
    assert logged["clipped/d"].item() == (share < 1)
    assert unused.grad is None
    for parameter, gradient in zip(mine, ([3.0, 0.0], [0.0, 4.0]), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, share * torch.tensor(gradient))


@pytest.mark.parametrize("largest", [0.3, 300.0])
def test_clipping_is_torchs_bit_by_bit(largest: float) -> None:
    gradients = [torch.randn(3, 4), torch.randn(7)]
    ours, theirs = with_gradients(*gradients), with_gradients(*gradients)
    assert bound_gradient("g", ours, largest, measure=False).keys() == {"clipped/g"}
    nn.utils.clip_grad_norm_(theirs, largest, foreach=False)
    for one, two in zip(ours, theirs, strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.equal(one.grad, two.grad)
    assert bound_gradient("g", ours, None, measure=False) == {}


@pytest.mark.parametrize("who", ["d", "g"])
def test_the_fused_step_is_torchs_plain_adam(who: str) -> None:
    ours, plain = players()[who], players()[who]
    settings = adam()
    mine = settings.build({who: ours})[who]
    other = torch.optim.Adam(
        plain.parameters(), lr=settings.lr[who], betas=(0.5, 0.9), eps=1e-6, foreach=False
    )
    for step in range(4):
        for player, optimizer in ((ours, mine), (plain, other)):
            generator = torch.Generator().manual_seed(step)
            for p in player.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
    for one, two in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)
    saved, theirs = mine.state_dict(), other.state_dict()
    assert saved["state"].keys() == theirs["state"].keys()
    assert saved["param_groups"][0].keys() == theirs["param_groups"][0].keys()
    mine.zero_grad()
    assert all(p.grad is None and not p.grad_fn for p in ours.parameters())


@pytest.mark.parametrize("name", Choices().groups["optimizer"])
def test_d_follows_the_rate_of_g_unless_it_has_its_own(name: str) -> None:
    own = compose([f"optimizer={name}", "optimizer.lr_g=3e-4"]).optimizer
    alone = compose([f"optimizer={name}"]).optimizer
    assert own.lr_d == (3e-4 if alone.lr_d == alone.lr_g else alone.lr_d)
    assert build_group(own).lr == {"g": 3e-4, "d": own.lr_d}


@pytest.mark.parametrize("moves", [True, False])
def test_loaded_moments_have_the_layout_of_their_weights(moves: bool) -> None:
    """An update after loading is that of an optimizer that was never saved."""
    before, after = (nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last) for _ in range(2))
    gradient = torch.randn(4, 3, 3, 3)

    def update(net: nn.Conv2d, optimizer: torch.optim.Optimizer) -> None:
        net.weight.grad = torch.empty_like(net.weight).copy_(gradient)
        net.bias.grad = torch.ones_like(net.bias)
        optimizer.step()

    (kept,) = adam().build({"d": before}).values()
    update(before, kept)
    after.load_state_dict(before.state_dict())
    if moves:
        after.to(memory_format=torch.contiguous_format)
    loaded = adam().build({"d": after})
    loaded["d"].load_state_dict(deepcopy(kept.state_dict()))
    untouched = loaded["d"].state[after.weight]["exp_avg"]
    adam().refresh(loaded)
    for weight, state in loaded["d"].state.items():
        assert {state[name].stride() for name in ("exp_avg", "exp_avg_sq")} == {weight.stride()}
    assert (loaded["d"].state[after.weight]["exp_avg"] is untouched) == (not moves)
    update(before, kept)
    update(after, loaded["d"])
    assert torch.equal(after.weight, before.weight)


# --- gradient descent with momentum ---------------------------------------------------------------


def test_rate_and_momentum_by_hand() -> None:
    """The rate halves down to its floor; the momentum rises by a quarter of 0.2 a step."""
    settings = sgd()
    optimizers = settings.build(players())
    for step, share, momentum in (
        (0, 1.0, 0.5),
        (1, 0.5, 0.55),
        (2, 0.25, 0.6),
        (3, 0.2, 0.65),
        (4, 0.2, 0.7),
        (9, 0.2, 0.7),
    ):
        settings.schedule(optimizers, step, steps=10)
        for who, lr in (("g", 0.1), ("d", 0.05)):
            (group,) = optimizers[who].param_groups
            assert group["lr"].item() == pytest.approx(lr * share)
            assert group["momentum"].item() == pytest.approx(momentum)
            assert settings.learning_rate(who, step, 10) == pytest.approx(lr * share)


def test_the_schedule_of_the_authors() -> None:
    """mnist.yaml: 0.1 / 1.000004^t down to 1e-6; 0.5 in epoch 0, 0.7 from epoch 249 of 500 on."""
    settings = build_group(compose(["optimizer=goodfellow"]).optimizer)
    last = settings.scheduled("g", 249 * 500, 10**6)
    assert last == {"lr": pytest.approx(0.1 / 1.000004**124500), "momentum": pytest.approx(0.7)}
    assert settings.scheduled("g", 500, 10**6)["momentum"] == pytest.approx(0.5 + 0.2 / 249)
    assert settings.learning_rate("g", 10**8, 10**8) == pytest.approx(1e-6)
    assert settings.learning_rate("d", 0, 1) == pytest.approx(0.1 / 2)


def test_two_steps_with_momentum_by_hand() -> None:
    """v1 = -0.05 g1; v2 = 0.55 v1 - 0.025 g2: the rate is inside of v, unlike in torch.optim."""
    player = nn.ParameterDict({"w": torch.tensor([1.0, -2.0])})
    settings = sgd()
    optimizers = settings.build({"d": player})
    first, second = torch.tensor([2.0, 4.0]), torch.tensor([1.0, -8.0])
    for step, gradient in enumerate((first, second)):
        settings.schedule(optimizers, step, steps=10)
        player["w"].grad = gradient
        optimizers["d"].step()
    # v1 = (-0.1, -0.2); v2 = (-0.055 - 0.025, -0.11 + 0.2) = (-0.08, 0.09)
    expected = torch.tensor([1 - 0.1 - 0.08, -2 - 0.2 + 0.09])
    torch.testing.assert_close(player["w"].detach(), expected)


def test_with_constant_settings_it_is_torchs_sgd() -> None:
    ours, plain = players()["d"], players()["d"]
    settings = sgd(decay_factor=1.0, final_momentum=0.5)
    mine = settings.build({"d": ours})
    other = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.5)
    for step in range(4):
        settings.schedule(mine, step, steps=4)
        for player, optimizer in ((ours, mine["d"]), (plain, other)):
            generator = torch.Generator().manual_seed(step)
            for p in player.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
    for one, two in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)


def test_a_parameter_without_a_gradient_stays() -> None:
    player = nn.ParameterDict({"w": torch.ones(2), "unused": torch.ones(2)})
    (optimizer,) = sgd().build({"d": player}).values()
    player["w"].grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(player["unused"], torch.ones(2))
    assert not torch.equal(player["w"], torch.ones(2))


def test_a_resumed_descent_is_the_one_that_went_on() -> None:
    """Bit by bit, with the settings of its configuration, whatever was saved with the velocity."""

    def descend(player: nn.Module, settings: SGD, optimizer: dict, steps: range) -> None:
        for step in steps:
            settings.schedule(optimizer, step, steps=6)
            generator = torch.Generator().manual_seed(step)
            for p in player.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer["d"].step()

    whole, resumed, settings = players()["d"], players()["d"], sgd()
    one = settings.build({"d": whole})
    descend(whole, settings, one, range(3))
    resumed.load_state_dict(whole.state_dict())
    other = settings.build({"d": resumed})
    saved = deepcopy(one["d"].state_dict())
    saved["param_groups"][0]["lr"].fill_(9.0)
    other["d"].load_state_dict(saved)
    settings.refresh(other)
    assert other["d"].param_groups[0]["lr"].item() == pytest.approx(0.05)
    descend(whole, settings, one, range(3, 6))
    descend(resumed, settings, other, range(3, 6))
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


# --- memory order --------------------------------------------------------------------------------


class FusedArguments(TorchDispatchMode):
    """Keeps what the fused kernel was given."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "_fused_adam_" in func.overloadpacket.__name__:
            self.tensors = [x for each in args[:4] for x in each]
        return func(*args, **(kwargs or {}))


def test_fused_adam_has_nothing_to_copy_and_gives_the_same_bits() -> None:
    """PyTorch's copies the gradients of weights in channels_last, so that they lie as in NCHW."""
    ends = []
    for kind in (torch.optim.Adam, AdamInMemoryOrder):
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = kind(layer.parameters(), lr=torch.tensor(0.1), fused=True)
        for _ in range(3):
            for parameter in layer.parameters():
                parameter.grad = torch.randn_like(parameter)
            with FusedArguments() as seen:
                optimizer.step()
        assert len(seen.tensors) == 8  # weight and bias: values, gradients and two moments
        contiguous = {x.is_contiguous() for x in seen.tensors}
        assert contiguous == ({True, False} if kind is torch.optim.Adam else {True})
        state = optimizer.state[layer.weight]
        assert state["exp_avg"].shape == layer.weight.shape  # a checkpoint looks as before
        ends.append((layer.weight.detach(), state["exp_avg"], state["exp_avg_sq"]))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))

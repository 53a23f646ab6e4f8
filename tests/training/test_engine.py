"""One turn: whose parameters it changes, in which precision, and what it never waits for."""

import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from support.nosync import NoSync
from support.tiny import TinyDiscriminator, game
from support.turns import ADAM, CPU, Given, played, prepared, real
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose
from crgan_cli.errors import UserError
from crgan_cli.gan.build import build_networks, build_task
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.regularizers.consistency import (
    BalancedConsistency,
    ConsistencyRegularization,
    LatentConsistency,
)
from crgan_cli.gan.regularizers.lecam import LeCam
from crgan_cli.gan.regularizers.penalties import DRAGAN, R1, GradientPenalty, JSRegularizer
from crgan_cli.gan.regularizers.top_k import TopK
from crgan_cli.gan.regularizers.weights import Orthogonal
from crgan_cli.gan.types import Batch
from crgan_cli.networks.fast import fused_resample
from crgan_cli.networks.fast.spectral import fixed_spectral_norm
from crgan_cli.system.device import best_precision, resolve_device
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.engine.turn_log import gradient_norm

REGULARIZERS: dict[str, Callable[[], list[Regularizer]]] = {
    "none": list,
    "cr": lambda: [ConsistencyRegularization(10.0)],
    "bcr": lambda: [BalancedConsistency(10.0, 10.0)],
    "zcr": lambda: [LatentConsistency(5.0, 0.5, 0.03)],
    "icr": lambda: [BalancedConsistency(10.0, 10.0), LatentConsistency(5.0, 0.5, 0.03)],
    "gp": lambda: [GradientPenalty(10.0)],
    "dragan": lambda: [DRAGAN(10.0)],
    "jsr": lambda: [JSRegularizer(0.1)],
    "r1": lambda: [R1(10.0)],
    "cr_gp": lambda: [ConsistencyRegularization(10.0), GradientPenalty(10.0)],
    "lecam": lambda: [LeCam(0.3, decay=0.99, start=1)],
    "orthogonal": lambda: [Orthogonal(1e-4)],
    "top_k": lambda: [TopK(gamma=0.99, nu=0.5, epoch_steps=10)],
}
PENALTIES = ("gp", "dragan", "jsr", "r1")


def parameters(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in module.named_parameters()}


def changed(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, each in module.named_parameters() if not torch.equal(each, before[name])}


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize(("who", "other"), [("d", "g"), ("g", "d")])
def test_a_turn_changes_its_own_player_alone(name: str, who: str, other: str) -> None:
    task, engine = game(*REGULARIZERS[name](), spectral=True).float(), Eager()
    prepared(task, engine)
    mover, waiting = task.player(who), task.player(other)
    before_mover, before_waiting = parameters(mover), parameters(waiting)
    played(engine, who)
    expected = {name for name in before_mover if name != "embed.weight"}  # there are no labels
    assert changed(before_mover, mover) == expected
    assert changed(before_waiting, waiting) == set()
    assert [name for name, p in waiting.named_parameters() if p.grad is not None] == []
    assert [name for name, p in waiting.named_parameters() if p.requires_grad] == []


def test_turns_in_alternation_leave_no_gradient_in_the_other() -> None:
    task, engine = game(*REGULARIZERS["icr"]()).float(), Eager()
    prepared(task, engine)
    for who, other in (("d", "g"), ("g", "d"), ("d", "g")):
        before = {
            name: None if p.grad is None else p.grad.clone()
            for name, p in task.player(other).named_parameters()
        }
        played(engine, who)
        for name, p in task.player(other).named_parameters():
            kept = before[name]
            assert (p.grad is None) == (kept is None)
            assert p.grad is None or (kept is not None and torch.equal(p.grad, kept))


@pytest.mark.parametrize("who", ["d", "g"])
def test_the_gradient_norm_is_that_of_all_parameters_together(who: str) -> None:
    task, engine = game().float(), Eager()
    prepared(task, engine)
    numbers = played(engine, who, measure=True)
    gradients = [p.grad.flatten() for p in task.player(who).parameters() if p.grad is not None]
    assert numbers[f"gradient_norm/{who}"].item() == pytest.approx(
        torch.cat(gradients).square().sum().sqrt().item(), rel=1e-5
    )
    assert f"gradient_norm/{who}" not in played(engine, who)


def test_no_turn_walks_through_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine did, once; the average of G does at its first update."""
    task = game(BalancedConsistency(10.0, 10.0)).float()
    ema = EMA(task.player("g"), 0.9, 0)
    prepared(task, engine := Eager("bf16"), ema=ema)
    ema.update(task.player("g"), 0.1)

    def refuse(*args: object, **kwargs: object) -> Iterator[object]:
        raise AssertionError("a turn walks through a network")

    monkeypatch.setattr(nn.Module, "named_modules", refuse)
    for who in ("d", "g"):
        engine.turn(who, 0, engine.batches.inputs(0), measure=True, lerp_weight=0.1)


def test_the_gradient_norm_by_hand() -> None:
    player = nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(1), "idle": torch.zeros(1)})
    player["a"].grad, player["b"].grad = torch.tensor([1.0, 2.0]), torch.tensor([2.0])
    assert gradient_norm(player.parameters()).item() == 3.0


def test_nothing_that_a_turn_gives_keeps_its_graph() -> None:
    task, engine = game(*REGULARIZERS["icr"]()).float(), Eager()
    prepared(task, engine)
    for who in ("d", "g"):
        assert not any(each.requires_grad for each in played(engine, who, measure=True).values())


# --- precision and layout -------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["d", "g"])
@pytest.mark.parametrize("name", REGULARIZERS)
def test_bf16_agrees_with_fp32(name: str, who: str) -> None:
    """To bf16's 8 bits: a term is small beside the squared logits, or pixels, that it is made of.

    What a penalty sees of real images alone is not rounded at all.
    """
    moves = {}
    for precision in ("fp32", "bf16"):
        task, engine = game(*REGULARIZERS[name](), spectral=True).float(), Eager(precision)
        prepared(task, engine)
        moves[precision] = played(engine, who, measure=True)
    exact, rounded = moves["fp32"], moves["bf16"]
    assert exact.keys() == rounded.keys()
    for name, value in exact.items():
        near = 1e-6 if name in ("terms/r1", "terms/dragan") else 2e-2
        near = 5e-2 if name.startswith("gradient_norm") else near
        torch.testing.assert_close(rounded[name], value, rtol=near, atol=near / 10)


class Witness(TinyDiscriminator):
    """A discriminator that notes the type of its images and of what its convolution makes."""

    def __init__(self) -> None:
        super().__init__(spectral=True)
        self.types: list[tuple[torch.dtype, torch.dtype]] = []
        self.conv.register_forward_hook(self.note)

    def note(self, layer: nn.Module, inputs: tuple[torch.Tensor], out: torch.Tensor) -> None:
        self.types.append((inputs[0].dtype, out.dtype))


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_and_seams_are_fp32_and_the_networks_bf16(name: str) -> None:
    task, engine = game(*REGULARIZERS[name]()).float(), Eager("bf16")
    task.adversary.D = Witness()
    prepared(task, engine)
    played(engine, "d")
    joint, *penalty = task.adversary.D.types
    assert joint == (torch.float32, torch.bfloat16)
    assert len(penalty) == 1
    assert set(penalty) == {(torch.float32, torch.float32)}
    assert all(p.grad.dtype == torch.float32 for p in task.adversary.D.parameters())


@pytest.mark.parametrize("name", REGULARIZERS)
def test_the_layout_of_pixels_in_memory_changes_nothing(name: str) -> None:
    found = []
    for channels_last in (True, False):
        task = game(*REGULARIZERS[name](), spectral=True).float()
        engine = Eager(channels_last=channels_last)
        prepared(task, engine)
        weight = task.G.conv.weight
        assert weight.is_contiguous(memory_format=engine.layout)
        found.append([played(engine, who, measure=True) for who in ("d", "g")])
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-6)


# --- a turn that a GPU need not wait for ----------------------------------------------------------


def assert_steady(engine: Eager) -> None:
    """No turn waits for the host; and after the first, which makes Adam's state, the same
    operations give the same shapes in every turn, whatever was drawn."""
    ticket = engine.batches.inputs(0)
    for who in engine.players:
        turns = []
        for number in range(3):
            torch.manual_seed(number)
            with NoSync() as watched:
                engine.turn(who, number, ticket, measure=True)
            turns.append(watched.seen)
        names = [name for name, _ in turns[1]]
        assert "_fused_adam_" in names  # Adam and the backward pass are watched as well
        assert {"convolution_backward", "mm"} & set(names)
        assert turns[1] == turns[2]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", REGULARIZERS)
def test_no_turn_waits_for_the_host(name: str, batch_norm: bool) -> None:
    task, engine = game(*REGULARIZERS[name](), spectral=True, batch_norm=batch_norm), Eager()
    prepared(task.float(), engine)
    assert_steady(engine)


def test_clipping_does_not_wait_for_the_host() -> None:
    task, engine = game(spectral=True, batch_norm=False), Eager()
    prepared(task.float(), engine)
    engine.clip_grad_norm = 0.1
    assert_steady(engine)


@pytest.mark.parametrize("augment", Choices().groups["augment"])
@pytest.mark.parametrize(
    "network",
    [
        ["architecture=sndcgan"],
        ["architecture=resnet_sngan", "architecture.conditional=true"],
        ["architecture=biggan_lite"],
        ["architecture=mlp_maxout", "architecture.conditional=true"],
    ],
    ids=lambda words: words[0],
)
def test_no_turn_of_a_real_network_waits_for_the_host(network: list[str], augment: str) -> None:
    sums = "[bcr,zcr,gp]" if augment == "flip_shift" else "cr"
    words = [f"regularizer={sums}", f"augment={augment}", "architecture.width=0.02", *network]
    words += ["augment_both=ada"] * (augment == "cutout") + ["loss=relativistic"] * (sums == "cr")
    config = compose([*words, "dataset=demo"])
    players = build_networks(config)
    task = build_task(config, players)
    engine = Eager("bf16")
    prepared(task, engine, real(4, 1, 32, classes=10))
    assert_steady(engine)


# --- devices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_device_that_is_absent_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=f"device={name} is not available.*device=auto"):
        resolve_device(name)


def test_a_gpu_beyond_the_last_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="finds 2 CUDA devices"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["tpu", "gpu", "", "cuda:x", "cpu,"])
def test_what_is_no_device_is_an_error(name: str) -> None:
    with pytest.raises(UserError, match=r"is not a device\. Type device=auto, cpu, cuda"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["meta", "xpu", "cpu:3"])
def test_other_devices_of_torch_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="is not available here"):
        resolve_device(name)


def test_auto_says_what_it_chose(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.INFO, "crgan_cli"):
        assert resolve_device("auto") == CPU
        assert resolve_device("cpu") == CPU
    assert [record.message for record in caplog.records] == ["device=auto: using cpu (1 threads)"]


# --- a turn that lives on its device alone --------------------------------------------------------


class OnMeta(TorchDispatchMode):
    """Fails on any operation that gives a tensor of another device than meta."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in tree_flatten(out)[0]:
            assert not isinstance(each, torch.Tensor) or each.device.type == "meta", func
        return out


GAMES = [
    *((network, penalty, "flip_shift")
      for network in ("sndcgan", "resnet", "biggan_lite", "mlp_maxout")
      for penalty in ("none", "icr", "[cr,gp]", "dragan", "jsr", "r1")),
    *(("sndcgan", "bcr", T) for T in ("cutout", "gaussian_noise", "cutout_flip_shift", "rotation")),
    *(("sndcgan", more, "flip_shift") for more in ("lecam", "orthogonal", "clip", "top_k")),
    *(("sndcgan", "cr", f"flip_shift augment_both={T}") for T in ("diffaugment", "ada")),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "regularizer", "augment"), GAMES)
def test_a_turn_makes_no_tensor_beside_its_device(
    architecture: str, regularizer: str, augment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device there are shapes and no values: whatever reads one, or draws a random
    number on the CPU, fails. What is left could be captured in a CUDA graph."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta tensors
    words = [f"architecture={architecture}", f"regularizer={regularizer}", f"augment={augment}"]
    words = " ".join(words).split()
    config = compose([*words, "architecture.width=0.02", "dataset=demo"])
    task = build_task(config, build_networks(config)).to("meta")
    x, y = torch.zeros(4, 1, 32, 32, device="meta"), torch.zeros(4, dtype=torch.long, device="meta")
    for who in ("d", "g"):
        players = {each: task.player(each) for each in ("d", "g")}
        for name, player in players.items():
            player.requires_grad_(name == who)
        with OnMeta(), fixed_spectral_norm(*players.values()):
            task.set_turn(who, 0)
            task.prepare_turn()
            move = task.player_loss(who, {"real": Batch(x, y)})
            torch.stack(list(move.terms.values())).sum().backward()


# --- compilation ----------------------------------------------------------------------------------


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """torch.compile without the minutes of Inductor: traced whole, and differentiated ahead."""
    compiled: list[nn.Module] = []
    compile_module = nn.Module.compile

    def compile_quickly(module: nn.Module, **options: object) -> None:
        compiled.append(module)
        compile_module(module, backend="aot_eager", fullgraph=True, **options)

    monkeypatch.setattr(nn.Module, "compile", compile_quickly)
    return compiled


@pytest.mark.parametrize("name", ["icr", "gp"])
def test_compiled_networks_compute_the_same(name: str, traced: list[nn.Module]) -> None:
    found = []
    for compile in (False, True):
        words = [f"regularizer={name}", "architecture.width=0.02", "dataset=demo"]
        config = compose([*words, "architecture=resnet_sngan" if name == "icr" else "dataset=demo"])
        task = build_task(config, build_networks(config))
        engine = Eager(compile=compile)
        keys = set(task.state_dict())
        prepared(task, engine, real(4, 1, 32, classes=10))
        found.append([played(engine, who, measure=True) for who in ("d", "g", "d")])
        assert set(task.state_dict()) == keys
    assert traced == [task.player("d"), task.player("g")]
    for one, other in zip(*found, strict=True):
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-6)


def test_what_is_differentiated_twice_stays_uncompiled(
    traced: list[nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    """The tiny discriminator is no network that the adjoint is known of."""
    task, engine = game(*REGULARIZERS["gp"]()).float(), Eager(compile=True)
    with caplog.at_level(logging.INFO, "crgan_cli"):
        prepared(task, engine)
    assert traced == [task.player("g")]
    assert (
        "d is not compiled: its gradient penalty needs double backward, which torch.compile does "
        "not support"
    ) in caplog.messages
    assert played(engine, "d")["terms/gp"] > 0


# --- what fits the hardware -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("able", "precision"), [("amx_tile", "bf16"), ("avx512_bf16", "bf16"), ("avx2", "fp32")]
)
def test_a_cpu_multiplies_in_bf16_where_it_can(
    able: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: name == able)
    assert Eager("auto").for_device(CPU).precision == best_precision(CPU) == precision
    assert Eager("fp32").for_device(CPU).precision == "fp32"


def test_bf16_on_hardware_that_is_not_made_for_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("crgan_cli.training.engine.eager.best_precision", lambda device: "fp32")
    Eager("bf16").for_device(CPU)
    assert "cpu is not made for it" in caplog.text


def test_tf32_is_refused_where_there_is_none() -> None:
    with pytest.raises(UserError, match=r"precision of CUDA devices.*engine.precision=auto"):
        Eager("tf32").for_device(CPU)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler.*engine.compile=false"):
        Eager(compile=True).for_device(CPU)


# --- fused resampling ----------------------------------------------------------------------------


def folding_engine() -> Eager:
    """An engine for a small ResNet, which has layers to fold."""
    config = compose(["architecture=resnet", "architecture.width=0.02", "dataset=demo"])
    task = build_task(config, build_networks(config))
    engine = Eager(fold="auto").for_device(CPU)
    engine.prepare(task, CPU)
    engine.attach(ADAM.build(engine.players), None)
    return engine


def test_auto_follows_the_table_and_the_engine_says_how_many_are_folded() -> None:
    engine = folding_engine()
    engine.begin(Given(real(4, 1, 32)))
    assert engine.folds
    assert set(engine.folds.values()) == {fused_resample.FUSED_PAYS["cpu"]}
    folded = sum(engine.folds.values())
    assert f"{folded} of {len(engine.folds)} convolutions folded" in engine.describe()


@pytest.mark.parametrize("folded", [True, False])
def test_a_resumed_run_folds_as_its_checkpoint_says(folded: bool) -> None:
    """So do runs of before the table, each of whose layers a stopwatch decided."""
    resumed = folding_engine()
    folds = dict.fromkeys(fused_resample.fusable_layers(resumed.task), folded)
    resumed.load_state_dict({"precision": "fp32", "folds": folds})
    resumed.begin(Given(real(4, 1, 32)))
    layers = fused_resample.fusable_layers(resumed.task).values()
    assert layers
    assert all(layer.use_fused == folded for layer in layers)


@pytest.mark.parametrize("deterministic", [True, False])
def test_cudnn_never_chooses_its_algorithms_by_a_stopwatch(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda wanted: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    Eager(deterministic=deterministic).prepare(game().float(), CPU)
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(("capability", "precision"), [((9, 0), "bf16"), ((7, 5), "fp32")])
def test_a_gpu_does_so_from_ampere_on(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert best_precision(torch.device("cuda")) == precision


def test_a_resumed_run_folds_what_it_folded_and_says_that_precision_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Eager("bf16", fold="auto")
    engine.load_state_dict({"precision": "fp32", "folds": {"layer": True}})
    assert engine.folds == {"layer": True}
    assert "steps so far were computed in fp32, and those to come in bf16" in caplog.text

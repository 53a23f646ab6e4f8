"""FLOPs: counted networks, the algebra of a turn against turns that ran, and devices' peaks."""

from typing import cast

import pytest
import torch
from support.tiny import TinyDiscriminator
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from crgan_cli.config.build import build_group
from crgan_cli.config.compose import compose
from crgan_cli.gan import build
from crgan_cli.gan.regularizers.base import CombinedRegularizer, Regularizer
from crgan_cli.gan.regularizers.consistency import (
    BalancedConsistency,
    ConsistencyRegularization,
    LatentConsistency,
)
from crgan_cli.gan.regularizers.path_length import PathLength
from crgan_cli.gan.regularizers.penalties import R1, GradientPenalty, JSRegularizer
from crgan_cli.gan.tasks.generation import Generation
from crgan_cli.gan.types import Batch
from crgan_cli.training import flops, peaks


def counted(name: str, *overrides: str) -> flops.CountedNetworks:
    config = compose([f"architecture={name}", "dataset=cifar10", *overrides])
    return flops.count_networks(config.architecture, resolution=32, channels=3)


def game(*parts: Regularizer) -> CombinedRegularizer:
    return CombinedRegularizer(**{str(i): part for i, part in enumerate(parts)})


def in_the_papers_order(network: nn.Module) -> None:
    """Undoes the one fold that crgan's networks are written with: 1x1 shortcuts on the smaller
    side of a change of size. The common programs upsample first, and pool last."""
    for module in network.modules():
        shortcut = getattr(module, "shortcut", None)
        if isinstance(shortcut, nn.Sequential) and len(shortcut) == 2:
            module.shortcut = nn.Sequential(shortcut[1], shortcut[0])


def forward_gflop(network: nn.Module, x: torch.Tensor) -> float:
    classes = getattr(network, "classes", 0)
    y = torch.zeros(2, dtype=torch.int64, device="meta") if classes else None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, y)
    return counter.get_total_flops() / 2e9


# GFLOP that were counted on the common programs' networks, without any fold
PUBLISHED = {
    "sndcgan": (0.431, 0.207),
    "resnet_sngan": (0.544, 3.362),
    "biggan_lite": (1.246, 7.656),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_networks_are_those_of_the_common_programs(name: str) -> None:
    config = compose([f"architecture={name}", "dataset=cifar10"])
    settings = {**config.architecture, "spectral_norm": False}
    with torch.device("meta"):
        nets = build_group(settings)
        z, x = torch.zeros(2, nets["generator"].z_dim), torch.zeros(2, 3, 32, 32)
    for net in nets.values():
        in_the_papers_order(net)
    d, g = PUBLISHED[name]
    assert forward_gflop(nets["discriminator"], x) == pytest.approx(d, rel=0.005)
    assert forward_gflop(nets["generator"], z) == pytest.approx(g, rel=0.005)


def test_a_convolution_by_hand() -> None:
    """SNDCGAN's D at an eighth of the width: 3x3 and 4x4 kernels on 32, 16, 8 and 4 pixels."""
    a, b, c, d = 8, 16, 32, 64
    products = 32**2 * 9 * 3 * a + 16**2 * 16 * a * b + 16**2 * 9 * b * b + 8**2 * 16 * b * c
    products += 8**2 * 9 * c * c + 4**2 * 16 * c * d + 4**2 * 9 * d * d + 4**2 * d
    found = counted("sndcgan", "architecture.width=0.125")
    assert found.net.d == pytest.approx(2 * products / 1e9, rel=1e-12)


# GFLOP of a turn of D per image, in the order of PUBLISHED
TABLE = {
    "none": (2.79, 6.61, 15.11),
    "cr": (4.08, 8.24, 18.84),
    "bcr": (5.37, 9.86, 22.57),
    "zcr": (4.29, 11.60, 26.50),
    "icr": (6.87, 14.85, 33.95),
}
G_TABLE = {"none": (1.48, 11.17, 25.46), "zcr": (2.10, 21.26, 48.43), "icr": (2.10, 21.26, 48.43)}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_turns_comes_out(name: str) -> None:
    regularizer = CombinedRegularizer(**build_group(compose([f"regularizer={name}"]).regularizer))
    for i, (d, g) in enumerate(PUBLISHED.values()):
        found = flops.flops_per_turn(
            flops.CountedNetworks(flops.NetworkFlops(d, g), TinyDiscriminator()), regularizer
        )
        assert found.d == pytest.approx(TABLE[name][i], rel=0.02)
        if name in G_TABLE:
            assert found.g == pytest.approx(G_TABLE[name][i], rel=0.02)
    for part in ("gp", "dragan", "r1"):  # 5.38 by double backward, 4.51 by the adjoint network
        settings = compose(["architecture=sndcgan", f"regularizer={part}"]).regularizer
        penalised = CombinedRegularizer(**build_group(settings))
        twice = flops.flops_per_turn(
            flops.CountedNetworks(flops.NetworkFlops(0.431, 0.207), TinyDiscriminator()), penalised
        )
        once = flops.flops_per_turn(counted("sndcgan"), penalised)
        assert (twice.d, once.d) == (pytest.approx(5.38, rel=0.02), pytest.approx(4.51, rel=0.02))


def test_the_passes_by_hand() -> None:
    net = flops.CountedNetworks(flops.NetworkFlops(d=1.0, g=100.0), TinyDiscriminator())

    def d_turn(*parts: Regularizer) -> float:
        return flops.flops_per_turn(net, game(*parts)).d

    cr = ConsistencyRegularization(1.0)
    assert d_turn() == 106
    assert d_turn(cr) == 109
    assert d_turn(BalancedConsistency(1.0, 1.0), LatentConsistency(1.0, 1.0, 0.1)) == 215
    assert d_turn(ConsistencyRegularization(1.0, every=4)) == 106.75
    assert d_turn(cr, BalancedConsistency(1.0, 1.0)) == 112  # T(real) is scored once
    assert d_turn(GradientPenalty(1.0, 1, "autograd")) == 112
    assert d_turn(R1(1.0, 2, "autograd")) == 109
    assert d_turn(JSRegularizer(1.0, 1, "autograd")) == 118
    assert flops.flops_per_turn(net, game()).g == 302
    assert flops.flops_per_turn(net, game(LatentConsistency(1.0, 1.0, 0.1))).g == 602
    assert flops.flops_per_turn(net, game(PathLength(1.0, 0.9, 2, 4))).g == 302 + 600 / 2 / 4
    assert flops.flops_per_step(flops.TurnFlops(d=2, g=3), n_dis=5, batch_size=10) == 130e9


def test_asking_what_a_game_costs_moves_no_random_number() -> None:
    net = flops.CountedNetworks(flops.NetworkFlops(1.0, 1.0), TinyDiscriminator())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    flops.flops_per_turn(
        net,
        game(LatentConsistency(1.0, 1.0, 0.1), GradientPenalty(1.0, 1, "auto")),
    )
    assert torch.equal(torch.rand(3), expected)


class Executed(TorchDispatchMode):
    """FLOPs of what runs; torch's own counter follows modules, and no gradient within a step."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if rule := flop_registry.get(func.overloadpacket):
            self.flop += rule(*args, **(kwargs or {}), out_val=out)
        return out


@pytest.mark.parametrize(
    "words",
    [
        ["regularizer=none"],
        ["regularizer=cr"],
        ["regularizer=icr"],
        ["regularizer=gp", "regularizer.gradient=autograd"],
        ["regularizer=gp"],
        ["regularizer=jsr"],
        ["regularizer=path_length", "regularizer.pl_batch_shrink=1", "regularizer.pl_every=1"],
    ],
    ids=lambda words: "-".join(word.partition("=")[2] for word in words),
)
def test_turns_that_were_run_cost_what_the_algebra_says(words: list[str]) -> None:
    """A little less: nobody needs the gradient of the first layer's input."""
    config = compose(
        ["architecture=resnet_sngan", "dataset=cifar10", "architecture.width=0.1", *words]
    )
    task = cast(
        Generation,
        build.build_task(config, build.build_networks(config)),
    )
    batch = Batch(torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64))
    networks = flops.count_networks(config.architecture, resolution=32, channels=3)
    expected = flops.flops_per_turn(
        networks, CombinedRegularizer(**build_group(config.regularizer))
    )
    for who, gflop in zip("dg", expected, strict=True):
        for name in "dg":
            task.player(name).requires_grad_(name == who)
        with Executed() as counter:
            torch.stack(
                list(task.player_loss(who, {"real": batch}).terms.values())
            ).sum().backward()
        assert counter.flop / 2e9 == pytest.approx(gflop, rel=0.06)
        assert counter.flop / 2e9 < gflop * 1.001


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA A10", 125.0),
    ],
)
def test_a_gpu_is_found_by_its_name(name: str, bf16: float) -> None:
    found = peaks.find_peak(name)
    assert found is not None
    assert found.bf16 == bf16


def test_a_device_that_is_not_in_the_table_has_no_peak() -> None:
    assert peaks.find_peak("NVIDIA Example 1") is None
    assert peaks.peak(torch.device("mps"), "fp32") is None


def test_the_cpu_is_measured() -> None:
    most = peaks.peak(torch.device("cpu"), "fp32")
    assert most is not None
    assert most > 1e8


def test_a_cpus_peak_is_the_fastest_of_many_warm_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock of our own: a product takes 30 ms at the best, and the first of all far longer."""
    clock, seconds = [0.0], iter([9.0, 0.05, 0.03, 0.04, 0.05])

    def product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        clock[0] += next(seconds)
        return a

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(peaks.time, "perf_counter", lambda: clock[0])
    assert peaks.measure_products(torch.ones(8, 8)) == pytest.approx(2 * 8**3 / 0.03)
    assert list(seconds) == [0.05]  # a tenth of a second was over

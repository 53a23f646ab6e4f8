"""A batch in parts: the step of the whole batch, or a reason why it cannot be."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.runs import TINY, different, train
from support.tiny import game
from support.turns import ADAM, CPU, Given, real

from crgan_cli.config.compose import compose
from crgan_cli.errors import UserError
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.regularizers.consistency import (
    BalancedConsistency,
    ConsistencyRegularization,
    LatentConsistency,
)
from crgan_cli.gan.regularizers.lecam import LeCam
from crgan_cli.gan.regularizers.path_length import PathLength
from crgan_cli.gan.regularizers.penalties import (
    DRAGAN,
    R1,
    GradientPenalty,
    JSRegularizer,
    MaxGradientPenalty,
)
from crgan_cli.gan.regularizers.top_k import TopK
from crgan_cli.gan.regularizers.weights import Orthogonal, WeightClipping
from crgan_cli.gan.scoring import ScoredViews
from crgan_cli.gan.tasks.generation import Generation
from crgan_cli.gan.types import Batch, Terms
from crgan_cli.system import rng
from crgan_cli.system.distributed.world import World, as_world
from crgan_cli.training.ema import EMA
from crgan_cli.training.engine.accumulate import cut_views, require_parts
from crgan_cli.training.engine.auto import Auto
from crgan_cli.training.engine.eager import Eager
from crgan_cli.training.engine.graphs import Graphs
from crgan_cli.training.start import train_run

EXACT: dict[str, Callable[[], list[Regularizer]]] = {
    "none": list,
    "cr": lambda: [ConsistencyRegularization(10.0)],
    "icr": lambda: [BalancedConsistency(10.0, 10.0), LatentConsistency(5.0, 0.5, 0.03)],
    "lazy": lambda: [BalancedConsistency(10.0, 10.0, every=2)],
    "gp": lambda: [GradientPenalty(10.0)],
    "jsr": lambda: [JSRegularizer(0.1)],
    "r1": lambda: [R1(10.0)],
    "weights": lambda: [Orthogonal(1e-2), WeightClipping(0.5)],
}


def steps(task: Generation, parts: int) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """The state, and the numbers for the log, after five turns in float64."""
    engine = Eager().for_device(CPU, accumulate=parts)
    engine.prepare(task, CPU)
    engine.attach(ADAM.build(engine.players), EMA(task.G, 0.9, 0))
    batch = real(12, classes=3)
    engine.begin(Given(Batch(batch.x.double(), batch.y)))
    torch.manual_seed(5)
    logs = []
    for number, who in enumerate("dgddg"):
        inputs = engine.batches.inputs(0)
        log = engine.turn(who, number, inputs, measure=True, lerp_weight=0.1)
        assert len(log.names) == len(log.values)
        logs.append(log.values)
    return {**task.state_dict(), "next": torch.rand(4)}, logs


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("parts", [2, 3, 12])
def test_parts_are_the_whole_batch_in_float64(name: str, parts: int) -> None:
    """To 1e-12: only the order of sums differs. Also the random numbers that come after."""
    whole, numbers = steps(game(*EXACT[name](), spectral=True, classes=3), 1)
    cut, others = steps(game(*EXACT[name](), spectral=True, classes=3), parts)
    assert whole.keys() == cut.keys()
    for key, value in whole.items():
        torch.testing.assert_close(cut[key], value, rtol=1e-12, atol=1e-12, msg=key)
    for one, other in zip(numbers, others, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-6)  # float32
    assert not torch.equal(whole["G.linear.weight"], game(classes=3).G.linear.weight)


def test_a_part_draws_its_rows_of_the_whole_batch() -> None:
    def draw(n: int) -> list[torch.Tensor]:
        with rng.draws_for(2):
            pairs = rng.rand(2 * n, 3, device=CPU)
        return [rng.randn(n, 2, device=CPU), pairs[:n], pairs[n:], rng.randint(0, 9, n, device=CPU)]

    torch.manual_seed(1)
    whole, after = draw(12), torch.rand(2)
    torch.manual_seed(1)
    parts = [draw(4) for _ in rng.each_part(3, CPU)]
    assert torch.equal(torch.rand(2), after)
    for one, several in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(several), one)


def test_parts_of_processes_are_shares_of_one_batch() -> None:
    torch.manual_seed(1)
    whole = rng.randn(12, 2, device=CPU)
    rows = []
    for rank in range(2):
        torch.manual_seed(1)
        with as_world(World(rank, 2)):
            rows += [rng.randn(2, 2, device=CPU) for _ in rng.each_part(3, CPU)]
    assert torch.equal(torch.cat(rows), whole)


class Failing(Regularizer):
    """Fails in every D step."""

    def d_terms(self, scored: ScoredViews) -> Terms:
        raise ZeroDivisionError


def test_a_failure_in_a_part_leaves_the_random_numbers_of_whole_batches() -> None:
    with pytest.raises(ZeroDivisionError) as caught:  # its traceback keeps the frames
        steps(game(Failing(), classes=3), 3)
    assert caught.tb
    assert rng.count_shares() == 1


def test_views_are_cut_into_consecutive_images() -> None:
    batch = real(6, classes=3)
    parts = cut_views({"real": batch}, 3)
    assert torch.equal(torch.cat([part["real"].x for part in parts]), batch.x)
    assert [part["real"].y.tolist() for part in parts if part["real"].y is not None] == [
        [0, 1], [2, 0], [1, 2],
    ]  # fmt: skip


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: game(DRAGAN(10.0)), "regularizer=DRAGAN compares images"),
        (lambda: game(PathLength(2.0, 0.01, 2, 4)), "regularizer=PathLength compares images"),
        (lambda: game(LeCam(0.3, 0.99, 0)), "regularizer=LeCam compares images"),
        (lambda: game(MaxGradientPenalty(1.0)), "regularizer=MaxGradientPenalty compares images"),
        (lambda: game(TopK(0.9, 0.5, 10)), "regularizer=TopK compares images"),
    ],
)
def test_losses_that_compare_images_are_refused(make: Callable[[], Generation], said: str) -> None:
    require_parts(make(), 1, [6], 1)
    with pytest.raises(UserError, match=f"accumulate=2: {said}"):
        require_parts(make(), 2, [6], 1)


def test_batches_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size=18 of 2 processes cannot be.*multiple of 8"):
        require_parts(game(), 4, [16, 18], 2)


def test_batch_norm_is_said(caplog: pytest.LogCaptureFixture) -> None:
    require_parts(game(batch_norm=True), 3, [12], 1)
    assert "the 1 layers of batch norm take the statistics of 4 images" in caplog.text
    caplog.clear()
    require_parts(game(), 3, [12], 1)
    assert not caplog.records


def test_graphs_and_compiled_networks_are_refused_and_auto_takes_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("crgan_cli.training.engine.eager.get_image_limit", lambda device, gib: 0)
    cuda = torch.device("cuda")
    with pytest.raises(UserError, match="engine=auto"):
        Graphs().for_device(cuda, accumulate=2)
    with pytest.raises(UserError, match=r"engine\.compile=false"):
        Eager(compile=True).for_device(CPU, accumulate=2)
    chosen = Auto().for_device(cuda, accumulate=2)
    assert (type(chosen), chosen.accumulate) == (Eager, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("experiment=demo_pix2pix", "architecture.width=0.05"), "task=pix2pix keeps images"),
        (("augment_both=ada",), "ADA changes with D's mean score"),
        (("experiment=demo_pggan", "architecture.width=0.05"), "minibatch standard deviation"),
    ],
)
def test_what_cannot_be_cut_is_refused_at_the_start(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        train(tmp_path / "run", *words, "accumulate=2")


# --- whole runs -----------------------------------------------------------------------------------


def test_a_run_in_parts_resumes_bit_by_bit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = [word for word in TINY if not word.startswith(("extractor", "metrics", "checkpoint"))]
    words = (*small, "accumulate=2", "metrics=none", "ema.decay=0.9", "checkpoint.every=3")

    def start(out: Path, *more: str) -> None:
        typed = [*words, f"out={out}", *more]
        train_run(compose(typed), typed, {}, None)

    with caplog.at_level(logging.WARNING):
        start(tmp_path / "whole")
    assert "accumulate=2: the" in caplog.text
    start(tmp_path / "cut", "steps=3")
    start(tmp_path / "cut", "resume=force")
    last = "checkpoints/step_00000006.pt"
    assert different(tmp_path / "cut" / last, tmp_path / "whole" / last) == []

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy.stats import mannwhitneyu
from support.averages import Averages
from support.tiny import SIDE, TinyGenerator
from torch import Tensor, nn

from crgan_cli.data.images import Images, to_float
from crgan_cli.errors import UserError
from crgan_cli.evaluation.artefacts.estimates import auc
from crgan_cli.evaluation.artefacts.figures import plot_memorisation, save_pairs
from crgan_cli.evaluation.artefacts.inputs import MeasureOptions, TrainedModel
from crgan_cli.evaluation.artefacts.memorisation import (
    Memorisation,
    NeighbourDistances,
    find_nearest,
    measure_memorisation,
)
from crgan_cli.evaluation.metrics.extractors import Extractor, Features
from crgan_cli.gan.tasks.generation import Prior

CPU = torch.device("cpu")
N = 80


def images(n: int, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return Images(x, torch.zeros(n, dtype=torch.int64))


TRAIN, HELD_OUT, OTHERS = images(300, 1), images(100, 2), images(400, 3)


class Shower(nn.Module):
    """A "generator" that shows stored images, chosen by the code."""

    def __init__(self, shown: Images) -> None:
        super().__init__()
        self.shown = shown

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        chosen = (z[:, 0].double() * 1e6).abs().long() % len(self.shown.x)
        return to_float(self.shown.x[chosen])


def measured(
    G: nn.Module,
    *,
    train: Images = TRAIN,
    extractor: Extractor | None = None,
    n: int = N,
    batch_size: int = 250,
    closest: int = 6,
    seed: int = 0,
) -> Memorisation:
    return measure_memorisation(
        TrainedModel(G, nn.Identity(), Prior("normal", 4, 0), train, HELD_OUT, CPU),
        MeasureOptions(n, seed, batch_size, extractor),
        closest=closest,
    )


def test_a_generator_of_training_images_is_found_out() -> None:
    result = measured(Shower(TRAIN), extractor=Averages())
    for close in result.spaces.values():
        assert close.generated.max() == 0  # a copy is at distance 0, whatever the arithmetic
        assert close.auc.value == 1
        assert 0.94 < close.auc.low < 1  # 80 images are not proof of all
        assert close.suspicious == 1
        assert close.prefers_train.value == 1
        assert torch.equal(close.pairs[:, 0], close.pairs[:, 1])


def test_a_generator_of_new_images_is_not_accused() -> None:
    result = measured(Shower(OTHERS), extractor=Averages())
    for close in result.spaces.values():
        assert close.auc.low < 0.5 < close.auc.high
        assert close.prefers_train.low < result.train_share < close.prefers_train.high
        assert close.suspicious < 0.1
    assert result.train_share == 0.75


@pytest.mark.parametrize(
    ("n", "expected", "low", "high"),
    [(40, 1.39 / 41, 0, 5 / 40), (1000, 10.99 / 1001, 3 / 1000, 21 / 1000)],
)
def test_few_images_that_are_no_copies_are_not_suspicious(
    n: int, expected: float, low: float, high: float
) -> None:
    torch.manual_seed(0)
    outside, shares, tries = 0, 0.0, 300
    for _ in range(tries):
        drawn = torch.rand(2, n, dtype=torch.float64)
        near = NeighbourDistances(*drawn, drawn[0], 1.0, torch.empty(0))
        if not low <= near.suspicious <= high:
            outside += 1
        shares += near.suspicious / tries
    assert near.unsuspicious == pytest.approx((expected, low, high))
    assert shares == pytest.approx(expected, rel=0.15)
    assert outside / tries < 0.07  # 0.14 and 0.34 with the threshold taken as known


def test_smooth_images_are_nearer_to_everything_and_prefer_no_side() -> None:
    class Smooth(nn.Module):
        def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
            return 0.1 * Shower(OTHERS)(z, y)

    close = measured(Smooth()).spaces["pixels"]
    assert close.auc.value > 0.99
    assert close.prefers_train.low < 0.75 < close.prefers_train.high


def test_one_image_that_is_nearest_to_all_is_one_draw() -> None:
    class Grey(nn.Module):
        def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
            return z.new_zeros(len(z), 3, SIDE, SIDE)

    close = measured(Grey()).spaces["pixels"]
    assert close.independent == pytest.approx(1)
    assert close.prefers_train.high - close.prefers_train.low > 0.7
    copied = measured(Shower(TRAIN)).spaces["pixels"].independent
    assert N / 2 < copied < N  # 80 draws of 300 images, some twice


def test_half_a_memory_shows_as_half_the_images() -> None:
    both = Images(torch.cat([TRAIN.x, OTHERS.x[:300]]), torch.zeros(600).long())
    close = measured(Shower(both)).spaces["pixels"]
    assert 0.3 < close.suspicious < 0.7
    assert 0.6 < close.auc.value < 0.9


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_blocks_find_what_the_whole_table_holds(batch_size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1500, 5, generator=generator)  # more than a row of blocks
    known = torch.randn(300, 5, generator=generator)
    found = find_nearest(queries, known.split(batch_size))
    whole = torch.cdist(queries.double(), known.double()).min(1)
    assert torch.equal(found.row, whole.indices)
    assert torch.allclose(found.distance, whole.values, atol=1e-6)


def test_distances_far_from_the_origin_are_as_exact_as_near_it() -> None:
    known = torch.tensor([[1000.0, 0.0], [1001.0, 0.0]])
    found = find_nearest(torch.tensor([[1000.0, 0.25]]), [known])
    assert found.distance.tolist() == [0.25]


def test_the_distance_is_the_root_mean_square_of_the_pixels() -> None:
    white = Images(torch.full((1, 3, SIDE, SIDE), 255, dtype=torch.uint8), torch.zeros(1).long())

    class Grey(nn.Module):
        def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
            return z.new_full((len(z), 3, SIDE, SIDE), -1.0)

    close = measured(Grey(), train=white).spaces["pixels"]
    assert close.generated.tolist() == pytest.approx([2.0] * N)


def test_the_statistic_is_mann_and_whitneys() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 20, (50,), generator=generator).double()  # with ties
    b = torch.randint(5, 25, (70,), generator=generator).double()
    u = mannwhitneyu(b.numpy(), a.numpy()).statistic  # pairs in which b is larger
    assert auc(a, b) == pytest.approx(u / (50 * 70))
    assert auc(torch.tensor([1.0]), torch.tensor([1.0, 2.0])) == 0.75


def test_the_size_of_a_batch_changes_nothing() -> None:
    G = TinyGenerator()
    whole, parts = (measured(G, extractor=Averages(), batch_size=size) for size in (400, 9))
    for space, close in whole.spaces.items():
        other = parts.spaces[space]
        assert torch.allclose(close.generated, other.generated, atol=1e-6)
        assert torch.allclose(close.held_out, other.held_out, atol=1e-6)


def test_it_repeats_with_its_seed_and_leaves_no_trace() -> None:
    G = TinyGenerator()
    random = torch.get_rng_state()
    first = measured(G)
    assert torch.equal(torch.get_rng_state(), random)
    assert G.training
    assert first.as_json() == measured(G).as_json()
    assert first.as_json()["spaces"] != measured(G, seed=1).as_json()["spaces"]


def test_the_closest_pairs_come_first_in_the_picture(tmp_path: Path) -> None:
    result = measured(TinyGenerator(), closest=6)
    close = result.spaces["pixels"]
    ordered = close.generated.sort().values[:6]
    fake, real = (to_float(close.pairs[:, i]) for i in (0, 1))
    apart = (fake - real).square().mean((1, 2, 3)).sqrt()
    assert torch.allclose(apart.double(), ordered, atol=1e-5)
    save_pairs(result, "pixels", tmp_path / "pairs.png")
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.size == (8 * (SIDE + 2) + 2, 2 * (SIDE + 2) + 2)
        assert picture.getpixel((2, 2)) == tuple(close.pairs[0, 0, :, 0, 0].tolist())


def test_the_result_is_json_and_a_plot(tmp_path: Path) -> None:
    result = measured(TinyGenerator(), extractor=Averages())
    record = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert record["train_images"] == 300
    assert record["nearest_is_train_expected"] == 0.75
    levels = record["spaces"]["features"]["quantiles"]
    assert levels["generated"] == sorted(levels["generated"])
    assert len(levels["level"]) == len(levels["held_out"])
    plot_memorisation(result, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").stat().st_size > 10_000


def test_progress_ends_where_it_said() -> None:
    reported: list[tuple[int, int]] = []
    measure_memorisation(
        TrainedModel(TinyGenerator(), nn.Identity(), Prior("normal", 4, 0), TRAIN, HELD_OUT, CPU),
        MeasureOptions(20, 0, 250, Averages(), lambda *counts: reported.append(counts)),
    )
    assert reported[-1] == (2 * (20 + 20 + 300 + 100),) * 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n": 1}, "at least 2"),
        ({"n": 101}, "held-out split has 100"),
        ({"closest": 0}, "Give 1 to 80"),
        ({"closest": 81}, "Give 1 to 80"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(wrong: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        measured(TinyGenerator(), **wrong)


class Infinite(Averages):
    """Infinite features of real images: the generated ones are black."""

    def features(self, rgb: Tensor) -> Features:
        pool = super().features(rgb).pool
        return Features(pool.where(pool < 10, torch.inf))


def test_real_images_whose_features_are_not_finite_are_the_users_to_mend() -> None:
    black = Images(torch.zeros_like(OTHERS.x), OTHERS.y)
    with pytest.raises(UserError, match=r"averages gives .* not finite .* real images, so"):
        measured(Shower(black), extractor=Infinite())

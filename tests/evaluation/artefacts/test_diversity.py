import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from support.averages import Averages
from support.tiny import SIDE, TinyGenerator
from torch import Tensor, nn

from crgan_cli.data.images import Images, to_float
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.artefacts.diversity import Diversity, measure_diversity, pair_distances
from crgan_cli.evaluation.artefacts.figures import plot_diversity
from crgan_cli.evaluation.artefacts.inputs import (
    MeasureOptions,
    ProgressCounter,
    TrainedModel,
    flatten_pixels,
)
from crgan_cli.evaluation.metrics.extractors import Extractor, Features
from crgan_cli.gan.tasks.generation import Prior

CPU = torch.device("cpu")


class Orthogonal(nn.Module):
    """G(z) = A z, A with 16 orthogonal columns of length 0.5: ||A eps|| = 0.5 ||eps||."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        A = torch.linalg.qr(torch.randn(3 * SIDE * SIDE, 16, generator=generator)).Q
        self.A = nn.Parameter(0.5 * A)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        return (z @ self.A.T).view(-1, 3, SIDE, SIDE)


class Constant(nn.Module):
    """One image for every code: the mode collapse of textbooks."""

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        return z.new_zeros(len(z), 3, SIDE, SIDE)


def images(n: int = 60) -> Images:
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return Images(x, torch.zeros(n, dtype=torch.int64))


def measured(
    G: nn.Module,
    *,
    z_dim: int = 16,
    real: Images | None = None,
    extractor: Extractor | None = None,
    n: int = 60,
    seed: int = 0,
    batch_size: int = 100,
    sigmas: Sequence[float] = (0.0, 0.1, 0.2),
) -> Diversity:
    real = real or images()
    return measure_diversity(
        TrainedModel(G, nn.Identity(), Prior("normal", z_dim, 0), real, real, CPU),
        MeasureOptions(n, seed, batch_size, extractor),
        sigmas=sigmas,
    )


def test_a_linear_generator_moves_as_far_as_a_chi_variable() -> None:
    result = measured(Orthogonal())
    chi = math.sqrt(2) * math.exp(math.lgamma(8.5) - math.lgamma(8))  # E ||eps||, 16 dimensions
    assert result.l2.estimates[0] == (0.0, 0.0)
    assert result.l2.means[1] == pytest.approx(0.1 * 0.5 * chi, abs=4 * result.l2.ses[1])
    assert result.l2.means[2] == pytest.approx(2 * result.l2.means[1], rel=1e-4)
    square = result.mean_square
    assert square.means[1] == pytest.approx(0.1**2 * 0.25 * 16 / 192, abs=4 * square.ses[1])
    assert result.rms.means[1] == pytest.approx(result.l2.means[1] / math.sqrt(192))


def test_a_pair_is_as_far_apart_as_its_pixels() -> None:
    x = torch.zeros(4, 3, SIDE, SIDE, dtype=torch.uint8)
    x[1] = 255  # black beside white: 2 apart in every value
    x[3, :, :2, :2] = 255  # in a sixteenth of them
    apart = pair_distances(
        lambda i, k: x[i : i + k],
        "real",
        lambda images, which: flatten_pixels(images),
        4,
        2,
        ProgressCounter(None, 4),
    )
    assert apart.tolist() == pytest.approx([2.0, 2 / 4])


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_the_size_of_a_batch_changes_nothing(batch_size: int) -> None:
    G, extractor = TinyGenerator(), Averages()
    whole = measured(G, z_dim=4, extractor=extractor, n=59)
    parts = measured(G, z_dim=4, extractor=extractor, n=59, batch_size=batch_size)
    assert parts.l2.means == pytest.approx(whole.l2.means)
    for space in ("pixels", "features"):
        assert parts.spreads[space].generated == pytest.approx(whole.spreads[space].generated)
        assert parts.spreads[space].real == pytest.approx(whole.spreads[space].real)


def test_real_images_given_back_are_as_diverse_as_they_are() -> None:
    real = images(400)

    class Copier(nn.Module):
        """Another 400 images of the same kind."""

        def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
            generator = torch.Generator().manual_seed(int(z[0, 0].abs() * 1e6))
            x = torch.randint(0, 256, (len(z), 3, SIDE, SIDE), generator=generator)
            return to_float(x.byte())

    spreads = measured(Copier(), real=real, n=400, extractor=Averages(), batch_size=400).spreads
    for spread in spreads.values():
        assert spread.ratio is not None
        assert spread.ratio.mean == pytest.approx(1, abs=4 * spread.ratio.se)
        assert 0 < spread.ratio.se < 0.1


def test_a_collapsed_generator_has_no_diversity_and_still_a_plot(tmp_path: Path) -> None:
    result = measured(Constant(), extractor=Averages())
    assert result.l2.means == [0, 0, 0]
    assert [spread.generated.mean for spread in result.spreads.values()] == [0, 0]
    plot_diversity(result, tmp_path / "collapsed.png")


def test_real_images_that_are_all_one_have_no_ratio(tmp_path: Path) -> None:
    x = torch.zeros(60, 3, SIDE, SIDE, dtype=torch.uint8)
    result = measured(TinyGenerator(), z_dim=4, real=Images(x, torch.zeros(60).long()))
    assert result.spreads["pixels"].ratio is None
    assert json.loads(json.dumps(result.as_json()))["pairs"]["pixels"]["ratio"] is None
    plot_diversity(result, tmp_path / "one.png")


def test_it_repeats_with_its_seed_and_leaves_no_trace() -> None:
    G = TinyGenerator()
    random = torch.get_rng_state()
    first = measured(G, z_dim=4)
    assert torch.equal(torch.get_rng_state(), random)
    assert G.training
    assert first == measured(G, z_dim=4)
    assert first.l2 != measured(G, z_dim=4, seed=1).l2


def test_the_result_is_json_with_its_settings_and_a_picture(tmp_path: Path) -> None:
    result = measured(TinyGenerator(), z_dim=4, extractor=Averages())
    record = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert record["extractor"]["name"] == "averages"
    assert record["sigma"] == [0.0, 0.1, 0.2]
    assert len(record["rms"]) == len(record["rms_se"]) == 3
    plot_diversity(result, tmp_path / "diversity.png")
    assert (tmp_path / "diversity.png").stat().st_size > 10_000


def test_progress_ends_where_it_said() -> None:
    reported: list[tuple[int, int]] = []
    prior = Prior("normal", 4, 0)
    measure_diversity(
        TrainedModel(TinyGenerator(), nn.Identity(), prior, images(), images(), CPU),
        MeasureOptions(21, 0, 8, Averages(), lambda *counts: reported.append(counts)),
        sigmas=(0.1,),
    )
    assert reported[-1] == (21 * 5, 21 * 5)
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n": 3}, "at least 4"),
        ({"n": 61}, "real split has 60"),
        ({"sigmas": (-1.0,)}, "sigma = -1"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(wrong: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        measured(TinyGenerator(), z_dim=4, **wrong)


class Infinite(Averages):
    """The features of half precision, if all overflow."""

    def features(self, rgb: Tensor) -> Features:
        return Features(super().features(rgb).pool + torch.inf)


def test_features_that_are_not_finite_name_the_extractor() -> None:
    with pytest.raises(RunFailed, match=r"averages gives .* not finite .* 60 of 60 generated im"):
        measured(TinyGenerator(), z_dim=4, extractor=Infinite())

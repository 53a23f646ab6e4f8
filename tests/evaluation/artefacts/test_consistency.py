import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from support.tiny import SIDE, TinyDiscriminator, TinyGenerator
from torch import Tensor, nn

from crgan_cli.data.images import Images
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.artefacts.consistency import (
    Consistency,
    build_transform,
    measure_consistency,
    strengths_for,
)
from crgan_cli.evaluation.artefacts.estimates import MeanEstimate, ratio, wilson
from crgan_cli.evaluation.artefacts.figures import STRENGTH_LABELS, plot_consistency
from crgan_cli.evaluation.artefacts.inputs import MeasureOptions, TrainedModel, seeded_generator
from crgan_cli.gan.augment import Augment
from crgan_cli.gan.tasks.generation import Prior

CPU = torch.device("cpu")
STRENGTHS = {"cutout": (0, 2, 4, 8), "shift": (0, 1, 3), "noise": (0, 0.1, 0.5)}


class Mean(nn.Module):
    """D(x) = weight * the sum of the pixels: linear, so that every gap is known."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.weight * x.flatten(1).sum(1)


class Linear(nn.Module):
    """G(z) = A z with no bias, 3 x 8 x 8."""

    z_dim, classes = 4, 0

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Parameter(
            torch.randn(3 * SIDE * SIDE, 4, generator=torch.Generator().manual_seed(0)) * 0.05
        )

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        return (z @ self.A.T).view(-1, 3, SIDE, SIDE)


def images(n: int, seed: int = 0, classes: int = 1) -> Images:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return Images(x, torch.arange(n) % classes)


def measured(
    D: nn.Module | None = None,
    *,
    G: nn.Module | None = None,
    train: Images | None = None,
    n: int = 40,
    seed: int = 0,
    batch_size: int = 16,
    strengths: dict[str, Sequence[float]] | None = None,
    sigmas: Sequence[float] = (0.0, 0.1),
) -> Consistency:
    G = Linear() if G is None else G
    D = Mean() if D is None else D
    train = images(50) if train is None else train
    prior = Prior("normal", 4, getattr(G, "classes", 0))
    return measure_consistency(
        TrainedModel(G, D, prior, train, images(50, 1), CPU),
        MeasureOptions(n, seed, batch_size),
        strengths=dict(STRENGTHS) if strengths is None else strengths,
        sigmas=sigmas,
    )


def test_a_strength_of_zero_moves_no_image_at_all() -> None:
    result = measured(TinyDiscriminator(spectral=True), G=TinyGenerator())
    for sources in result.curves.values():
        for curve in sources.values():
            assert curve.at[0] == 0
            assert curve.estimates[0] == (0.0, 0.0)
            assert curve.means[-1] > 0


def test_noise_moves_a_sum_by_its_variance() -> None:
    curve = measured(n=50, strengths={"noise": (0.5,)}).curves["noise"]["train"]
    expected = 0.5**2 * 3 * SIDE * SIDE  # of a sum of C * H * W independent numbers
    assert curve.means[0] == pytest.approx(expected, abs=4 * curve.ses[0])
    assert curve.ses[0] == pytest.approx(expected * (2 / 50) ** 0.5, rel=0.5)  # chi squared


def test_cutout_of_white_images_moves_a_sum_by_the_hidden_area() -> None:
    white = Images(torch.full((50, 3, SIDE, SIDE), 255, dtype=torch.uint8), torch.zeros(50).long())
    curve = measured(train=white, strengths={"cutout": (1,)}).curves["cutout"]["train"]
    assert curve.estimates[0] == pytest.approx((9.0, 0.0))  # 3 channels of one pixel, squared


def test_the_latent_curve_of_linear_players_is_their_product() -> None:
    G = Linear()
    curve = measured(G=G, n=50, sigmas=(0.1, 0.2)).curves["latent"]["fake"]
    expected = 0.1**2 * float(G.A.detach().sum(0).square().sum())  # E (w A eps)^2 = sigma^2 |w A|^2
    assert curve.means[0] == pytest.approx(expected, abs=4 * curve.ses[0])
    assert curve.means[1] == pytest.approx(4 * curve.means[0], rel=1e-3)  # the same directions


def test_curves_relative_to_the_variance_do_not_know_the_scale_of_d() -> None:
    one, ten = measured(Mean(1)).as_json(), measured(Mean(10)).as_json()
    for family in STRENGTHS:
        a, b = (each["curves"][family]["held_out"] for each in (one, ten))  # type: ignore[index]
        assert b["gap"] == pytest.approx([100 * gap for gap in a["gap"]])
        assert b["relative"] == pytest.approx(a["relative"])


def test_an_unrelated_image_would_be_at_one() -> None:
    result = measured(n=50)
    x = images(50).x.float() / 127.5 - 1
    scores = x.flatten(1).sum(1).double()
    gaps = (scores[:, None] - scores[None, :]).square()
    unrelated = float(gaps.sum() / (50 * 49))
    assert result.unit is not None
    assert unrelated * result.unit == pytest.approx(1, rel=1e-4)


def test_a_discriminator_without_an_opinion_has_no_relative_curves(tmp_path: Path) -> None:
    result = measured(Mean(0))
    assert result.unit is None
    assert result.as_json()["curves"]["noise"]["train"]["relative"] is None  # type: ignore[index]
    plot_consistency(result, tmp_path / "flat.png")


def test_a_conditional_discriminator_gets_the_labels_of_each_image() -> None:
    class Reader(nn.Module):
        def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
            assert y is not None
            assert torch.equal(x[:, 0, 0, 0].mul(4).round().long(), y)
            return y.float()

    class Writer(nn.Module):
        classes = 5

        def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
            assert y is not None
            return (y / 4).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)

    y = torch.arange(50) % 5
    x = ((y / 4 + 1) * 127.5).round().byte().view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)
    real = Images(x, y)
    result = measure_consistency(
        TrainedModel(Writer(), Reader(), Prior("normal", 4, 5), real, real, CPU),
        MeasureOptions(n=30, seed=0),
        strengths={"shift": (1, 2)},  # of images of one colour
        sigmas=(0.5,),
    )
    assert result.curves["latent"]["fake"].means == [0.0]  # the same label beside z and z + eps


def test_the_same_seed_gives_the_same_curves_and_another_does_not() -> None:
    assert measured(seed=3).as_json() == measured(seed=3).as_json()
    assert measured(seed=3).curves != measured(seed=4).curves


def test_measuring_leaves_no_trace() -> None:
    G, D = TinyGenerator(), TinyDiscriminator(spectral=True, batch_norm=True)
    D.eval()
    D.conv.train()
    before = {key: value.clone() for key, value in D.state_dict().items()}
    modes = [layer.training for layer in D.modules()]
    random = torch.get_rng_state()
    result = measured(D, G=G)
    assert torch.equal(torch.get_rng_state(), random)
    assert [layer.training for layer in D.modules()] == modes
    assert G.training
    assert all(torch.equal(value, before[key]) for key, value in D.state_dict().items())
    assert all(parameter.grad is None for parameter in (*G.parameters(), *D.parameters()))
    assert result.mixes_samples
    assert result.as_json()["d_mixes_samples"] is True


def test_progress_counts_every_image_once() -> None:
    reported: list[tuple[int, int]] = []
    measure_consistency(
        TrainedModel(Linear(), Mean(), Prior("normal", 4, 0), images(20), images(20), CPU),
        MeasureOptions(20, 0, 8, progress=lambda *counts: reported.append(counts)),
        strengths={"noise": (0.1,)},
    )
    assert reported == [(k, 60) for k in (8, 16, 20, 28, 36, 40, 48, 56, 60)]


def test_the_result_is_json_and_a_picture(tmp_path: Path) -> None:
    result = measured(TinyDiscriminator(), G=TinyGenerator())
    assert json.loads(json.dumps(result.as_json(), allow_nan=False))["n"] == 40
    plot_consistency(result, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n": 1}, "at least 2"),
        ({"n": 51}, "training split has 50"),
        ({"batch_size": 0}, "at least 1"),
        ({"sigmas": (0.1, -0.1)}, "sigma = -0.1"),
        ({"sigmas": (float("nan"),)}, "sigma = nan"),
        ({"sigmas": ()}, "at least one"),
        ({"strengths": {"cutout": (9,)}}, "from 0 to 8"),
        ({"strengths": {"shift": (8,)}}, "from 0 to 7"),
        ({"strengths": {"cutout": (1.5,)}}, "whole number"),
        ({"strengths": {"noise": (-1,)}}, "at least 0"),
        ({"strengths": {"blur": (1,)}}, "cutout, shift, noise or rotation"),
        ({"strengths": {"noise": ()}}, "at least one"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(wrong: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        measured(**wrong)


@pytest.mark.parametrize("side", [4, 8, 32, 128])
def test_the_strengths_that_crgan_takes_are_possible_and_grow(side: int) -> None:
    for family, strengths in strengths_for(side).items():
        assert list(strengths) == sorted(set(strengths))
        for strength in strengths:
            assert isinstance(build_transform(family, strength, side), Augment)
    assert strengths_for(32)["cutout"] == (2, 4, 8, 12, 16, 24, 32)


def test_streams_of_two_purposes_are_unrelated() -> None:
    a, b = (torch.randn(1000, generator=seeded_generator(0, purpose)) for purpose in ("a", "b"))
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.15
    assert torch.equal(a, torch.randn(1000, generator=seeded_generator(0, "a")))


def test_wilsons_interval_is_his() -> None:
    # p = 0, n = 10: 0 to z^2 / (n + z^2)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.0, 1.959964**2 / (10 + 1.959964**2)))
    share, low, high = wilson(0.5, 100)
    assert share == 0.5
    assert low + high == pytest.approx(1)
    z = 1.959964  # both ends solve (p - q)^2 = z^2 q (1 - q) / n
    assert (0.5 - low) ** 2 == pytest.approx(z**2 * low * (1 - low) / 100)


def test_the_error_of_a_ratio_is_that_of_repeated_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    a = 3 + 0.1 * torch.randn(20_000, generator=generator)
    b = 2 + 0.05 * torch.randn(20_000, generator=generator)
    assert ratio(MeanEstimate(3, 0.1), MeanEstimate(2, 0.05)) == pytest.approx(
        (1.5, float((a / b).std())), rel=0.02
    )


def test_every_family_has_a_unit_for_its_axis() -> None:
    assert set(STRENGTH_LABELS) == {*strengths_for(32), "latent"}


def test_scores_that_are_not_finite_are_not_measured() -> None:
    with pytest.raises(RunFailed, match=r"scores are not finite numbers for 16 of 16 images"):
        measured(Mean(float("nan")))

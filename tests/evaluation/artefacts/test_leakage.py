"""Augmentation leakage: the estimator by hand, and known leaks found again."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from crgan_cli.data.embedded import Demo
from crgan_cli.data.images import to_float, to_uint8
from crgan_cli.errors import Interrupted, UserError
from crgan_cli.evaluation.artefacts import detector
from crgan_cli.evaluation.artefacts.calibration import ErrorRates, choose_threshold, estimate_share
from crgan_cli.evaluation.artefacts.detector import (
    Detector,
    distortions_for,
    fade,
    make_pairs,
    smooth,
    train_detector,
)
from crgan_cli.evaluation.artefacts.estimates import auc
from crgan_cli.evaluation.artefacts.figures import plot_leakage
from crgan_cli.evaluation.artefacts.leakage import (
    LeakageEstimator,
    default_transforms,
    describe_transform,
    estimate_leakage,
    fit_estimator,
    transforms_for,
)
from crgan_cli.evaluation.metrics.small_network import compute_outputs
from crgan_cli.gan.augment import Augment, Chain, Cutout, FlipShift, GaussianNoise

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def real() -> dict[str, Tensor]:
    """Fashion-MNIST in three parts that share no image."""
    demo = Demo(resolution=32, channels=1, classes=10)
    test = demo.load("test").x
    return {
        "train": demo.load("train").x[:3000],
        "held out": test[:1000],
        "unused": test[1000:2000],
    }


@pytest.fixture(scope="module")
def small(real: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same at 8x8, where a detector costs a second."""
    return {name: to_uint8(half(half(to_float(x)))) for name, x in real.items()}


def half(x: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(x, 2)


@pytest.fixture(scope="module")
def cutout(real: dict[str, Tensor]) -> LeakageEstimator:
    """What reads the holes of a cutout of half the side."""
    T = Cutout(size=16)
    return fit_estimator(
        "cutout", T, real["train"], real["held out"], device=CPU, seed=0, detectors=1
    )


def augmented(T: Augment, x: Tensor, fraction: float) -> Tensor:
    """Images of which the first `fraction` went through T."""
    torch.manual_seed(5)
    n = round(fraction * len(x))
    return torch.cat([to_uint8(T.transform(to_float(x[:n]))), x[n:]])


def test_the_share_is_corrected_for_both_errors_by_hand() -> None:
    # p = 0.34, tpr = 0.9, fpr = 0.1: (0.34 - 0.1) / 0.8
    assert estimate_share(34, 100, ErrorRates(0.9, 0.1, 50)).raw == pytest.approx(0.3)
    # where the detector never errs, the share is what it counts
    assert estimate_share(34, 100, ErrorRates(1.0, 0.0, 50)).raw == pytest.approx(0.34)


def test_the_interval_is_the_formula_by_hand() -> None:
    read = estimate_share(50, 100, ErrorRates(0.9, 0.1, 98))
    # p' = 1/2, tpr' = 89.2 / 100, fpr' = 10.8 / 100, so the middle stays 1/2
    variance = 0.25 / 103.841459 + 2 * 0.25 * 0.892 * 0.108 / 100
    assert read.high == pytest.approx(0.5 + 1.959964 * variance**0.5 / 0.784, abs=1e-6)
    assert read.low == pytest.approx(1 - read.high, abs=1e-6)


@pytest.mark.parametrize("true", [0.0, 0.05, 0.4, 1.0])
def test_the_interval_covers_the_truth_as_often_as_it_says(true: float) -> None:
    random = torch.Generator().manual_seed(0)
    rates = torch.tensor([true * 0.95 + (1 - true) * 0.03, 0.95, 0.03])
    draws = torch.binomial(torch.full((2000, 3), 400.0), rates.expand(2000, 3), generator=random)
    covered = 0
    for positives, tpr, fpr in draws.tolist():
        read = estimate_share(int(positives), 400, ErrorRates(tpr / 400, fpr / 400, 400))
        covered += read.low <= true <= read.high
    assert covered / 2000 >= 0.935


def test_fewer_finds_than_errors_are_no_share_and_no_certainty() -> None:
    read = estimate_share(0, 1000, ErrorRates(1.0, 0.05, 1000))
    assert read.raw < 0
    assert read.as_json()["share"] == 0.0
    assert read.low == 0.0
    assert read.high > 0.005  # not an interval of no width


def test_the_threshold_lies_in_the_middle_of_the_gap() -> None:
    assert choose_threshold(torch.tensor([-3.0, -1.0]), torch.tensor([2.0, 5.0])) == 0.5
    # one image in a thousand beyond the gap does not move it to that image
    real = torch.cat([torch.full((999,), -1.0), torch.tensor([3.9])])
    assert -1.0 < choose_threshold(real, torch.full((1000,), 4.0)) < 3.0


def test_auc_counts_pairs_in_order_by_hand() -> None:
    # of the pairs (1, 2) (1, 3) (2, 2) (2, 3) three are in order and one is a tie
    assert auc(torch.tensor([2.0, 1.0]), torch.tensor([2.0, 3.0])) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_a_known_share_of_leaked_images_is_found(
    cutout: LeakageEstimator, real: dict[str, Tensor], fraction: float
) -> None:
    read = cutout.measure(augmented(Cutout(size=16), real["unused"], fraction)).generated
    assert read is not None
    # a point of grace: one interval in twenty misses, and another machine rounds otherwise
    assert read.low - 0.01 <= fraction <= read.high + 0.01
    assert read.high - read.low < 0.08


def test_blurred_noisy_pale_images_are_not_taken_for_augmented_ones(
    cutout: LeakageEstimator, real: dict[str, Tensor]
) -> None:
    torch.manual_seed(1)
    x = to_float(real["unused"])
    for unreal in (smooth(smooth(x)), x + 0.1 * torch.randn(x.shape), 0.6 * x - 0.3):
        read = cutout.measure(to_uint8(unreal)).generated
        assert read is not None
        assert read.clipped < 0.03


def test_the_mid_grey_of_an_untrained_generator_is_not_taken_for_a_hole(
    cutout: LeakageEstimator, real: dict[str, Tensor]
) -> None:
    torch.manual_seed(1)
    x = to_float(real["unused"])
    untrained = torch.tanh(
        0.1 * torch.nn.functional.interpolate(torch.randn(300, 1, 8, 8), size=32)
    )
    for grey in (untrained, 0.2 * x, fade(smooth(x))):
        read = cutout.measure(to_uint8(grey)).generated
        assert read is not None
        assert read.clipped < 0.05


def test_a_leak_with_soft_edges_is_still_a_leak(
    cutout: LeakageEstimator, real: dict[str, Tensor]
) -> None:
    holes = to_float(augmented(Cutout(size=16), real["unused"], 1.0))
    read = cutout.measure(to_uint8(smooth(holes))).generated
    assert read is not None
    assert read.clipped > 0.8


def test_floor_and_ceiling_are_what_they_are_called(cutout: LeakageEstimator) -> None:
    known = cutout.baseline
    assert known.auc > 0.98
    assert known.floor is not None
    assert known.distorted is not None
    assert known.ceiling is not None
    assert known.floor.clipped < 0.02
    assert known.distorted.clipped < 0.05
    assert known.ceiling.clipped > 0.97
    assert known.floor.n == known.ceiling.n == 500


def test_a_mirror_image_is_not_measurable_and_gets_no_number(
    small: dict[str, Tensor], tmp_path: Path
) -> None:
    T = FlipShift(shift=0, flip=0.5, padding="reflect")
    found = estimate_leakage(
        "flip", T, small["train"], small["held out"], small["unused"], device=CPU, seed=0
    )
    assert found.generated is None
    assert found.floor is None
    assert "not measurable" in found.reason
    assert found.auc < 0.8
    plot_leakage([found], tmp_path / "flip.png")  # says so in words, and does not fail


def test_the_same_seed_gives_the_same_reading_and_takes_no_random_numbers(
    small: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its detectors are trained anew, or are those that were kept."""

    def measured(seed: int, cache: str = "first") -> str:
        monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / cache))
        T = GaussianNoise(std=0.2)
        built = fit_estimator("noise", T, *real_parts, device=CPU, seed=seed, detectors=1)
        return json.dumps(built.measure(small["unused"]).as_json(), allow_nan=False)

    real_parts = (small["train"], small["held out"])
    before = torch.random.get_rng_state()
    first = measured(3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert measured(3, cache="second") == first
    monkeypatch.setattr(detector, "STEPS_PER_ROUND", 0)  # no training: the detector is the kept one
    assert measured(3) == first
    assert measured(4) != first


def test_both_classes_are_rounded_alike(small: dict[str, Tensor]) -> None:
    T = GaussianNoise(std=0.1)
    torch.manual_seed(0)
    x, y = make_pairs(T, distortions_for(T), to_float(small["train"][:50]))
    assert torch.equal(to_float(to_uint8(x)), x)
    assert y.tolist() == [0.0] * 50 + [1.0] * 50


def test_distortions_never_hold_what_is_looked_for() -> None:
    names = {
        kind: {each.__name__ for group in distortions_for(T) for each in group}
        for kind, T in default_transforms(32).items()
    }
    assert names["noise"].isdisjoint({"grain", "faint_noise", "soften"})
    assert "grain" in names["cutout"] & names["shift"]
    chained = Chain(cutout=Cutout(size=4), noise=GaussianNoise(std=0.1))
    assert distortions_for(chained) == distortions_for(GaussianNoise(std=0.1))


@pytest.mark.parametrize("sides", [(20, 20), (24, 16)])
def test_distortions_keep_shape_and_range_of_colour_images(sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.rand(8, 3, *sides) * 2 - 1
    distort = distortions_for(Cutout(size=4))
    y = distort(x)
    assert all(change(x).shape == x.shape for group in distort for change in group)
    assert y.shape == x.shape
    assert y.abs().max() <= 1
    assert not torch.equal(x, y)


def test_a_score_does_not_depend_on_its_company() -> None:
    torch.manual_seed(0)
    detector, x = Detector(3, 20), torch.rand(9, 3, 20, 20)
    torch.testing.assert_close(compute_outputs(detector, x)[4:5], compute_outputs(detector, x[4:5]))


def test_a_detector_stops_when_told_to(small: dict[str, Tensor]) -> None:
    def stop() -> None:
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        train_detector(Cutout(size=4), small["train"], CPU, stop=stop)


def test_progress_counts_up_to_the_end_of_the_last_detector(small: dict[str, Tensor]) -> None:
    told: list[tuple[int, int]] = []
    fit_estimator(
        "cutout",
        Cutout(size=4),
        small["train"],
        small["held out"],
        device=CPU,
        seed=0,
        detectors=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len({total for _, total in told}) == 1
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((399, 300, 300), "at least 400 training images, and there are 399"),
        ((500, 199, 300), "at least 200 held-out real images, and there are 199"),
        ((500, 300, 99), "99 generated images are too few"),
    ],
)
def test_too_few_images_are_refused_with_a_number(counts: tuple[int, int, int], words: str) -> None:
    parts = [torch.zeros(n, 1, 8, 8, dtype=torch.uint8) for n in counts]
    with pytest.raises(UserError, match=words):
        estimate_leakage("cutout", Cutout(size=4), *parts, device=CPU, seed=0)


def test_generated_images_of_another_shape_are_refused() -> None:
    real, fakes = (torch.zeros(500, c, 8, 8, dtype=torch.uint8) for c in (1, 3))
    with pytest.raises(UserError, match="are 3 x 8 x 8 and the real ones 1 x 8 x 8"):
        estimate_leakage("cutout", Cutout(size=4), real, real, fakes, device=CPU, seed=0)


def test_a_transform_larger_than_the_images_is_refused() -> None:
    real = torch.zeros(500, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"augment\.size=16"):
        estimate_leakage("cutout", Cutout(size=16), real, real, real, device=CPU, seed=0)


def test_a_run_s_own_transform_takes_the_place_of_the_usual_one() -> None:
    usual = {name: describe_transform(T) for name, T in default_transforms(64).items()}
    assert usual["cutout"] == {"T": "Cutout", "size": 32}
    assert usual["shift"] == {"T": "FlipShift", "shift": 8, "flip": 0.0, "padding": "zero"}
    own = Chain(hole=Cutout(size=8))
    assert {name: describe_transform(T) for name, T in transforms_for(64, own).items()} == {
        **usual,
        "cutout": {"T": "Cutout", "size": 8},
    }


def test_a_plot_shows_a_row_for_each_transform(
    cutout: LeakageEstimator, real: dict[str, Tensor], tmp_path: Path
) -> None:
    one = cutout.measure(real["unused"])
    heights = []
    for rows in (1, 3):
        path = tmp_path / "plots" / f"{rows}.png"
        plot_leakage([one._replace(name=f"T{i}") for i in range(rows)], path)
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert heights[0] < heights[1]

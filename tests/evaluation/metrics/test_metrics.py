"""Every metric by hand, against its formula written out and against torch-fidelity."""

import logging
import math
import pickle
from typing import get_args

import numpy as np
import pytest
import scipy.special
import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.metric_prc import prc_features_to_metric
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics import infinity, neighbours
from crgan_cli.evaluation.metrics.base import Metric
from crgan_cli.evaluation.metrics.class_frechet import class_distances
from crgan_cli.evaluation.metrics.density_coverage import density_coverage
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.inception_score import InceptionScore
from crgan_cli.evaluation.metrics.infinity import frechet_infinity, intercept, subset_sizes
from crgan_cli.evaluation.metrics.kid import KID
from crgan_cli.evaluation.metrics.precision_recall import precision_recall
from crgan_cli.evaluation.metrics.registry import METRICS, MetricChoice
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.runs.metric_names import (
    TRAITS,
    higher_is_better,
    is_secondary,
    may_lead,
)


def rows(n: int, dims: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """(n, dims) correlated features."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(dims, dims, generator=torch.Generator().manual_seed(99))
    return scale * torch.randn(n, dims, generator=random) @ mix / dims**0.5 + shift


def features(pool: Tensor, classes: int | None = None) -> FeatureSet:
    """What an extractor would have kept; labels 0, 1, ... in turn."""
    y = None if classes is None else torch.arange(len(pool)) % classes
    moments = Moments.from_features(pool)
    random = torch.Generator().manual_seed(len(pool))
    images = torch.randint(0, 256, (len(pool), 1, 16, 16), generator=random, dtype=torch.uint8)
    steps = (pool, pool + 1e-4)
    return FeatureSet(moments, pool, logits=pool, y=y, predicted=y, steps=steps, images=images)


def line(*points: float) -> Tensor:
    """Features of one dimension."""
    return torch.tensor(points).unsqueeze(1)


def build(name: str) -> Metric:
    """A metric with its defaults, but for those that take long."""
    quick = {"swd": {"directions": 16}, "ms_ssim": {"pairs": 50}}
    return METRICS[name](**quick.get(name, {}))


def numbers(name: str, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
    return METRICS[name]()(real, fake)


# Precision, recall, density and coverage


def test_precision_and_recall_of_points_on_a_line_by_hand():
    # k = 1: real balls [-1, 1], [0, 2] (1 is as near to 0 as to 2), [1, 3], [4, 16];
    # generated balls around 2.5, 5, 30: [0, 5], [2.5, 7.5], [5, 55]
    real, fake = line(0, 1, 2, 10), line(2.5, 5, 30)
    found = precision_recall(real, fake, k=1)
    assert found["precision"] == pytest.approx(2 / 3)  # 2.5 and 5; 30 lies outside
    assert found["recall"] == pytest.approx(4 / 4)  # 0, 1, 2 in the first, 10 in the last


def test_recall_is_of_real_images_and_precision_of_generated_ones():
    real = torch.cat([rows(40, 4, seed=1), rows(40, 4, seed=2, shift=50.0)])
    one_mode = rows(80, 4, seed=3)
    found = precision_recall(real, one_mode)
    assert found["precision"] > 0.7
    assert 0.2 < found["recall"] <= 0.5  # the far half is never reached


def test_density_and_coverage_of_points_on_a_line_by_hand():
    # k = 2: balls around 0, 1, 3, 7 up to 3, 1, 4, 10 - that is [-3, 3], [-1, 3], [0, 6], [1, 13]
    real = line(0, 1, 3, 7)
    # 2 lies in all four, 5 in the last two, 12 in the last, 99 in none
    found = density_coverage(real, line(2, 5, 12, 99), k=2)
    assert found["density"] == pytest.approx((4 + 2 + 1 + 0) / (2 * 4))
    assert found["coverage"] == 1.0
    found = density_coverage(real, line(12, 99, 99), k=2)
    assert found["density"] == pytest.approx(1 / (2 * 3))
    assert found["coverage"] == pytest.approx(1 / 4)


def distances(a: Tensor, b: Tensor) -> np.ndarray:
    """(N, M) by differences, in float64."""
    x, y = a.double().numpy(), b.double().numpy()
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))


@pytest.mark.parametrize(("n", "m", "mean"), [(90, 70, 0.0), (40, 130, 1e5)])
def test_all_four_are_their_formulas_whatever_the_blocks(
    n: int, m: int, mean: float, monkeypatch: pytest.MonkeyPatch
):
    real, fake = rows(n, 6, seed=1, shift=mean), rows(m, 6, seed=2, scale=0.8, shift=mean + 1.0)
    k_pr, k_dc = 3, 5
    across = distances(real, fake)  # (real, fake)
    real_3 = np.sort(distances(real, real))[:, k_pr]
    fake_3 = np.sort(distances(fake, fake))[:, k_pr]
    real_5 = np.sort(distances(real, real))[:, k_dc]
    precision = (across <= real_3[:, None]).any(0).mean()
    recall = (across <= fake_3[None]).any(1).mean()
    held = across <= real_5[:, None]
    density, coverage = held.sum() / (k_dc * m), held.any(1).mean()
    assert 0 < precision < 1
    assert 0 < recall < 1
    assert 0 < coverage < 1
    for block in (1, 7, 512):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        found = precision_recall(real, fake)
        assert found == pytest.approx({"precision": precision, "recall": recall})
        found = density_coverage(real, fake)
        assert found == pytest.approx({"density": density, "coverage": coverage})


@pytest.mark.parametrize("save_memory", [False, True])
def test_precision_and_recall_agree_with_torch_fidelity(save_memory: bool):
    real, fake = rows(150, 8, seed=1).double(), rows(120, 8, seed=2, scale=1.4).double()
    theirs = prc_features_to_metric(fake, real, save_cpu_ram=save_memory, verbose=False)
    found = precision_recall(real, fake)
    assert found["precision"] == pytest.approx(theirs["precision"])
    assert found["recall"] == pytest.approx(theirs["recall"])
    assert abs(found["precision"] - found["recall"]) > 0.1  # or the two could be confused


def test_a_set_lies_on_its_own_manifold_though_its_mean_is_large():
    pool = rows(60, 8, seed=1, shift=1e4)
    real = features(pool)
    fake = features(pool[torch.randperm(60, generator=torch.Generator().manual_seed(0))])
    assert numbers("precision_recall", real, fake) == {"precision": 1.0, "recall": 1.0}
    found = numbers("density_coverage", real, fake)
    # each ball holds its centre and its 5 nearest, the last of them on its edge
    assert found == {"density": pytest.approx(6 / 5), "coverage": 1.0}


def test_generated_images_that_are_all_the_same_cover_nothing_but_what_they_repeat():
    real, fake = rows(30, 4, seed=1), rows(1, 4, seed=2, shift=40.0).expand(20, 4)
    assert precision_recall(real, fake) == {"precision": 0.0, "recall": 0.0}
    assert density_coverage(real, fake) == {"density": 0.0, "coverage": 0.0}
    assert precision_recall(fake, fake) == {"precision": 1.0, "recall": 1.0}
    assert density_coverage(fake, fake)["coverage"] == 1.0


# Frechet distances


def test_frechet_of_a_set_to_itself_is_zero_and_its_order_does_not_matter():
    a, b = rows(60, 8, seed=1), rows(50, 8, seed=2)
    assert numbers("fid", features(a), features(a))["fd"] == pytest.approx(0, abs=1e-9)
    straight = numbers("fid", features(a), features(b))["fd"]
    assert numbers("fid", features(a.flip(0)), features(b.flip(0)))["fd"] == pytest.approx(straight)


def test_a_frechet_metric_knows_one_real_set_from_the_next():
    a, b, c = (features(rows(40, 5, seed=seed)) for seed in (1, 2, 3))
    metric = METRICS["fid"]()
    assert metric(a, c) == numbers("fid", a, c)
    assert metric(b, c) == numbers("fid", b, c)
    assert metric(a, c) != metric(b, c)


def test_class_frechet_by_hand():
    # class 4: values {0, 2} against {3, 5}: means 1 and 4, equal deviations; class 7: to itself
    real, real_y = line(0, 2, 9, 12), torch.tensor([4, 4, 7, 7])
    fake, fake_y = line(9, 3, 5, 12), torch.tensor([7, 4, 4, 7])
    found = numbers(
        "class_fid",
        FeatureSet(Moments.from_features(real), real, y=real_y),
        FeatureSet(Moments.from_features(fake), fake, y=fake_y),
    )
    assert found == {
        "class_fd_4": pytest.approx(9),
        "class_fd_7": pytest.approx(0, abs=1e-9),
        "class_fd": pytest.approx(4.5),
    }


@pytest.mark.parametrize("n", [40, 12], ids=["full rank", "fewer samples than dimensions"])
def test_class_frechet_is_the_formula_class_by_class(n: int):
    real, fake = rows(n, 5, seed=1), rows(2 * n, 5, seed=2, scale=1.5)
    real_y, fake_y = torch.arange(n) % 3, torch.arange(2 * n) % 3
    found = class_distances(real, real_y, fake, fake_y)
    for label, ours in found.items():
        a, b = real[real_y == label].double().numpy(), fake[fake_y == label].double().numpy()
        A, B = np.cov(a.T), np.cov(b.T)
        gap = a.mean(0) - b.mean(0)
        root = np.sqrt(np.clip(np.linalg.eigvals(A @ B).real, 0, None)).sum()
        expected = gap @ gap + np.trace(A) + np.trace(B) - 2 * root
        assert ours == pytest.approx(expected, rel=1e-6)
    assert sorted(found) == [0, 1, 2]


def test_classes_that_were_exchanged_show_by_class_only():
    pool = torch.cat([rows(50, 4, seed=1), rows(50, 4, seed=2, shift=5.0)])
    y = torch.arange(100) // 50
    real = FeatureSet(Moments.from_features(pool), pool, y=y)
    exchanged = FeatureSet(Moments.from_features(pool), pool, y=1 - y)
    assert numbers("fid", real, exchanged)["fd"] == pytest.approx(0, abs=1e-9)
    assert numbers("class_fid", real, exchanged)["class_fd"] > 80  # about 4 * 5^2


def test_small_classes_are_warned_of_once(caplog: pytest.LogCaptureFixture):
    few = features(rows(20, 8, seed=1), classes=4)
    metric = METRICS["class_fid"]()
    with caplog.at_level(logging.WARNING):
        metric(few, few)
        metric(few, few)
    (record,) = caplog.records
    assert "4 of 4 classes have fewer images than the 8 features" in record.getMessage()


def test_class_accuracy_by_hand():
    fake = features(line(0, 0, 0, 0))._replace(
        y=torch.tensor([0, 2, 1, 1]), predicted=torch.tensor([0, 1, 1, 1])
    )
    assert numbers("class_accuracy", fake, fake) == {"class_accuracy": 3 / 4}


# The Frechet distance at infinity


def test_the_intercept_is_that_of_the_line():
    sizes = [10, 20, 50, 100]
    assert intercept(sizes, [7 + 30 / n for n in sizes]) == pytest.approx(7)
    # three points off a line: least squares by hand, x = 1, 1/2, 1/4 and y = 1, 2, 3
    x, y = np.array([1, 1 / 2, 1 / 4]), np.array([1, 2, 3])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    assert intercept([1, 2, 4], [1, 2, 3]) == pytest.approx(2 - slope * 7 / 12)


def test_the_sizes_are_the_papers_where_there_are_as_many_images():
    sizes = subset_sizes(50000, dims=2048)
    assert (len(sizes), sizes[0], sizes[1], sizes[-1]) == (15, 5000, 8214, 50000)
    assert subset_sizes(1000, dims=64)[0] == 500
    assert subset_sizes(50000, dims=8192)[0] == 8193  # never without full rank


def test_infinity_is_nearer_to_the_true_distance_than_all_images_are():
    dims, n = 24, 240
    deviations = torch.linspace(0.5, 1.5, dims).double()
    real = Moments.from_covariance(10**6, torch.zeros(dims).double(), torch.diag(deviations**2))
    truth = float((0.1 * deviations).square().sum())  # deviations 1.1 times as large
    plain, extrapolated = [], []
    for seed in range(5):
        noise = torch.randn(n, dims, generator=torch.Generator().manual_seed(seed))
        fake = (noise * 1.1 * deviations).float()
        plain.append(numbers("fid", FeatureSet(real), features(fake))["fd"])
        extrapolated.append(
            numbers("fid_infinity", FeatureSet(real), features(fake))["fd_infinity"]
        )
    assert np.mean(plain) > 2 * truth
    assert abs(np.mean(extrapolated) - truth) < 0.25 * (np.mean(plain) - truth)


def test_infinity_chooses_the_same_subsets_again_and_others_by_another_seed(
    monkeypatch: pytest.MonkeyPatch,
):
    real, fake = Moments.from_features(rows(80, 6, seed=1)), rows(80, 6, seed=2)
    state = torch.random.get_rng_state()
    first = frechet_infinity(real, fake)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert frechet_infinity(real, fake) == first
    monkeypatch.setattr(infinity, "BLOCK", 7)
    assert frechet_infinity(real, fake) == pytest.approx(first)
    monkeypatch.setattr(infinity, "SEED", 1)
    assert frechet_infinity(real, fake) != pytest.approx(first)


# Inception score and kernel


def test_the_score_in_one_part_is_that_of_all_images_at_once():
    logits = rows(40, 5, seed=1, scale=3.0)
    p = scipy.special.softmax(logits.double().numpy(), axis=1)
    expected = math.exp(np.mean((p * np.log(p / p.mean(0))).sum(1)))
    whole = features(logits)
    found = InceptionScore(splits=4)(FeatureSet(whole.moments), whole)
    assert found["is_single"] == pytest.approx(expected)
    assert found["is"] < found["is_single"]  # parts have less variety
    assert found["is_std"] > 0


def test_kid_has_a_deviation_only_over_several_subsets():
    real, fake = features(rows(30, 4, seed=1)), features(rows(30, 4, seed=2))
    assert set(KID()(real, fake)) == {"kid"}
    assert set(KID(subsets=3, subset_size=10)(real, fake)) == {"kid", "kid_std"}


# All


def test_the_choices_of_the_yaml_are_the_metrics():
    assert get_args(MetricChoice) == tuple(METRICS)


def test_direction_and_lead_are_known_for_every_number():
    real, fake = features(rows(60, 6, seed=1), classes=3), features(rows(50, 6, seed=2), classes=3)
    for name, metric in METRICS.items():
        found = build(name)(real, fake)
        assert metric.key in found
        assert name in TRAITS or all(key in TRAITS for key in found)
        for key in found:
            if not is_secondary(key):
                assert higher_is_better(key) == metric.higher_is_better
                assert may_lead(key) == metric.may_lead
    assert [name for name, metric in METRICS.items() if metric.may_lead] == [
        "fid",
        "kid",
        "class_fid",
        "fid_infinity",
        "swd",
    ]


class Columns(FeatureExtractorBase):
    """torch-fidelity's interface around features that were made elsewhere: an image is its row
    number in `table`, so both sides see the same features."""

    table = torch.empty(0)

    def __init__(self, name: str, features_list: list[str], **kwargs: object) -> None:
        super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("columns",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "columns"

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:  # their name
        return (self.table[input[:, 0, 0, 0].long()],)


class Numbered(Dataset[Tensor]):
    """Images that hold nothing but their row number."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((3, 4, 4), self.first + index, dtype=torch.uint8)


def test_calculate_metrics_finds_the_same_numbers(monkeypatch: pytest.MonkeyPatch):
    real, fake = rows(120, 6, seed=1).double(), rows(100, 6, seed=2, scale=1.3).double()
    monkeypatch.setattr(Columns, "table", torch.cat([real, fake]))
    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "columns", Columns)
    theirs = torch_fidelity.calculate_metrics(
        input1=Numbered(120, 100),
        input2=Numbered(0, 120),
        feature_extractor="columns",
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=4,
        kid_subset_size=50,
        cuda=False,
        cache=False,
        save_cpu_ram=True,  # or it starts worker processes
        verbose=False,
    )
    chosen: list[Metric] = [
        METRICS["fid"](),
        METRICS["is"](),
        KID(subsets=4, subset_size=50),
        METRICS["precision_recall"](),
    ]
    ours: dict[str, float] = {}
    for metric in chosen:
        ours |= metric(features(real), features(fake))
    names = {
        "fd": "frechet_inception_distance",
        "is": "inception_score_mean",
        "is_std": "inception_score_std",
        "kid": "kernel_inception_distance_mean",
        "kid_std": "kernel_inception_distance_std",
        "precision": "precision",
        "recall": "recall",
    }
    for name, their_name in names.items():
        assert ours[name] == pytest.approx(theirs[their_name], rel=1e-6), name


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_takes_float32_gives_finite_floats_and_leaves_the_generators_alone(name: str):
    real, fake = features(rows(60, 6, seed=1), classes=3), features(rows(50, 6, seed=2), classes=3)
    metric = build(name)
    metric.require(60, 50, 6)
    before = torch.random.get_rng_state(), pickle.dumps(np.random.get_state())
    found = metric(real, fake)
    assert found == metric(real, fake)
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert pickle.dumps(np.random.get_state()) == before[1]
    assert all(isinstance(value, str | int | float) for value in metric.describe().values())


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_keeps_what_it_reads(name: str):
    metric = build(name)
    real, fake = features(rows(60, 6, seed=1), classes=3), features(rows(60, 6, seed=2), classes=3)
    dropped = {column: None for column in ("pool", "logits") if column not in metric.required}
    assert metric(real._replace(**dropped), fake._replace(**dropped)) == metric(real, fake)


def test_settings_are_described():
    described: dict[str, str | int | float] = {}
    for metric in METRICS.values():
        described |= metric().describe()
    assert described == {
        "is_splits": 10,
        "kid_subsets": 100,
        "kid_subset_size": "min(1000, images)",
        "precision_recall_neighbours": 3,
        "density_coverage_neighbours": 5,
        "class_fd_mean": "over classes, each with the same weight",
        "class_accuracy_classifier": 1,
        "class_accuracy_images_sha256": "nothing yet",
        "fd_infinity_points": 15,
        "fd_infinity_smallest": "min(max(5000, features + 1), images // 2)",
        "fd_infinity_seed": 0,
        "ppl_step": 1e-4,
        "ppl_left_out": 0.01,
        "ppl_space": "z, full path, fp32",
        "swd_patches": 128,
        "swd_directions": 512,
        "swd_images": "min(real, generated)",
        "swd_seed": 0,
        "ms_ssim_pairs": 10000,
        "ms_ssim_scales": 5,
        "ms_ssim_seed": 0,
    }
    assert KID(subset_size=50).describe()["kid_subset_size"] == 50


@pytest.mark.parametrize(
    ("metric", "real", "fake", "message"),
    [
        (
            METRICS["fid"](),
            1,
            9,
            "^1 real images are too few.*least 2 there.*num_samples=2.*remove fid",
        ),
        (METRICS["is"](), 9, 9, "is_splits=10 parts of 9 .*most metrics.is_splits=9"),
        (METRICS["kid"](), 1, 1, "a pair.*num_samples=2"),
        (KID(subset_size=50), 99, 49, "99 real, 49 generated.*metrics.kid_subset_size=49"),
        (METRICS["precision_recall"](), 9, 3, "need 3 others each.*num_samples=4"),
        (METRICS["density_coverage"](), 4, 4, "^4 real and 4 generated.*put at least 6 there"),
        (METRICS["density_coverage"](), 5, 9, "need 5 others each.*num_samples=6"),
        (METRICS["class_fid"](), 1, 9, "2 of each class.*num_samples=2"),
        (METRICS["fid_infinity"](), 99, 201, "more than the 100 features.*num_samples=202"),
    ],
)
def test_too_few_images_are_refused_with_the_remedy(
    metric: Metric, real: int, fake: int, message: str
):
    with pytest.raises(UserError, match=message):
        metric.require(real, fake, dims=100)


def test_the_least_number_of_images_is_not_refused():
    METRICS["precision_recall"]().require(4, 4, dims=100)
    METRICS["fid_infinity"]().require(2, 202, dims=100)
    METRICS["is"]().require(1, 10, dims=100)
    KID(subset_size=49).require(49, 49, dims=100)


def test_infinity_takes_the_least_number_that_it_asks_for():
    with pytest.raises(UserError, match="num_samples=30"):
        METRICS["fid_infinity"]().require(99, 29, dims=6)
    sizes = subset_sizes(30, dims=6)
    assert len(set(sizes)) == 15
    assert sizes[0] > 6


def test_a_subset_of_one_image_is_refused():
    with pytest.raises(UserError, match=r"metrics.kid_subset_size=1 has no pairs"):
        KID(subset_size=1)


def test_sets_without_labels_have_no_class_frechet():
    labelled, bare = features(rows(20, 4, seed=1), classes=2), features(rows(20, 4, seed=2))
    with pytest.raises(UserError, match=r"generated images have no class labels.*class_fid"):
        numbers("class_fid", labelled, bare)
    with pytest.raises(UserError, match=r"real images have no class labels"):
        numbers("class_fid", bare, labelled)
    with pytest.raises(UserError, match=r"no class labels.*remove class_accuracy"):
        numbers("class_accuracy", labelled, bare)


def test_a_class_with_one_image_on_a_side_is_refused():
    real, fake = features(rows(20, 4, seed=1), classes=2), features(rows(20, 4, seed=2), classes=2)
    fake = fake._replace(y=torch.tensor([0] * 19 + [1]))
    with pytest.raises(UserError, match=r"Class 1 has 10 real and 1 generated.*num_samples"):
        numbers("class_fid", real, fake)
    with pytest.raises(UserError, match=r"Class 1 has 10 real and 0 generated"):
        numbers("class_fid", real, fake._replace(y=torch.zeros(20, dtype=torch.int64)))

"""Moments, Frechet distance, KID and Inception score against formulas written out."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kid_features_to_metric,
)

from crgan_cli.evaluation.metrics import kid, statistics
from crgan_cli.evaluation.metrics.frechet import (
    CachedFactor,
    covariance_factor,
    covariance_factor_thin,
    frechet_distance,
)
from crgan_cli.evaluation.metrics.inception_score import inception_score
from crgan_cli.evaluation.metrics.kid import kernel_distance, squared_mmd
from crgan_cli.evaluation.metrics.statistics import Moments


def rows(n: int, dims: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """(n, dims) correlated features."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(dims, dims, generator=torch.Generator().manual_seed(99))
    return scale * torch.randn(n, dims, generator=random) @ mix / dims**0.5 + 0.1 * seed


@pytest.fixture(params=[5, 1024], ids=["several blocks", "one block"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Symmetric matrices are computed in blocks; no test is large enough for several of them."""
    monkeypatch.setattr(statistics, "WIDTH", request.param)
    monkeypatch.setattr(statistics, "ROWS", 3 * request.param)


@pytest.mark.usefixtures("blocks")
def test_streamed_moments_are_numpys_whatever_the_batches():
    features = rows(101, 7, seed=1).double() + 1e6  # a large mean: sums of squares would fail
    moments = Moments(7)
    for part in features.split([1, 2, 50, 17, 31]):
        moments.update(part)
    assert moments.count == 101
    np.testing.assert_allclose(moments.mean, features.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(features.numpy().T), rtol=1e-7)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("add", [statistics.add_gram, statistics.add_gram_in_blocks])
def test_a_symmetric_product_is_added_below_the_diagonal(add):
    x, total = rows(30, 12, seed=1).double(), rows(12, 12, seed=2).double()
    expected = (total + x.T @ x).tril()
    add(total, x)
    torch.testing.assert_close(total.tril(), expected)


def test_stored_moments_go_on_as_if_never_stored():
    features = rows(20, 3, seed=1)
    whole, half = Moments.from_features(features), Moments.from_features(features[:12])
    again = Moments.from_covariance(half.count, half.mean, half.covariance)
    again.update(features[12:])
    torch.testing.assert_close(again.covariance, whole.covariance)


def test_frechet_of_one_dimension_is_the_gaps_of_mean_and_deviation():
    # values {0, 2}: mean 1, variance 2; values {3, 11}: mean 7, variance 32
    a = Moments.from_features(torch.tensor([[0.0], [2.0]]))
    b = Moments.from_features(torch.tensor([[3.0], [11.0]]))
    assert frechet_distance(a, b) == pytest.approx(6**2 + (math.sqrt(32) - math.sqrt(2)) ** 2)


def test_frechet_of_diagonal_gaussians_by_hand():
    mean_a, mean_b = torch.tensor([1.0, -2, 0]).double(), torch.tensor([0.0, 0, 3]).double()
    a = Moments.from_covariance(10, mean_a, torch.diag(torch.tensor([4.0, 9, 0]).double()))
    b = Moments.from_covariance(10, mean_b, torch.diag(torch.tensor([1.0, 25, 16]).double()))
    # |gap|^2 = 1 + 4 + 9; deviations 2, 3, 0 against 1, 5, 4
    assert frechet_distance(a, b) == pytest.approx(14 + 1 + 4 + 16)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("n", [400, 20], ids=["full rank", "fewer samples than dimensions"])
def test_frechet_agrees_with_torch_fidelity(n: int):
    a, b = rows(n, 32, seed=1), rows(n, 32, seed=2, scale=1.5)
    ours = frechet_distance(Moments.from_features(a), Moments.from_features(b))
    stats = [fid_features_to_statistics(f.double()) for f in (a, b)]
    theirs = fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID]
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.usefixtures("blocks")
def test_frechet_is_the_formula_with_the_square_root_of_the_matrix():
    a, b = (rows(200, 16, seed=seed).double().numpy() for seed in (1, 2))
    A, B = np.cov(a.T), np.cov(b.T)
    gap = a.mean(0) - b.mean(0)
    expected = gap @ gap + np.trace(A + B - 2 * np.real(scipy.linalg.sqrtm(A @ B)))
    ours = frechet_distance(
        Moments.from_features(torch.from_numpy(a)), Moments.from_features(torch.from_numpy(b))
    )
    assert ours == pytest.approx(expected, rel=1e-10)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("n", [30, 8], ids=["more samples than dimensions", "fewer"])
def test_centred_features_are_a_root_of_their_covariance(n: int):
    features, other = rows(n, 12, seed=1), Moments.from_features(rows(40, 12, seed=2))
    moments, L = Moments.from_features(features), covariance_factor_thin(features)
    assert L.shape == (12, n)
    torch.testing.assert_close(L @ L.T, moments.covariance)
    expected = frechet_distance(moments, other)
    assert frechet_distance(moments, other, L) == pytest.approx(expected, rel=1e-6)


def test_a_factor_is_computed_once_and_again_where_moments_grew(monkeypatch: pytest.MonkeyPatch):
    calls = []
    cholesky = torch.linalg.cholesky_ex
    monkeypatch.setattr(
        torch.linalg, "cholesky_ex", lambda matrix: calls.append(1) or cholesky(matrix)
    )
    moments, kept = Moments.from_features(rows(30, 4, seed=1)), CachedFactor()
    first = kept.get(moments)
    assert kept.get(moments) is first
    assert len(calls) == 1
    moments.update(rows(30, 4, seed=2))
    L = kept.get(moments)
    torch.testing.assert_close(L @ L.T, moments.covariance)
    assert len(calls) == 2


def test_frechet_of_few_samples_has_another_way_where_eigh_gives_up(monkeypatch):
    """Seen with 4 pictures of 1,280 features."""
    a, b = Moments.from_features(rows(4, 40, seed=1)), Moments.from_features(rows(4, 40, seed=2))
    expected = frechet_distance(a, b)

    def gives_up(matrix: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    # not to the last digits: roots of eigenvalues that are 0 but for rounding
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)


def test_frechet_is_zero_to_itself_and_symmetric():
    a, b = Moments.from_features(rows(50, 8, seed=1)), Moments.from_features(rows(50, 8, seed=2))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) > 0.01


@pytest.mark.usefixtures("blocks")
def test_squared_mmd_is_the_double_sum_over_distinct_pairs():
    x, y = rows(6, 4, seed=1).double(), rows(6, 4, seed=2).double()

    def k(u: torch.Tensor, v: torch.Tensor) -> float:
        return (float(u @ v) / 4 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    expected = (
        sum(k(x[i], x[j]) for i, j in pairs if i != j) / 30
        + sum(k(y[i], y[j]) for i, j in pairs if i != j) / 30
        - 2 * sum(k(x[i], y[j]) for i, j in pairs) / 36
    )
    assert float(squared_mmd(x, y)) == pytest.approx(expected)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("n", "size", "subsets"), [(60, None, 1), (1020, None, 3), (60, 20, 5), (60, 20, 40)]
)
def test_kid_agrees_with_torch_fidelity(n: int, size: int | None, subsets: int):
    fake, real = rows(n, 8, seed=1), rows(n, 8, seed=2)
    theirs = kid_features_to_metric(
        fake.double(),
        real.double(),
        kid_subsets=subsets,
        kid_subset_size=size or min(n, 1000),
        verbose=False,
    )
    ours = kernel_distance(fake, real, subsets=subsets, size=size)
    assert ours.mean == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-9)
    if subsets == 1:
        assert ours.deviation is None
    else:
        assert ours.deviation == pytest.approx(theirs[KEY_METRIC_KID_STD], rel=1e-9)


def test_no_pair_of_kid_is_computed_twice(monkeypatch: pytest.MonkeyPatch):
    """Neither within a set, nor by subsets that share it."""
    monkeypatch.setattr(statistics, "WIDTH", 1)
    pairs, kernel = [], kid.kernel
    monkeypatch.setattr(kid, "kernel", lambda x, y: pairs.append(len(x) * len(y)) or kernel(x, y))
    fake, real = rows(60, 8, seed=1), rows(40, 8, seed=2)
    kernel_distance(fake, real, subsets=40, size=20)
    assert sum(pairs) == 60 * 61 / 2 + 40 * 41 / 2 + 60 * 40
    pairs.clear()
    kernel_distance(fake, real, subsets=2, size=20)  # fewer pairs by subsets
    assert sum(pairs) == 2 * (2 * 20 * 21 / 2 + 20 * 20)


def test_the_factor_of_few_samples_has_no_columns_of_rounding():
    moments = Moments.from_features(rows(9, 12, seed=1))
    L = covariance_factor(moments.covariance, moments.count - 1)
    assert L.shape == (12, 8)
    torch.testing.assert_close(L @ L.T, moments.covariance)


def test_kid_of_all_images_needs_one_subset_only():
    fake, real = rows(50, 8, seed=1), rows(50, 8, seed=2)
    assert kernel_distance(fake, real, subsets=100) == kernel_distance(fake, real, subsets=1)
    assert kernel_distance(fake, real).deviation is None


def test_kid_of_two_halves_of_one_distribution_is_about_zero():
    features = rows(800, 8, seed=1)
    same = kernel_distance(features[:400], features[400:]).mean
    other = kernel_distance(features[:400], rows(400, 8, seed=3, scale=2.0)).mean
    assert abs(same) < 0.1 * other


def test_inception_score_of_certain_and_of_uniform_predictions():
    certain = 100 * torch.eye(4).repeat(5, 1)  # 20 samples, each class equally often
    assert inception_score(certain, splits=1) == (pytest.approx(4.0), 0.0)
    assert inception_score(torch.zeros(20, 4), splits=10) == (pytest.approx(1.0), 0.0)


def test_inception_score_is_the_formula_over_shuffled_parts():
    logits = rows(40, 5, seed=1, scale=3.0)
    p = logits.double().softmax(1).numpy()[np.random.RandomState(2020).permutation(40)]
    scores = []
    for part in np.split(p, 4):
        marginal = part.mean(0)
        scores.append(np.exp(np.mean([np.sum(q * np.log(q / marginal)) for q in part])))
    mean, deviation = inception_score(logits, splits=4)
    assert mean == pytest.approx(np.mean(scores))
    assert deviation == pytest.approx(np.std(scores))

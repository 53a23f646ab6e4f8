"""Moments, Frechet distance, KID and Inception score against formulas written out."""

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from crgan_cli.metrics import kid
from crgan_cli.metrics.frechet import frechet_distance
from crgan_cli.metrics.inception_score import inception_score
from crgan_cli.metrics.kid import kernel_distance, squared_mmd
from crgan_cli.metrics.statistics import Moments


def rows(n: int, dims: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """(n, dims) correlated features."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(dims, dims, generator=torch.Generator().manual_seed(99))
    return scale * torch.randn(n, dims, generator=random) @ mix / dims**0.5 + 0.1 * seed


def test_streamed_moments_are_numpys_whatever_the_batches():
    features = rows(101, 7, seed=1).double() + 1e6  # a large mean: sums of squares would fail
    moments = Moments(7)
    for part in features.split([1, 2, 50, 17, 31]):
        moments.update(part)
    assert moments.count == 101
    np.testing.assert_allclose(moments.mean, features.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(features.numpy().T), rtol=1e-7)


def test_stored_moments_go_on_as_if_never_stored():
    features = rows(20, 3, seed=1)
    whole, half = Moments.of(features), Moments.of(features[:12])
    again = Moments.stored(half.count, half.mean, half.covariance)
    again.update(features[12:])
    torch.testing.assert_close(again.covariance, whole.covariance)


def test_frechet_of_one_dimension_is_the_gaps_of_mean_and_deviation():
    # values {0, 2}: mean 1, variance 2; values {3, 11}: mean 7, variance 32
    a = Moments.of(torch.tensor([[0.0], [2.0]]))
    b = Moments.of(torch.tensor([[3.0], [11.0]]))
    assert frechet_distance(a, b) == pytest.approx(6**2 + (math.sqrt(32) - math.sqrt(2)) ** 2)


def test_frechet_of_diagonal_gaussians_by_hand():
    mean_a, mean_b = torch.tensor([1.0, -2, 0]).double(), torch.tensor([0.0, 0, 3]).double()
    a = Moments.stored(10, mean_a, torch.diag(torch.tensor([4.0, 9, 0]).double()))
    b = Moments.stored(10, mean_b, torch.diag(torch.tensor([1.0, 25, 16]).double()))
    # |gap|^2 = 1 + 4 + 9; deviations 2, 3, 0 against 1, 5, 4
    assert frechet_distance(a, b) == pytest.approx(14 + 1 + 4 + 16)


@pytest.mark.parametrize("n", [400, 20], ids=["full rank", "fewer samples than dimensions"])
def test_frechet_agrees_with_torch_fidelity(n: int):
    a, b = rows(n, 32, seed=1), rows(n, 32, seed=2, scale=1.5)
    ours = frechet_distance(Moments.of(a), Moments.of(b))
    stats = [fid_features_to_statistics(f.double()) for f in (a, b)]
    theirs = fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID]
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_frechet_of_few_samples_has_another_way_where_eigh_gives_up(monkeypatch):
    """Seen with 4 pictures of 1,280 features."""
    a, b = Moments.of(rows(4, 40, seed=1)), Moments.of(rows(4, 40, seed=2))
    expected = frechet_distance(a, b)

    def gives_up(matrix: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    # not to the last digits: roots of eigenvalues that are 0 but for rounding
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)


def test_frechet_is_zero_to_itself_and_symmetric():
    a, b = Moments.of(rows(50, 8, seed=1)), Moments.of(rows(50, 8, seed=2))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) > 0.01


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


@pytest.mark.parametrize(("n", "size", "subsets"), [(60, 60, 1), (1020, 1000, 3)])
def test_kid_agrees_with_torch_fidelity(
    n: int, size: int, subsets: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kid, "SUBSETS", 3)
    a, b = rows(n, 8, seed=1), rows(n, 8, seed=2)
    theirs = kid_features_to_metric(
        a.double(), b.double(), kid_subsets=subsets, kid_subset_size=size, verbose=False
    )
    assert kernel_distance(a, b) == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-9)


def test_kid_of_two_halves_of_one_distribution_is_about_zero():
    features = rows(800, 8, seed=1)
    same = kernel_distance(features[:400], features[400:])
    other = kernel_distance(features[:400], rows(400, 8, seed=3, scale=2.0))
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

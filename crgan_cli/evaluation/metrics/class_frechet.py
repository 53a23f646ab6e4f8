"""The Frechet distance within each class, and its mean over the classes.

The intra-FID of Miyato and Koyama 2018 (arXiv:1802.05637, section 4): it sees a conditional
generator whose classes are right together and wrong one by one, which FID does not.
"""

import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.frechet import covariance_factor_thin, frechet_distance
from crgan_cli.evaluation.metrics.statistics import Moments


def class_distances(real: Tensor, real_y: Tensor, fake: Tensor, fake_y: Tensor) -> dict[int, float]:
    """Label -> Frechet distance, of (N, dims) and (M, dims) features with their int64 labels.

    Each class that either set has needs two rows on both sides.
    """
    labels = torch.cat([real_y.unique(), fake_y.unique()]).unique().tolist()
    return {c: distance(real[real_y == c], fake[fake_y == c]) for c in labels}


def distance(real: Tensor, fake: Tensor) -> float:
    """Frechet distance of features; the eigenvalue problem is of min(N, dims) rows."""
    root = covariance_factor_thin(real) if len(real) < real.shape[1] else None
    return frechet_distance(Moments.from_features(real), Moments.from_features(fake), root)


def count_per_class(y: Tensor) -> dict[int, int]:
    """Label -> images with it."""
    labels, counts = y.unique(return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))

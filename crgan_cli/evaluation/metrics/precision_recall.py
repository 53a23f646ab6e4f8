"""Precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991, eqs. 1-3).

The manifold of a set is the union of balls around its features, up to the k-th nearest neighbour.
Precision is the share of generated images on the real manifold (how good they are), recall the
share of real images on the generated manifold (how much of the data is reached).
"""

from torch import Tensor

from crgan_cli.evaluation.metrics.base import Metric, require_counts
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.neighbours import KNNManifold, share_inside

NEIGHBOURS = 3  # the paper's k (section 2), and torch-fidelity's


class PrecisionRecall(Metric):
    """`precision` and `recall`: share of one set within the other's k-nearest-neighbour balls,
    Kynkaanniemi et al. 2019 (arXiv:1904.06991) eqs. 1 and 2."""

    name, key = "precision_recall", "precision"
    required = frozenset({"pool"})

    def require(self, real: int, fake: int, dims: int) -> None:
        why = f"precision and recall need {NEIGHBOURS} others each"
        require_counts(self.name, real, fake, least=NEIGHBOURS + 1, why=why)

    def describe(self) -> dict[str, str | int | float]:
        return {"precision_recall_neighbours": NEIGHBOURS}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        return precision_recall(real.require_pool(), fake.require_pool())


def precision_recall(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Return both, in [0, 1], for (N, dims) and (M, dims) features; N and M above k.

    Both depend on N, M and k.
    """
    return {
        "precision": share_inside(KNNManifold(real, k), fake),
        "recall": share_inside(KNNManifold(fake, k), real),
    }

"""The Inception score (Salimans et al. 2016, arXiv:1606.03498), by torch-fidelity's formula."""

from torch import Tensor
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
)

SHUFFLE_SEED = 2020  # torch-fidelity's default


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:
    """exp(E KL(p(y|x) || p(y))) of (N, classes) logits: mean and deviation over `splits` parts.

    The rows are shuffled first (with a generator of its own): samples may come sorted by class,
    and a part of one class would score 1. Needs N >= splits.
    """
    assert len(logits) >= splits, f"{len(logits)} samples in {splits} splits leave empty ones"
    found = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=SHUFFLE_SEED)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD]

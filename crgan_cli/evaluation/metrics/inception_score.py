"""The Inception score (Salimans et al. 2016, arXiv:1606.03498), by torch-fidelity's formula."""

from torch import Tensor

SHUFFLE_SEED = 2020  # torch-fidelity's default


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:
    """exp(E KL(p(y|x) || p(y))) of (N, classes) logits: mean and deviation over `splits` parts.

    The rows are shuffled first (with a generator of its own): samples may come sorted by class,
    and a part of one class would score 1. Needs N >= splits.
    """
    # here: it imports torchvision, which takes longer than torch
    from torch_fidelity import metric_isc as isc

    assert len(logits) >= splits, f"{len(logits)} samples in {splits} splits leave empty ones"
    found = isc.isc_features_to_metric(
        logits.cpu(), splits=splits, shuffle=True, rng_seed=SHUFFLE_SEED
    )
    return found[isc.KEY_METRIC_ISC_MEAN], found[isc.KEY_METRIC_ISC_STD]

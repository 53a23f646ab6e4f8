"""The Inception score (Salimans et al. 2016, arXiv:1606.03498), by torch-fidelity's formula."""

from torch import Tensor

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.base import Metric
from crgan_cli.evaluation.metrics.features import FeatureSet

SHUFFLE_SEED = 2020  # torch-fidelity's default


class InceptionScore(Metric):
    """`is` and `is_std`, mean and deviation over `splits` parts, and `is_single` of all images at
    once: exp(E KL(p(y|x) || p(y))), Salimans et al. 2016 (arXiv:1606.03498). Needs fakes only."""

    name = key = "is"
    required = frozenset({"logits"})

    def __init__(self, splits: int = 10) -> None:
        self.splits = splits

    def require(self, real: int, fake: int, dims: int) -> None:
        if fake < self.splits:
            raise UserError(
                f"metrics.is_splits={self.splits} parts of {fake} generated images leave empty "
                f"parts: give at most metrics.is_splits={fake}, or more metrics.num_samples."
            )

    def describe(self) -> dict[str, str | int | float]:
        return {"is_splits": self.splits}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        assert fake.logits is not None, "the logits are in `required`"
        mean, deviation = inception_score(fake.logits, self.splits)
        single, _ = inception_score(fake.logits, splits=1)
        return {"is": mean, "is_std": deviation, "is_single": single}


def inception_score(logits: Tensor, splits: int) -> tuple[float, float]:
    """Return mean and deviation of exp(E KL(p(y|x) || p(y))) over `splits` parts.

    `logits` is (N, classes), N >= splits. The rows are shuffled first, with a generator of their
    own: samples may be sorted by class, and a part of one class would score 1.
    """
    # here: it imports torchvision, which takes longer than torch
    from torch_fidelity import metric_isc as isc

    assert len(logits) >= splits, f"{len(logits)} samples in {splits} splits leave empty ones"
    result = isc.isc_features_to_metric(
        logits.cpu(), splits=splits, shuffle=True, rng_seed=SHUFFLE_SEED
    )
    return result[isc.KEY_METRIC_ISC_MEAN], result[isc.KEY_METRIC_ISC_STD]

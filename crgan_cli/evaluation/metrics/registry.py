"""The metrics that `metrics.measures` may name."""

from collections.abc import Sequence
from typing import Literal

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.base import Metric
from crgan_cli.evaluation.metrics.class_accuracy import ClassAccuracy
from crgan_cli.evaluation.metrics.class_frechet import ClassFrechet
from crgan_cli.evaluation.metrics.density_coverage import DensityCoverage
from crgan_cli.evaluation.metrics.frechet import FrechetDistance
from crgan_cli.evaluation.metrics.inception_score import InceptionScore
from crgan_cli.evaluation.metrics.infinity import FrechetInfinity
from crgan_cli.evaluation.metrics.kid import KID
from crgan_cli.evaluation.metrics.ms_ssim import MultiScaleSSIM
from crgan_cli.evaluation.metrics.perceptual_path import PerceptualPathLength
from crgan_cli.evaluation.metrics.precision_recall import PrecisionRecall
from crgan_cli.evaluation.metrics.sliced_wasserstein import SlicedWasserstein

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        FrechetDistance,
        InceptionScore,
        KID,
        PrecisionRecall,
        DensityCoverage,
        ClassFrechet,
        ClassAccuracy,
        FrechetInfinity,
        PerceptualPathLength,
        SlicedWasserstein,
        MultiScaleSSIM,
    )
}

# The names again: the check of the YAML reads this line without importing torch.
MetricChoice = Literal[
    "fid",
    "is",
    "kid",
    "precision_recall",
    "density_coverage",
    "class_fid",
    "class_accuracy",
    "fid_infinity",
    "ppl",
    "swd",
    "ms_ssim",
]


def build_metrics(
    measures: Sequence[MetricChoice],
    *,
    is_splits: int,
    kid_subsets: int,
    kid_subset_size: int | None,
    swd_directions: int,
    ms_ssim_pairs: int,
) -> list[Metric]:
    """Build the metrics of `metrics.measures`, each once, with their settings."""
    settings: dict[str, dict[str, int | None]] = {
        "is": {"splits": is_splits},
        "kid": {"subsets": kid_subsets, "subset_size": kid_subset_size},
        "swd": {"directions": swd_directions},
        "ms_ssim": {"pairs": ms_ssim_pairs},
    }
    return [METRICS[name](**settings.get(name, {})) for name in dict.fromkeys(measures)]


def choose_primary(metrics: Sequence[Metric]) -> Metric:
    """Return the first metric that may choose the best checkpoint. Raise UserError without one."""
    for metric in metrics:
        if metric.may_lead:
            return metric
    leaders = ", ".join(name for name, metric in METRICS.items() if metric.may_lead)
    raise UserError(
        f"metrics.measures=[{','.join(metric.name for metric in metrics)}] has no distance by "
        f"which to choose the best checkpoint: add one of {leaders}."
    )

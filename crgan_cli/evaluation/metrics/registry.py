"""The metrics that `metrics.measures` may name."""

from typing import Literal

from crgan_cli.evaluation.metrics.base import Metric
from crgan_cli.evaluation.metrics.class_accuracy import ClassAccuracy
from crgan_cli.evaluation.metrics.class_frechet import ClassFrechet
from crgan_cli.evaluation.metrics.density_coverage import DensityCoverage
from crgan_cli.evaluation.metrics.frechet import FrechetDistance
from crgan_cli.evaluation.metrics.inception_score import InceptionScore
from crgan_cli.evaluation.metrics.infinity import FrechetInfinity
from crgan_cli.evaluation.metrics.kid import KID
from crgan_cli.evaluation.metrics.perceptual_path import PerceptualPathLength
from crgan_cli.evaluation.metrics.precision_recall import PrecisionRecall

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
]

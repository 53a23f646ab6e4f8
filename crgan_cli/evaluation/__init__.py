"""Metrics of generated images, and the evaluator that computes them."""

from typing import TYPE_CHECKING

from crgan_cli.system.lazy import lazy_imports

if TYPE_CHECKING:
    from crgan_cli.evaluation.domains import DomainsEvaluator as DomainsEvaluator
    from crgan_cli.evaluation.evaluator import Evaluator as Evaluator
    from crgan_cli.evaluation.metrics.base import Metric as Metric
    from crgan_cli.evaluation.metrics.efficientnet import EfficientNetLite0 as EfficientNetLite0
    from crgan_cli.evaluation.metrics.extractors import Extractor as Extractor
    from crgan_cli.evaluation.metrics.extractors import Features as Features
    from crgan_cli.evaluation.metrics.extractors import NoExtractor as NoExtractor
    from crgan_cli.evaluation.metrics.features import FeatureSet as FeatureSet
    from crgan_cli.evaluation.metrics.inception import Inception as Inception
    from crgan_cli.evaluation.metrics.pretrained import CLIP as CLIP
    from crgan_cli.evaluation.metrics.pretrained import VGG16 as VGG16
    from crgan_cli.evaluation.metrics.pretrained import DINOv2 as DINOv2
    from crgan_cli.evaluation.metrics.torchscript import TorchScript as TorchScript
    from crgan_cli.evaluation.pairs import PairsEvaluator as PairsEvaluator

__getattr__ = lazy_imports(__name__)

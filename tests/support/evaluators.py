"""Evaluators with settings for tests."""

from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.metrics.extractors import Extractor


def make_evaluator(
    extractor: Extractor, kind: type[Evaluator] = Evaluator, **changes: object
) -> Evaluator:
    """An evaluator of test images, once each, without a real-vs-real distance. `changes` must have
    `measures` and `num_samples`."""
    settings: dict[str, object] = {
        "reference": "test",
        "num_real": None,
        "repeats": 1,
        "rounding": "uint8",
        "weights": "auto",
        "batch_norm": "running",
        "truncation": None,
        "floor": False,
        "reference_file": None,
        "batch_size": 8,
        "every": 100,
    }
    return kind(extractor, **(settings | changes))  # pyright: ignore

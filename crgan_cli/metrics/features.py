"""From images to the features and moments that the metrics are computed from."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.metrics.extractors import Extractor
from crgan_cli.metrics.statistics import Moments

Draw = Callable[[int, int], Tensor]  # (start, n) -> images start .. start + n
Progress = Callable[[int, int], None]  # (images done, images in all)
Stop = Callable[[], None]  # raises to end an evaluation between two batches


class FeatureSet(NamedTuple):
    """What is kept of N images. The features are kept because KID and IS need every row."""

    moments: Moments
    pool: Tensor  # (N, dims) float32
    logits: Tensor  # (N, classes) float32


def extract(
    extractor: Extractor,
    draw: Draw,
    count: int,
    batch_size: int,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> FeatureSet:
    """Features of the `count` uint8 images that `draw` gives, a batch at a time."""
    moments, pool, logits = Moments(extractor.dims), [], []
    for start in range(0, count, batch_size):
        if stop:
            stop()
        features = extractor(draw(start, min(batch_size, count - start)))
        moments.update(features.pool)
        pool.append(features.pool)
        logits.append(features.logits)
        if progress:
            progress(min(start + batch_size, count), count)
    return FeatureSet(moments, torch.cat(pool), torch.cat(logits))

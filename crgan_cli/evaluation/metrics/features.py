"""From images to the features and moments that the measures compare."""

from collections.abc import Callable, Set
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.system.distributed.objects import on_every_rank
from crgan_cli.system.distributed.tensors import all_gather_rows
from crgan_cli.system.distributed.world import world

Draw = Callable[[int, int], Tensor]  # (start, n) -> images start .. start + n
Progress = Callable[[int, int], None]  # (images done, images in all)
Stop = Callable[[], None]  # raises to end an evaluation between two batches
FeatureKind = Literal["pool", "logits"]  # of Features


class FeatureSet(NamedTuple):
    """What is kept of N images: their moments, of a size that does not grow, and what is asked for.

    A column that no measure needs is None.
    """

    moments: Moments
    pool: Tensor | None = None  # (N, dims) float32
    logits: Tensor | None = None  # (N, classes) float32
    y: Tensor | None = None  # (N,) int64 class ids of the data set; None without classes

    def require_pool(self) -> Tensor:
        """`pool`, where it was asked for."""
        assert self.pool is not None, "a measure that needs the features says so in `keeps`"
        return self.pool


def extract(
    extractor: Extractor,
    draw: Draw,
    count: int,
    batch_size: int,
    *,
    keep: Set[FeatureKind] = frozenset(),
    y: Tensor | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> FeatureSet:
    """Features of the `count` images that `draw` gives, a batch at a time.

    The images are uint8, or float32 in [0, 255] where they are not to be rounded. Memory grows
    with `count` by the columns in `keep`: 8 KB an image for Inception's pool, 4 KB for its logits.

    Several processes take the batches in turns, and each gets what one alone would have got. All
    call `stop` equally often.
    """
    moments = Moments(extractor.dims)
    # sorted: the order of a set differs from process to process
    kept: dict[FeatureKind, list[Tensor]] = {column: [] for column in sorted(keep)}
    rank, size, _ = world()
    starts = list(range(0, count, batch_size))
    for batch in range(0, len(starts), size):
        if stop:
            stop()
        # where the batches do not come out even, a process repeats the last one
        start = starts[min(batch + rank, len(starts) - 1)]
        found = on_every_rank(
            lambda start=start: extractor(draw(start, min(batch_size, count - start)))
        )
        taken = min(size, len(starts) - batch)
        for pool in all_gather_rows(found.pool)[:taken]:
            moments.update(pool)
        for column, parts in kept.items():
            parts += all_gather_rows(getattr(found, column))[:taken]
        if progress:
            progress(min((batch + taken) * batch_size, count), count)
    joined = {column: torch.cat(parts) for column, parts in kept.items()}
    return FeatureSet(moments, joined.get("pool"), joined.get("logits"), y)

"""From images to the features and moments that the metrics compare."""

from collections.abc import Callable, Sequence, Set
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation.metrics.extractors import Extractor
from crgan_cli.evaluation.metrics.statistics import Moments
from crgan_cli.system.distributed.objects import on_every_rank
from crgan_cli.system.distributed.tensors import all_gather_rows
from crgan_cli.system.distributed.world import world

Draw = Callable[[int, int], Tensor]  # (start, n) -> images start .. start + n
Progress = Callable[[int, int], None]  # (images done, images in total)
Stop = Callable[[], None]  # called between two batches; raises to end an evaluation
FeatureKind = Literal["pool", "logits", "predicted", "steps", "images"]  # of an image
Classify = Callable[[Tensor], Tensor]  # (N, C, H, W) uint8, or float in [0, 255] -> (N,) int64
Side = Literal["real", "generated"]  # which images


class FeatureSet(NamedTuple):
    """The moments of N images, whose size does not grow with N, and the features required.

    Features that no metric needs are None.
    """

    moments: Moments
    pool: Tensor | None = None  # (N, dims) float32
    logits: Tensor | None = None  # (N, classes) float32
    y: Tensor | None = None  # (N,) int64 class ids of the data set; None without classes
    predicted: Tensor | None = None  # (N,) int64 class ids that a classifier sees in them
    # (N, dims) float32 each: the features before and after a small step of the latents
    steps: tuple[Tensor, Tensor] | None = None
    images: Tensor | None = None  # (N, C, H, W) uint8, or float32 in [0, 255], on the CPU

    def require_pool(self) -> Tensor:
        """Return `pool`, which must be there."""
        assert self.pool is not None, "a metric that needs the features has 'pool' in `required`"
        return self.pool

    def require_images(self) -> Tensor:
        """Return `images`, which must be there."""
        assert self.images is not None, "a metric of pixels has 'images' in `required`"
        return self.images


class ProgressParts:
    """One progress over several parts of some work, one after the other.

    A part that shows nothing, since its result is known, leaves the total again.
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        """`total` images are in all parts, as far as is known before."""
        self.progress, self.total = progress, total
        self.before = self.size = 0
        self.shown = False  # whether the part that is being done was

    def next(self, size: int) -> Progress | None:
        """Return the progress of the next part, of about `size` images."""
        self.end()
        self.size, self.shown = size, False
        return self._show if self.progress else None

    def _show(self, done: int, size: int) -> None:
        assert self.progress is not None, "`next` gives this only if there is one"
        self.total += size - self.size
        self.size, self.shown = size, True
        self.progress(self.before + done, self.total)

    def end(self) -> None:
        """End the part that is being done."""
        if self.shown:
            self.before += self.size
        elif self.size:
            self.total -= self.size
            if self.progress and self.before:
                self.progress(self.before, self.total)
        self.size = 0


def extract(
    extractor: Extractor,
    draw: Draw,
    count: int,
    batch_size: int,
    *,
    which: Side,
    required: Set[FeatureKind] = frozenset(),
    y: Tensor | None = None,
    classify: Classify | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> FeatureSet:
    """Extract the features of the `count` images that `draw` returns, batch by batch.

    The images are uint8, or float32 in [0, 255] if they are not to be rounded. Memory grows with
    `count` only for the features in `required`: 8 KB per image for Inception's pool, 4 KB for its
    logits, a byte per value of the "images" themselves (4 if not rounded). `classify` predicts
    classes, if "predicted" is required.

    Several processes take turns with the batches, and each gets what a single one would have got.
    All call `stop` equally often. Raises UserError or RunFailed for features that are not finite.
    """

    def look(start: int) -> dict[str, Tensor]:
        images = draw(start, min(batch_size, count - start))
        features = extractor(images)._asdict()
        if classify:
            features["predicted"] = classify(images).to(features["pool"].device)
        if "images" in required:
            features["images"] = images.cpu()
        return features

    moments = Moments(extractor.dims)
    # sorted: the order of a set differs from process to process
    batches: dict[FeatureKind, list[Tensor]] = {kind: [] for kind in sorted(required)}
    rank, size, _ = world()
    starts = list(range(0, count, batch_size))
    for batch in range(0, len(starts), size):
        if stop:
            stop()
        # if the number of batches is not a multiple of `size`, processes repeat the last one
        start = starts[min(batch + rank, len(starts) - 1)]
        features = on_every_rank(lambda start=start: look(start))
        used = min(size, len(starts) - batch)
        where = f" from number {starts[batch]} on, of {count}"
        pools = all_gather_rows(features["pool"])[:used]
        require_finite_features(pools, extractor, which, where)
        for pool in pools:
            moments.update(pool)
        for kind, parts in batches.items():
            rows = all_gather_rows(features[kind])[:used]
            require_finite_features(rows, extractor, which, where)
            parts += rows
        if progress:
            progress(min((batch + used) * batch_size, count), count)
    joined = {kind: torch.cat(parts) for kind, parts in batches.items()}
    return FeatureSet(
        moments,
        joined.get("pool"),
        joined.get("logits"),
        y,
        joined.get("predicted"),
        images=joined.get("images"),
    )


def require_finite_features(
    batches: Sequence[Tensor], extractor: Extractor, which: Side, where: str = ""
) -> None:
    """Raise an error unless all (N, dims) features, or logits, are finite. `where` they are.

    UserError for real images, with which the extractor does not go; RunFailed for generated ones.
    """
    if all(bool(rows.isfinite().all()) for rows in batches):
        return
    broken = sum(int((~rows.isfinite()).any(1).sum()) for rows in batches)
    raise (UserError if which == "real" else RunFailed)(
        f"The extractor {extractor.name} gives features or logits that are not finite numbers for "
        f"{broken} of {sum(map(len, batches))} {which} images{where}, so there is no score. Most "
        "often a TorchScript module in half precision (fp16, bf16) overflows: save it in float32 "
        "(net.float()), or choose another extractor=..."
    )


def require_finite_images(images: Tensor) -> None:
    """Raise RunFailed if generated images are not finite: as pixels they would be black."""
    if not images.isfinite().all():
        raise RunFailed(
            "The generator's images are not finite numbers: there is nothing to show or to score."
        )

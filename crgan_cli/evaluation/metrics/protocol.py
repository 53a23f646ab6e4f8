"""The rules by which a number was measured, and the names and records made from them.

CIFAR-10's FID against 10,000 test images and against 50,000 training images differ by several
points for the same model, so a number without its protocol means nothing.
"""

from typing import TYPE_CHECKING, NamedTuple

from crgan_cli.runs.metric_names import find_traits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crgan_cli.evaluation.metrics.base import Metric
    from crgan_cli.evaluation.metrics.extractors import Extractor
    from crgan_cli.evaluation.metrics.reference import PreparedReference


class Protocol(NamedTuple):
    """The choices that change the numbers. `conf/metrics` explains each."""

    reference: str  # the split of the real images
    num_real: int
    num_samples: int
    repeats: int
    rounding: str
    weights: str
    batch_norm: str
    truncation: float | None
    batch_size: int
    dropout: str = "off"

    def label(self, dataset: str) -> str:
        """Return a short name of all choices, so that different protocols have different names.

        `cifar10_10k_test_x3_unrounded`: the data set, the number of generated images, the split of
        the real ones, and everything that is not the default.
        """
        real = [] if self.num_real == self.num_samples else [f"of{format_count(self.num_real)}"]
        unusual = {
            f"x{self.repeats}": self.repeats > 1,
            "unrounded": self.rounding == "none",
            self.weights: self.weights != "auto",
            f"bn-{self.batch_norm}": self.batch_norm != "running",
            f"psi{self.truncation}": self.truncation is not None,
            "dropout": self.dropout == "on",
        }
        words = [word for word, applies in unusual.items() if applies]
        return "_".join([dataset, format_count(self.num_samples), self.reference, *real, *words])

    def metric_name(self, key: str, extractor: "Extractor") -> str:
        """Return a number's name in reports: fid, fd_EXTRACTOR_nCOUNT, or swd_nCOUNT.

        The names fid, is and kid belong to the standard Inception. A number that does not depend on
        the extractor is not named by it.
        """
        traits = find_traits(key)
        if not traits.of_features:
            return f"{key}_n{self.num_samples}" if traits.counted else key
        if extractor.standard:
            return key.replace("fd", "fid")
        return f"{key}_{extractor.name}_n{self.num_samples}"

    def record(self) -> dict[str, str | int | float]:
        """Return all choices as text and numbers."""
        rounding = {"uint8": "uint8, to nearest", "none": "none, float32"}[self.rounding]
        # the batch matters only if an image depends on the others in its batch
        batch = {} if self.batch_norm == "running" else {"batch_size": self.batch_size}
        return {
            "reference_split": self.reference,
            "num_real": self.num_real,
            "num_samples": self.num_samples,
            "repeats": self.repeats,
            "rounding": rounding,
            "weights": self.weights,
            "batch_norm": self.batch_norm,
            **batch,
            "truncation": "none" if self.truncation is None else self.truncation,
            **({"dropout": "on"} if self.dropout == "on" else {}),
        }


def format_count(count: int) -> str:
    """10000 -> 10k, 500 -> 500."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)


def describe_evaluation(
    protocol: Protocol,
    extractor: "Extractor",
    reference: "PreparedReference",
    metrics: "Iterable[Metric]",
    primary: str,
) -> dict[str, object]:
    """Return the full record of a protocol: all that is needed to compare the numbers."""
    own = {key: value for metric in metrics for key, value in metric.describe_own().items()}
    return {
        "protocol": protocol.label(reference.dataset),
        "headline": primary,
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "dataset": reference.dataset,
        "reference_sha256": reference.images_sha256,
        "floor_sha256": reference.floor_sha256,
        **protocol.record(),
        "resize": extractor.resize,
        "precision": f"{extractor.precision} features, float64 statistics",
        "measures": {k: value for metric in metrics for k, value in metric.describe().items()},
        **({"own_measures": own} if own else {}),
    }

"""By what rules a number was measured, and which numbers may stand beside each other.

CIFAR-10's FID against 10,000 test images and against 50,000 training images differ by several
points for the same model, so a number without its protocol means nothing.
"""

from typing import NamedTuple


class Protocol(NamedTuple):
    """The choices that change the numbers. `conf/metrics` says what each is."""

    reference: str  # the split of the real images
    num_real: int
    num_samples: int
    repeats: int
    rounding: str
    weights: str
    batch_norm: str
    truncation: float | None
    batch_size: int

    def label(self, dataset: str) -> str:
        """A short name made of the choices, so that it cannot name another protocol's numbers.

        `cifar10_10k_test_x3_unrounded`: the data set, the generated images, the split of the real
        ones, and what is out of the ordinary.
        """
        real = [] if self.num_real == self.num_samples else [f"of{format_count(self.num_real)}"]
        unusual = {
            f"x{self.repeats}": self.repeats > 1,
            "unrounded": self.rounding == "none",
            self.weights: self.weights != "auto",
            f"bn-{self.batch_norm}": self.batch_norm != "running",
            f"psi{self.truncation}": self.truncation is not None,
        }
        said = [word for word, so in unusual.items() if so]
        return "_".join([dataset, format_count(self.num_samples), self.reference, *real, *said])

    def record(self) -> dict[str, str | int | float]:
        """All choices in words."""
        rounding = {"uint8": "uint8, to nearest", "none": "none, float32"}[self.rounding]
        # the batch is part of the protocol only where images depend on the batch around them
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
        }


def format_count(count: int) -> str:
    """10000 -> 10k, 500 -> 500."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)

"""By what rules a number was measured, and which numbers may stand beside each other.

CIFAR-10's FID against 10,000 test images and against 50,000 training images differ by several
points for the same model, so a number without its protocol means nothing.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from crgan_cli.errors import UserError

Record = Mapping[str, object]
"""A protocol as it is written beside the numbers: `Protocol.record()` and what was found out."""

INFORMATION = (
    "protocol",
    "headline",
    "generator_weights",
    "precision",
    "floor_sha256",
    "measures",
)
"""Parts of a record in which comparable numbers may differ.

`protocol` is a name made of the others; `generator_weights` are what `weights` came to; TF32 moves
an FID by less than 0.02, and is said.
"""

UNKNOWN = "not known"
"""How images were drawn that another program made."""


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
        real = [] if self.num_real == self.num_samples else [f"of{short(self.num_real)}"]
        unusual = {
            f"x{self.repeats}": self.repeats > 1,
            "unrounded": self.rounding == "none",
            self.weights: self.weights != "auto",
            f"bn-{self.batch_norm}": self.batch_norm != "running",
            f"psi{self.truncation}": self.truncation is not None,
        }
        said = [word for word, so in unusual.items() if so]
        return "_".join([dataset, short(self.num_samples), self.reference, *real, *said])

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


def short(count: int) -> str:
    """10000 -> 10k, 500 -> 500."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)


def differences(a: Record, b: Record) -> list[str]:
    """Lines "key: of a, of b" of what keeps the numbers of two records from being compared."""
    lines = [
        f"{key}: {a.get(key, '(not recorded)')}, {b.get(key, '(not recorded)')}"
        for key in dict.fromkeys([*a, *b])
        if key not in INFORMATION and not agree(key, a.get(key), b.get(key))
    ]
    first, second = (settings(each) for each in (a, b))
    return lines + [
        f"{name}: {first[name]}, {second[name]}"
        for name in first.keys() & second.keys()
        if first[name] != second[name]
    ]


def agree(key: str, a: object, b: object) -> bool:
    """Whether two values of a part may stand beside each other."""
    if UNKNOWN in (a, b):
        return True
    if key == "weights" and "auto" in (a, b):  # the average, if a run keeps one: both are such runs
        return True
    return a == b


def settings(record: Record) -> dict[str, object]:
    """The settings of the measures in a record."""
    found = record.get("measures")
    return dict(found) if isinstance(found, Mapping) else {}


def require_comparable(records: Sequence[tuple[str, Record]], *, force: str) -> None:
    """Raises UserError where the numbers of two records, each with its name, are of two protocols.

    `force` is what to type to have them side by side all the same.
    """
    (first, one), *others = records
    for name, other in others:
        if found := differences(one, other):
            lines = "".join(f"\n  {line}" for line in found)
            raise UserError(
                f"the numbers of {first} and {name} were measured by different protocols:{lines}\n"
                "Evaluate both by one protocol (crgan eval RUN metrics=..., and for a report name "
                "that number, crgan report --metric NAME), or set them side by side all the same "
                f"with {force}."
            )

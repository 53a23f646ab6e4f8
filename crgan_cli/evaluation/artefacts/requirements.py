"""What the measurements need of their counts, checked before any image is read or drawn."""

import logging
from collections.abc import Collection, Mapping, Sequence

import torch

from crgan_cli.data.dataset import Dataset, Split
from crgan_cli.errors import UserError
from crgan_cli.evaluation.artefacts import diversity
from crgan_cli.evaluation.artefacts.inputs import require_available, require_count
from crgan_cli.evaluation.artefacts.leakage import require_generated, require_real
from crgan_cli.system.memory import require_memory

log = logging.getLogger(__name__)

COMPARED: dict[str, tuple[Split, ...]] = {
    "consistency": ("train", "test"),
    "diversity": ("test",),
    "memorisation": ("test",),
}
"""Measurement -> the splits of which it compares as many real images as generated ones."""


Counts = Mapping[Split, int]
"""Split -> its number of images, as far as that is known."""


def count_known(dataset: Dataset) -> Counts:
    """Return what is known of a data set before it is read."""
    splits: tuple[Split, ...] = ("train", "test")
    counts: dict[Split, int] = {}
    for split in splits:
        if (count := dataset.known_counts(split).get("real")) is not None:
            counts[split] = count
    return counts


def choose_measurable(names: Sequence[str], n: int, counts: Counts, *, named: bool) -> list[str]:
    """Return the measurements that are possible. Raises what `require_measurable` does.

    If nobody named them, leakage is left out, and this is said, if it has too few real images.
    """
    if not named and "leakage" in names:
        try:
            require_real(**counts)
        except UserError as error:
            log.warning("leakage is left out. %s", error)
            names = [name for name in names if name != "leakage"]
    require_measurable(names, n, counts)
    return list(names)


def require_measurable(names: Collection[str], n: int, counts: Counts) -> None:
    """Raise UserError if n images are too few for a measurement, or more than there are.

    One message names the most images that all of the measurements can take.
    """
    if "leakage" in names:
        require_generated(n)
        require_real(**counts)
    compared: dict[Split, str] = {split: name for name in names for split in COMPARED.get(name, ())}
    found: list[Split] = [split for split in compared if split in counts]
    least = diversity.TWO_PAIRS if "diversity" in names else 2
    if found:
        split = min(found, key=lambda split: counts[split])
        what = "training" if split == "train" else "held-out"
        if counts[split] < least:
            raise UserError(
                f"The {what} split has {counts[split]}, and {compared[split]} needs at least "
                f"{least}. Use a larger data set."
            )
        require_available(n, counts[split], what)
    if compared:
        require_count(n, 1, least)


def require_room(n: int, dataset: Dataset) -> None:
    """Raise UserError if n images are more than the memory holds."""
    pixels = n * dataset.channels * dataset.sides.pixels
    require_memory(f"--n {n}", {"images": pixels}, torch.device("cpu"), "Lower --n.")

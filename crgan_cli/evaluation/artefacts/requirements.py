"""What the measurements need of their counts, checked before any image is read or drawn."""

from collections.abc import Collection

import torch

from crgan_cli.data.dataset import Dataset, Split
from crgan_cli.evaluation.artefacts import diversity
from crgan_cli.evaluation.artefacts.inputs import require_available, require_count
from crgan_cli.evaluation.artefacts.leakage import require_generated, require_real
from crgan_cli.system.memory import require_memory

COMPARED: dict[str, tuple[Split, ...]] = {
    "consistency": ("train", "test"),
    "diversity": ("test",),
    "memorisation": ("test",),
}
"""Measurement -> the splits of which it compares as many real images as generated ones."""


def require_measurable(names: Collection[str], n: int, dataset: Dataset) -> None:
    """Raise UserError if n images are too few for a measurement, more than the data set is known to
    have, or more than the memory holds."""
    train, held_out = (dataset.known_counts(split).get("real") for split in ("train", "test"))
    for name in names:
        if name == "leakage":
            require_generated(n)
            if train is not None and held_out is not None:
                require_real(train, held_out)
        else:
            require_count(n, 1, least=diversity.TWO_PAIRS if name == "diversity" else 2)
        for split in COMPARED.get(name, ()):
            available = train if split == "train" else held_out
            if available is not None:
                require_available(n, available, "training" if split == "train" else "held-out")
    pixels = n * dataset.channels * dataset.sides.pixels
    require_memory(f"--n {n}", {"images": pixels}, torch.device("cpu"), "Lower --n.")

"""The sample grids of a report, one per row, for its page."""

import base64
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from crgan_cli.report.model import Report, RunFiles

MAX_BYTES = 16 * 2**20
"""Of all sample grids on one page. The best rows come first."""


class Grid(NamedTuple):
    """A sample grid with its caption."""

    base64: str  # of the PNG file
    label: str  # of its row
    origin: str  # seed and step


class SampleGrids(NamedTuple):
    """The grids of a page, and what a reader must know to compare them."""

    note: str
    grids: list[Grid]


def choose_runs(report: Report) -> list[RunFiles]:
    """Return one run per row, best row first.

    It is the run of the seed that most rows have, or else of the row's first seed, among the runs
    that the row's numbers are of if these have a grid. Rows without a grid are left out.
    """
    rows = [
        sorted(
            [run for run in row.shown if run.samples] or [run for run in row.runs if run.samples],
            key=seed_key,
        )
        for row in report.rows
    ]
    seeds = Counter(seed for row in rows for seed in {run.seed for run in row})
    most = min(seeds, key=lambda seed: (-seeds[seed], seed), default=0)
    return [next((run for run in row if run.seed == most), row[0]) for row in rows if row]


def seed_key(run: RunFiles) -> tuple[int, str]:
    """Return a sorting key that does not depend on the order of the folders."""
    return run.seed, str(run.path)


def describe_latents(runs: Sequence[RunFiles]) -> str:
    """Return a sentence on whether the grids of these runs show the same latents."""
    keys = ("architecture.prior", "architecture.z_dim", "samples.num")
    if len({tuple(run.config.get(key) for key in keys) for run in runs}) > 1:
        return "Their latents differ, since their priors or their numbers of images differ."
    if len({run.seed for run in runs}) > 1:
        return "Grids of the same seed show the same latents: the same place, the same z."
    return "All show the same latents: the same place, the same z."


def load_grids(report: Report) -> SampleGrids | None:
    """Read the newest sample grid of one run per row. Return None if there is none."""
    runs = choose_runs(report)
    labels = {run.path: row.label for row in report.rows for run in row.runs}
    grids, bytes_left = [], MAX_BYTES
    for run in runs:
        assert run.samples is not None, "`choose_runs` leaves out runs without a grid"
        try:
            png = run.samples.read_bytes()
        except OSError:  # removed since the folder was read
            continue
        if len(png) > bytes_left:
            break
        bytes_left -= len(png)
        step = run.samples.stem.removeprefix("step_").lstrip("0") or "0"
        image = base64.b64encode(png).decode()
        grids.append(Grid(image, labels[run.path], f"seed {run.seed}, step {step}"))
    if not grids:
        return None
    note = describe_latents(runs)
    if len(grids) < len(runs):
        note += f" {len(grids)} of {len(runs)} fit on the page."
    return SampleGrids(note, grids)

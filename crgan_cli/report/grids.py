"""Sample grids of a report beside each other, inside the page."""

import base64
from collections import Counter
from collections.abc import Sequence

from crgan_cli.report.markup import Markup, tag
from crgan_cli.report.model import Report, RunFiles

MOST_BYTES = 16 * 2**20
"""Of sample grids on one page; the best rows come first."""


def choose_runs(report: Report) -> list[RunFiles]:
    """One run a row, best row first: of the seed that most rows have, or else of their first."""
    rows = [sorted((r for r in row.runs if r.samples), key=seed_key) for row in report.rows]
    seeds = Counter(seed for row in rows for seed in {run.seed for run in row})
    most = min(seeds, key=lambda seed: (-seeds[seed], seed), default=0)
    return [next((run for run in row if run.seed == most), row[0]) for row in rows if row]


def seed_key(run: RunFiles) -> tuple[int, str]:
    """An order of runs that does not depend on how they were found."""
    return run.seed, str(run.path)


def describe_latents(chosen: Sequence[RunFiles]) -> str:
    """Whether the grids of runs show the same codes, in words."""
    keys = ("architecture.prior", "architecture.z_dim", "samples.num")
    if len({tuple(run.config.get(key) for key in keys) for run in chosen}) > 1:
        return "Their codes differ, since their priors or their numbers of images do."
    if len({run.seed for run in chosen}) > 1:
        return "Those of the same seed are made of the same codes: the same place, the same z."
    return "All are made of the same codes: the same place shows the same z."


def samples(report: Report) -> list[Markup]:
    """The newest sample grid of a run of every row."""
    chosen = choose_runs(report)
    labels = {run.path: row.label for row in report.rows for run in row.runs}
    cards, room = [], MOST_BYTES
    for run in chosen:
        assert run.samples is not None, "`choose_runs` leaves out runs without a grid"
        try:
            png = run.samples.read_bytes()
        except OSError:  # removed since the folder was read
            continue
        if len(png) > room:
            break
        room -= len(png)
        cards.append(card(png, labels[run.path], run))
    if not cards:
        return []
    text = f"Each row's newest grid of generated images, best row first. {describe_latents(chosen)}"
    text += f" {len(cards)} of {len(chosen)} fit on the page." if len(cards) < len(chosen) else ""
    return [tag("p", text), tag("div", *cards, class_="samples")]


def card(png: bytes, label: str, run: RunFiles) -> Markup:
    """One grid with its name."""
    step = run.samples.stem.removeprefix("step_").lstrip("0") or "0" if run.samples else ""
    said = f"seed {run.seed}, step {step}"
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return tag(
        "figure",
        tag("img", src=source, alt=f"Grid of generated images: {label}, {said}"),
        tag("figcaption", tag("code", label), f" – {said}"),
    )

"""The results of `crgan artefacts`, per quantity and row."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from crgan_cli.report.model import Report, RunFiles
from crgan_cli.system.paths import shell_quoted

OWN_STRENGTHS = {
    "cutout": "augment.size",
    "shift": "augment.shift",
    "noise": "augment.std",
    "rotation": "augment.degrees",
}
"""Kind of T -> the setting that is its strength."""


def usual_strengths(side: int) -> dict[str, float]:
    """Return at which strengths D's consistency is told, on images of `side` pixels: kinds of T,
    and noise on z."""
    return {"cutout": side / 2, "shift": side / 8, "noise": 0.1, "rotation": 10.0, "latent": 0.1}


class Interval(NamedTuple):
    """The number of one run with its 95 % interval."""

    value: float
    low: float
    high: float


class Quantity(NamedTuple):
    """What was measured. Runs with the same quantity can be compared."""

    measurement: str
    name: str  # "cutout (size=16)"
    unit: str
    reference: str  # what the reference value stands for; "" without one
    min_span: float = 0.0  # of its axis: smaller differences mean nothing


class RunValue(NamedTuple):
    """The value of a quantity in one run."""

    estimate: Interval
    reference: float | None


class QuantityByRow(NamedTuple):
    """A quantity in all rows."""

    quantity: Quantity
    reference: float | None  # mean over all runs
    rows: tuple[tuple[Interval, ...], ...]  # per row of the report, per run that measured it


Values = Iterator[tuple[Quantity, RunValue]]


def read_quantities(report: Report) -> tuple[list[QuantityByRow], list[str]]:
    """Return all measured quantities, and one warning per record that cannot be read."""
    values: dict[Quantity, list[list[RunValue]]] = {}
    unreadable = []
    for i, row in enumerate(report.rows):
        for run in row.shown:
            for measurement, read in READERS.items():
                if measurement not in run.artefacts:
                    continue
                try:
                    found = list(read(run))
                except (LookupError, TypeError, ValueError, AttributeError) as error:
                    unreadable.append(
                        f"The {measurement} of {run.path} cannot be read ({error!r}): measure it "
                        f"again with crgan artefacts {shell_quoted(run.path)} {measurement}."
                    )
                    continue
                for quantity, value in found:
                    values.setdefault(quantity, [[] for _ in report.rows])[i].append(value)
    order = list(READERS)
    quantities = sorted(values, key=lambda quantity: order.index(quantity.measurement))
    return [group_by_row(quantity, values[quantity]) for quantity in quantities], unreadable


def group_by_row(quantity: Quantity, rows: Sequence[Sequence[RunValue]]) -> QuantityByRow:
    """Return a quantity with its values in all rows."""
    references = [each.reference for row in rows for each in row if each.reference is not None]
    return QuantityByRow(
        quantity,
        fmean(references) if references else None,
        tuple(tuple(each.estimate for each in row) for row in rows),
    )


def read_leakage(run: RunFiles) -> Values:
    """Yield the share of generated images that look augmented, per T that could be measured."""
    for name, body in run.artefacts["leakage"]["transforms"].items():
        if body["generated"] is None or body["floor"] is None:
            continue  # the detector could not tell T(real) from real: there is no share
        settings = {k: v for k, v in body["transform"].items() if k != "T"}
        text = ", ".join(f"{key}={value}" for key, value in settings.items())
        percent = Interval(
            *(100 * float(body["generated"][key]) for key in ("share", "low", "high"))
        )
        yield (
            Quantity(
                "leakage",
                f"{name} ({text})" if text else name,
                "% of generated images look augmented",
                "held-out real images",
                min_span=10.0,
            ),
            RunValue(percent, 100 * float(body["floor"]["share"])),
        )


def read_consistency(run: RunFiles) -> Values:
    """Yield how far D's score moves: under the run's own T at its strength, and at the usual ones
    under a cutout, which shows whether D ignores a T that it never saw, and noise on z."""
    curves = run.artefacts["consistency"]["curves"]
    # of [HEIGHT,WIDTH], which is text here, the shorter one
    sides = re.findall(r"\d+", str(run.config.get("dataset.resolution")))
    usual = usual_strengths(min(map(int, sides))) if sides else {}
    own = {
        family: float(strength)
        for family, key in OWN_STRENGTHS.items()
        if isinstance(strength := run.config.get(key), int | float)
    }
    shown = dict.fromkeys((*own, "cutout", "latent"))
    usual |= own
    measured = usual.keys() & curves.keys()
    for family in [each for each in shown if each in measured]:
        for source, curve in sorted(curves[family].items()):
            if source == "train" or curve.get("relative") is None:  # D gives all images one score
                continue
            strengths = list(map(float, curve["strength"]))
            place = min(range(len(strengths)), key=lambda i: abs(strengths[i] - usual[family]))
            mean, se = (float(curve[key][place]) for key in ("relative", "relative_se"))
            quantity = Quantity(
                "consistency",
                f"{family} {strengths[place]:g}, {source.replace('_', '-')} images",
                "E (D(x) - D(T(x)))² / (2 Var D)",
                "",
            )
            yield quantity, RunValue(Interval(mean, max(mean - 2 * se, 0.0), mean + 2 * se), None)


def read_diversity(run: RunFiles) -> Values:
    """Yield how far apart generated images are, relative to real ones."""
    for space, pair in run.artefacts["diversity"]["pairs"].items():
        if not (ratio := pair["ratio"]):
            continue
        mean, se = map(float, ratio)
        quantity = Quantity(
            "diversity",
            space,
            "distance of pairs, generated relative to real",
            "as far apart as real images",
        )
        yield quantity, RunValue(Interval(mean, mean - 2 * se, mean + 2 * se), 1.0)


def read_memorisation(run: RunFiles) -> Values:
    """Yield whether generated images are nearer to the training set than new images."""
    for space, body in run.artefacts["memorisation"]["spaces"].items():
        quantity = Quantity(
            "memorisation",
            space,
            "P(nearer to the training set than a held-out image)",
            "no nearer than new images",
        )
        yield quantity, RunValue(Interval(*map(float, body["auc"])), 0.5)


READERS: Mapping[str, Callable[[RunFiles], Values]] = {
    "leakage": read_leakage,
    "consistency": read_consistency,
    "diversity": read_diversity,
    "memorisation": read_memorisation,
}
"""By the measurement's name, in the order of the report."""

"""What the artefact measurements of runs (`crgan artefacts`) came to, row by row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from crgan_cli.report.model import Report, RunFiles

USUAL_LATENT = 0.1
"""Sigma of the noise on z at which the consistency of D in the latent is told."""


class Estimate(NamedTuple):
    """One run's number with its 95 % interval."""

    value: float
    low: float
    high: float


class Quantity(NamedTuple):
    """What was measured; two runs that were asked the same can be compared."""

    measurement: str
    name: str  # "cutout (size=16)"
    unit: str
    reference: str  # what the reference number is of; "" without one
    least: float = 0.0  # that an axis spans: smaller differences mean nothing


class RunValue(NamedTuple):
    """What one run says to a question."""

    estimate: Estimate
    reference: float | None


class QuantityByRow(NamedTuple):
    """One question, and the answers of all rows."""

    quantity: Quantity
    reference: float | None  # mean over all runs
    rows: tuple[tuple[Estimate, ...], ...]  # one a row of the report, one a run that was measured


def read_quantities(report: Report) -> tuple[list[QuantityByRow], list[str]]:
    """All questions that some run answers, and what could not be read, in words."""
    asked: dict[Quantity, list[list[RunValue]]] = {}
    unread = []
    for number, row in enumerate(report.rows):
        for run in row.runs:
            for measurement, read in READERS.items():
                try:
                    answers = list(read(run)) if measurement in run.artefacts else []
                except (LookupError, TypeError, ValueError) as error:
                    unread.append(
                        f"The {measurement} of {run.path} cannot be read ({error!r}): measure it "
                        f"again with crgan artefacts {run.path} {measurement}."
                    )
                    continue
                for question, answer in answers:
                    asked.setdefault(question, [[] for _ in report.rows])[number].append(answer)
    order = list(READERS)
    found = [group_by_row(question, rows) for question, rows in asked.items()]
    return sorted(found, key=lambda each: order.index(each.quantity.measurement)), unread


def group_by_row(question: Quantity, rows: Sequence[Sequence[RunValue]]) -> QuantityByRow:
    """The answers of all rows to one question."""
    references = [a.reference for row in rows for a in row if a.reference is not None]
    return QuantityByRow(
        question,
        sum(references) / len(references) if references else None,
        tuple(tuple(answer.estimate for answer in row) for row in rows),
    )


Values = Iterator[tuple[Quantity, RunValue]]


def get_path(record: object, *keys: str | int) -> object:
    """The entry at a path. Raises LookupError where there is none."""
    for key in keys:
        match record, key:
            case Mapping(), str():
                record = record[key]
            case Sequence(), int():
                record = record[key]
            case _:
                raise LookupError(key)
    return record


def get_mapping(record: object, *keys: str | int) -> Mapping[str, object]:
    """The mapping at a path."""
    found = get_path(record, *keys)
    if not isinstance(found, Mapping):
        raise LookupError(keys[-1])
    return found


def get_number(record: object, *keys: str | int) -> float:
    """The number at a path."""
    found = get_path(record, *keys)
    if not isinstance(found, int | float):
        raise LookupError(keys[-1])
    return float(found)


def get_numbers(record: object, *keys: str | int) -> list[float]:
    """The list of numbers at a path."""
    found = get_path(record, *keys)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise LookupError(keys[-1])
    return [get_number(found, i) for i in range(len(found))]


def read_leakage(run: RunFiles) -> Values:
    """The share of generated images that look augmented, for every T that could be read."""
    for name, body in get_mapping(run.artefacts["leakage"], "transforms").items():
        if get_path(body, "generated") is None or get_path(body, "floor") is None:
            continue  # the detector could not tell T(real) from real: there is no share
        made = {k: v for k, v in get_mapping(body, "transform").items() if k != "T"}
        said = ", ".join(f"{key}={value}" for key, value in made.items())
        share, low, high = (
            100 * get_number(body, "generated", key) for key in ("share", "low", "high")
        )
        yield (
            Quantity(
                "leakage",
                f"{name} ({said})" if said else name,
                "% of generated images look augmented",
                "held-out real images",
                least=10.0,
            ),
            RunValue(Estimate(share, low, high), 100 * get_number(body, "floor", "share")),
        )


def read_consistency(run: RunFiles) -> Values:
    """How far D moves, for the strengths that are usual."""
    record = run.artefacts["consistency"]
    side = run.config.get("dataset.resolution")
    usual = {"latent": USUAL_LATENT} | (
        {"cutout": side / 2} if isinstance(side, int | float) else {}
    )
    for family in sorted(usual.keys() & get_mapping(record, "curves").keys()):
        for source, curve in sorted(get_mapping(record, "curves", family).items()):
            if source == "train" or "relative" not in get_mapping(curve):
                continue
            at = get_numbers(curve, "strength")
            place = min(range(len(at)), key=lambda i: abs(at[i] - usual[family]))
            mean, se = (get_number(curve, key, place) for key in ("relative", "relative_se"))
            question = Quantity(
                "consistency",
                f"{family} {at[place]:g}, {source.replace('_', '-')} images",
                "E (D(x) - D(T(x)))² / (2 Var D)",
                "",
            )
            yield (
                question,
                RunValue(Estimate(mean, max(mean - 2 * se, 0.0), mean + 2 * se), None),
            )


def read_diversity(run: RunFiles) -> Values:
    """How far apart generated images lie, relative to real ones."""
    for space, pair in get_mapping(run.artefacts["diversity"], "pairs").items():
        if not (ratio := get_mapping(pair)["ratio"]):
            continue
        mean, se = get_numbers(ratio)
        question = Quantity(
            "diversity",
            space,
            "distance of pairs, generated relative to real",
            "as far apart as real images",
        )
        yield question, RunValue(Estimate(mean, mean - 2 * se, mean + 2 * se), 1.0)


def read_memorisation(run: RunFiles) -> Values:
    """Whether generated images are nearer to the training set than new images are."""
    for space, body in get_mapping(run.artefacts["memorisation"], "spaces").items():
        question = Quantity(
            "memorisation",
            space,
            "P(nearer to the training set than a held-out image)",
            "no nearer than new images",
        )
        yield question, RunValue(Estimate(*get_numbers(body, "auc")), 0.5)


READERS: Mapping[str, Callable[[RunFiles], Values]] = {
    "leakage": read_leakage,
    "consistency": read_consistency,
    "diversity": read_diversity,
    "memorisation": read_memorisation,
}
"""By the measurement's name, in the order in which they are shown."""

"""The protocol of a number, as recorded, and which numbers may be compared."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from crgan_cli.errors import UserError

Record = Mapping[str, object]
"""A protocol as written next to the numbers; `describe_evaluation` makes it."""

INFORMATION = (
    "protocol",
    "headline",
    "generator_weights",
    "generator_side",
    "precision",
    "floor_sha256",
    "measures",
    "own_measures",
)
"""Parts of a record in which comparable numbers may differ.

`protocol` is a name built from the others. `generator_weights` is the result of `weights`: with
`auto`, the EMA of a run that has one is compared with the weights of a run that has none, as each
would be used.
`generator_side` is there for networks that had not grown up: their images were doubled. TF32
changes an FID by less than 0.02 and is recorded as `precision`.
"""

UNKNOWN = "not known"
"""How images of another program were drawn."""


def describe_generator(weights: str, side: str) -> dict[str, str]:
    """Return what a record tells of a generator: its weights, and its side if it has one."""
    return {"generator_weights": weights, **({"generator_side": side} if side else {})}


def differences(a: Record, b: Record) -> list[str]:
    """Return lines "key: of a, of b" for all that makes the numbers of two records incomparable."""
    a, b = resolve_weights(a, b), resolve_weights(b, a)
    lines = [
        f"{key}: {a.get(key, '(not recorded)')}, {b.get(key, '(not recorded)')}"
        for key in dict.fromkeys([*a, *b])
        if key not in INFORMATION and not values_agree(key, a.get(key), b.get(key))
    ]
    first, second = (measure_settings(each) for each in (a, b))
    return lines + [
        f"{name}: {first[name]}, {second[name]}"
        for name in first.keys() & second.keys()
        if first[name] != second[name]
    ]


def values_agree(key: str, a: object, b: object) -> bool:
    """Return whether numbers with these two values of a part can be compared."""
    if UNKNOWN in (a, b):
        return True
    if key == "batch_size" and None in (a, b):
        return True  # it has no effect in one of them: another batch_norm, or a translation
    return a == b


def resolve_weights(record: Record, other: Record) -> Record:
    """Return a record with the weights that `auto` was, if the other one names its own."""
    if record.get("weights") != "auto" or other.get("weights") == "auto":
        return record
    return {**record, "weights": record.get("generator_weights", UNKNOWN)}


def measure_settings(record: Record) -> dict[str, object]:
    """Return the settings of the metrics in a record."""
    settings = record.get("measures")
    return dict(settings) if isinstance(settings, Mapping) else {}


def require_comparable(records: Sequence[tuple[str, Record]], *, force: str) -> None:
    """Raise UserError if two records, each with its name, have different protocols.

    `force` is the option with which a user can compare them anyway.
    """
    unique: dict[str, tuple[str, Record]] = {}
    for name, record in records:
        unique.setdefault(repr(record), (name, record))
    # each with each: auto may go with ema and with raw, which do not go together
    for (first, expected), (name, record) in combinations(unique.values(), 2):
        if different := differences(expected, record):
            lines = "".join(f"\n  {line}" for line in different)
            raise UserError(
                f"the numbers of {first} and {name} were measured by different protocols:{lines}\n"
                "Evaluate both by one protocol (crgan eval RUN metrics=..., and for a report name "
                f"the metric: crgan report --metric NAME), or compare them anyway with {force}."
            )

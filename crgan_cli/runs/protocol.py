"""What a number was measured by, as it is recorded, and which numbers may be compared."""

from collections.abc import Mapping, Sequence

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


def differences(a: Record, b: Record) -> list[str]:
    """Lines "key: of a, of b" of what keeps the numbers of two records from being compared."""
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
    """Whether two values of a part may stand beside each other."""
    if UNKNOWN in (a, b):
        return True
    if key == "weights" and "auto" in (a, b):  # the average, if a run keeps one: both are such runs
        return True
    return a == b


def measure_settings(record: Record) -> dict[str, object]:
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

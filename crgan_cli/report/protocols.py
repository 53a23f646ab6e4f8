"""The protocols by which the runs of a report were measured."""

from collections.abc import Sequence

from crgan_cli.errors import UserError
from crgan_cli.report.model import RunFiles
from crgan_cli.report.settings import Settings
from crgan_cli.runs.protocol import Record, differences, require_comparable

SAME_NUMBERS = ("metrics.every", "metrics.floor", "metrics.batch_size", "metrics.reference_file")
"""Keys of a protocol that do not change its numbers."""


NOT_COMPARABLE = "NOT COMPARABLE"
"""Begins the warning that protocols differ."""


def protocol_warning(runs: Sequence[RunFiles], *, force: bool) -> list[str]:
    """Return the warning that protocols differ, if they do. Raises UserError unless `force`.

    Runs that have not ended have no record of their protocol: their configurations are compared.
    """
    measured = [run for run in runs if run.evals]
    recorded = [run for run in measured if run.protocol]
    configured = [*recorded[:1], *(run for run in measured if not run.protocol)]
    try:
        for records in (
            [(str(run.path), run.protocol) for run in recorded],
            [(str(run.path), requested_protocol(run.config)) for run in configured],
        ):
            if records:
                require_comparable(records, force="--force")
    except UserError as error:
        if not force:
            raise
        first = str(error).partition("\nEvaluate")[0]
        return [f"{NOT_COMPARABLE}: {first}"]
    return []


def requested_protocol(config: Settings) -> Record:
    """Return the settings of a configuration that belong to the protocol."""
    return {
        key: value
        for key, value in config.items()
        if key.startswith(("metrics.", "extractor.", "dataset._target_"))
        and key not in SAME_NUMBERS
    }


def unique_protocols(records: Sequence[Record]) -> tuple[Record, ...]:
    """Return one record per protocol."""
    unique: list[Record] = []
    for record in records:
        if all(differences(record, other) for other in unique):
            unique.append(record)
    return tuple(unique)

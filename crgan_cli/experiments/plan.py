"""Plan the jobs that reproduce a table: one per row and seed."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crgan_cli.config import compose, resolve
from crgan_cli.config.choices import Choices
from crgan_cli.config.messages import hydra_quoted, quote_overrides
from crgan_cli.config.resolve import Settings
from crgan_cli.errors import UserError
from crgan_cli.experiments.paper_tables import PaperRow, PaperTable, Scale
from crgan_cli.system.paths import shell_joined

RESERVED = {
    "out": "give --out FOLDER",
    "seed": "give --seeds 1,2,3",
    "experiment": "each row is an experiment; train another with crgan train experiment=...",
    "resume": "a table is always resumed; give another --out to start again",
}
"""Settings that a table sets itself -> what to type instead."""


class TableJob(NamedTuple):
    """One row with one seed."""

    row: PaperRow
    seed: int
    folder: Path
    overrides: tuple[str, ...]  # without seed and folder
    config: Settings  # complete and checked

    @property
    def argv(self) -> list[str]:
        """The words of the command line after `crgan`."""
        return [
            "train",
            *self.overrides,
            f"seed={self.seed}",
            f"out={hydra_quoted(str(self.folder))}",
        ]

    @property
    def command(self) -> str:
        """The command that trains this run alone."""
        return shell_joined(["crgan", *self.argv])


def plan_jobs(
    table: PaperTable, scale: Scale, seeds: Sequence[int], typed: Sequence[str], out: Path
) -> list[TableJob]:
    """Return all jobs, seed by seed, so that the table of the first seed is complete first.

    Raises UserError if a row cannot be trained with these settings.
    """
    require_own_folder(out, table)
    require_not_reserved(typed)
    typed = quote_overrides(typed)
    scale = choose_scale(table, scale)
    require_methods_kept(table, scale, typed)
    settings = {row.name: compose_row(row, job_overrides(row, scale, typed)) for row in table.rows}
    return [
        TableJob(
            row,
            seed,
            out / f"{row.name}_s{seed}",
            job_overrides(row, scale, typed),
            {**settings[row.name], "seed": seed},
        )
        for seed in seeds
        for row in table.rows
    ]


def choose_scale(table: PaperTable, scale: Scale) -> Scale:
    """Return the scale, with the table's own overrides if it has some for it."""
    if scale.name not in table.scales:
        return scale
    return scale._replace(overrides=table.scales[scale.name], architectures={})


def require_own_folder(out: Path, table: PaperTable) -> None:
    """Raise UserError if the folder holds anything but runs of this table."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder, which is made if it is not there.")
    there = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if there and not find_seeds(out, table):
        raise UserError(
            f"the folder {out} holds other things ({', '.join(there[:3])}) and no run of the table "
            f"{table.name}. Choose another with --out FOLDER, or leave it out."
        )


def find_seeds(out: Path, table: PaperTable) -> set[int]:
    """Return the seeds of the table's runs in the folder; none if there is no such folder."""
    ours = re.compile(rf"(?:{'|'.join(re.escape(row.name) for row in table.rows)})_s(\d+)")
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    return {int(found[1]) for name in names if (found := ours.fullmatch(name))}


def require_not_reserved(typed: Sequence[str]) -> None:
    """Raise UserError for a setting that the table sets itself."""
    for word in typed:
        key = word.partition("=")[0].lstrip("+~")
        if key in RESERVED or key.startswith("hydra."):
            reason = RESERVED.get(key, "the runs of a table are not started by Hydra")
            raise UserError(f"'{word}': a table sets this for each of its runs: {reason}.")


def require_methods_kept(table: PaperTable, scale: Scale, typed: Sequence[str]) -> None:
    """Raise UserError for a choice in which the rows differ: one would bear another's name."""
    words = {word.partition("=")[0].lstrip("+").partition("._target_")[0]: word for word in typed}
    groups = words.keys() & Choices().groups.keys()
    if not groups:
        return
    first, *others = table.rows
    ours = compose_row(first, job_overrides(first, scale, ()))
    for row in others:
        theirs = compose_row(row, job_overrides(row, scale, ()))
        for group in sorted(groups):
            if ours[group].get("_target_") != theirs[group].get("_target_"):
                word = words[group]
                alone = ["crgan", "train", f"experiment={row.experiment}", word]
                raise UserError(
                    f"'{word}': the rows of the table {table.name} differ in {group}, such as "
                    f"{first.name} and {row.name}, and would all be trained with this one under "
                    "their own names. Leave it out, or train a run outside of the table: "
                    f"{shell_joined(alone)}"
                )


def job_overrides(row: PaperRow, scale: Scale, typed: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of the row, the scale and the user. The last one of a key counts."""
    nets = [more for net, more in scale.architectures.items() if row.experiment.endswith(f"_{net}")]
    words = [
        f"experiment={row.experiment}",
        *row.overrides,
        *scale.overrides,
        *(word for more in nets for word in more),
        *typed,
    ]
    return tuple({word.partition("=")[0]: word for word in words}.values())


def compose_row(row: PaperRow, overrides: Sequence[str]) -> Settings:
    """Compose the configuration of a row. A UserError names the row."""
    try:
        return resolve.to_plain(compose.compose(overrides))
    except UserError as error:
        raise UserError(f"{error} (in the row {row.name})") from error

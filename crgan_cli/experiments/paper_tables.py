"""Read the tables of the papers and the scales from YAML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from crgan_cli.errors import UserError, unknown_name
from crgan_cli.system.paths import shell_joined

TABLES = Path(__file__).parent / "tables"


class PaperRow(NamedTuple):
    """One row of a table."""

    name: str  # begins the names of its runs' folders
    label: str  # the paper's name for it
    experiment: str
    overrides: tuple[str, ...]
    cpu_minutes: float | None = None  # at the full scale, on one thread; None for a GPU


class PaperTable(NamedTuple):
    """A table of a paper."""

    name: str
    title: str
    protocol: str  # of the published numbers
    rows: tuple[PaperRow, ...]
    scales: Mapping[str, tuple[str, ...]]  # scale -> overrides in place of the scale's own
    mixed: bool  # whether its rows have different protocols, so that not all can be compared
    note: str = ""  # what to know before its runs are started at the full scale


class Scale(NamedTuple):
    """The size at which a table is trained."""

    name: str
    title: str  # added to the report's title; empty for the published size
    seeds: tuple[int, ...]  # default seeds
    overrides: tuple[str, ...]
    architectures: Mapping[str, tuple[str, ...]]  # end of an experiment's name -> more overrides
    cpu_minutes: float | None  # per run, on one thread; None for a GPU


def table_names() -> list[str]:
    """Return the names of the available tables."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def scale_names() -> list[str]:
    """Return the names of the available scales."""
    return sorted(path.stem for path in (TABLES / "scale").glob("*.yaml"))


def load_table(name: str) -> PaperTable:
    """Read a table. Raises UserError for an unknown name."""
    if name not in table_names():
        raise UserError(unknown_name("table", name, table_names()))
    content = read_yaml(TABLES / f"{name}.yaml")
    rows = tuple(parse_row(each) for each in content["rows"])
    scales = {scale: tuple(each) for scale, each in content.get("scales", {}).items()}
    mixed, note = bool(content.get("mixed", False)), content.get("note", "")
    return PaperTable(name, content["title"], content["protocol"], rows, scales, mixed, note)


def choose_row_names(table: PaperTable, names: Sequence[str]) -> set[str]:
    """Return the named rows, or all if none is named. Raises UserError for an unknown name."""
    known = [row.name for row in table.rows]
    for name in names:
        if name not in known:
            raise UserError(unknown_name("row", name, known, where=f"the table {table.name}"))
    return set(names or known)


def parse_row(content: dict) -> PaperRow:
    """Build a row. Its published number is that of its experiment, unless it has its own.

    `published: null` means that the papers give none.
    """
    from crgan_cli.config.messages import hydra_quoted

    overrides = tuple(content.get("overrides", ()))
    if "published" in content:
        values = dict.fromkeys(("fid", "source", "settings", "protocol"), "null")
        if published := content["published"]:
            values = {
                "fid": published["fid"],
                "source": hydra_quoted(published["source"]),
                "settings": hydra_quoted(shell_joined(overrides)),
            }
        overrides += tuple(f"published.{key}={value}" for key, value in values.items())
    minutes = content.get("cpu_minutes")
    return PaperRow(content["name"], content["label"], content["experiment"], overrides, minutes)


def load_scale(name: str) -> Scale:
    """Read a scale."""
    content = read_yaml(TABLES / "scale" / f"{name}.yaml")
    more = {net: tuple(each) for net, each in content.get("architectures", {}).items()}
    return Scale(
        name,
        content["title"],
        tuple(content["seeds"]),
        tuple(content["overrides"]),
        more,
        content.get("cpu_minutes"),
    )


def read_yaml(path: Path) -> dict:
    """Read one of our YAML files."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))

"""The papers' tables as YAML: rows and scales."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from crgan_cli.errors import UserError, unknown_name

TABLES = Path(__file__).parent / "tables"


class PaperRow(NamedTuple):
    """One row of a table."""

    name: str  # of its runs' folders
    label: str  # as the paper calls it
    experiment: str
    overrides: tuple[str, ...]


class PaperTable(NamedTuple):
    """A table of a paper."""

    name: str
    title: str
    protocol: str  # of the published numbers
    rows: tuple[PaperRow, ...]


class Scale(NamedTuple):
    """At what size a table is run."""

    name: str
    title: str  # added to the report's; empty for the published size
    seeds: tuple[int, ...]  # where none are typed
    overrides: tuple[str, ...]
    architectures: Mapping[str, tuple[str, ...]]  # how an experiment's name ends -> more of them
    cpu_minutes: float | None  # a run, on one thread; None where a GPU is meant


# --- reading --------------------------------------------------------------------------------------


def table_names() -> list[str]:
    """The tables that there are."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def scale_names() -> list[str]:
    """The scales that there are."""
    return sorted(path.stem for path in (TABLES / "scale").glob("*.yaml"))


def load_table(name: str) -> PaperTable:
    """A table by its name. Raises UserError where there is none of it."""
    if name not in table_names():
        raise UserError(unknown_name("table", name, table_names()))
    content = read_yaml(TABLES / f"{name}.yaml")
    rows = tuple(parse_row(each) for each in content["rows"])
    return PaperTable(name, content["title"], content["protocol"], rows)


def parse_row(content: dict) -> PaperRow:
    """A row. Its published number is its experiment's, but where it names one of its own."""
    from crgan_cli.config.messages import hydra_quoted

    overrides = tuple(content.get("overrides", ()))
    if published := content.get("published"):
        source = hydra_quoted(published["source"])
        overrides += (f"published.fid={published['fid']}", f"published.source={source}")
    return PaperRow(content["name"], content["label"], content["experiment"], overrides)


def load_scale(name: str) -> Scale:
    """A scale by its name."""
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
    """A file of ours."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))

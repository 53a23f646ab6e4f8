"""Print a report and write its files."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from crgan_cli.report.model import Report

FORMATS = ("md", "csv", "tex", "html", "png")

FIGURE_KINDS = ("pdf", "svg", "png")
"""Of figures for a paper."""


def print_report(report: "Report") -> None:
    """Print the table: on a terminal with wrapped cells, else as text."""
    from crgan_cli.report import tables

    if not sys.stdout.isatty():
        print(tables.to_aligned_text(report))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(report.title), title_justify="left", box=SIMPLE_HEAD)
    columns = tables.build_columns(report)
    for column in columns:
        side = "right" if column.numeric else "left"
        table.add_column(escape(column.title), justify=side, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(escape, cells))
    console = Console()
    console.print(table)
    for remark in tables.list_remarks(report):
        console.print(remark, markup=False, highlight=False)


def make_report_folder(folder: Path, option: str = "--out") -> Path:
    """Create the folder of an option if it is absent, and return it. Raises UserError."""
    from crgan_cli.errors import UserError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be created ({error.strerror}). Choose another with "
            f"{option} FOLDER."
        ) from None
    return folder


def write_report(report: "Report", out: Path, formats: tuple[str, ...]) -> list[Path]:
    """Write the files and return their paths. Raises RunFailed if they cannot be written."""
    from crgan_cli.report import latex, tables
    from crgan_cli.system.atomic import explain_write_failure, write_text

    texts: dict[str, dict[str, Callable[[Report], str]]] = {
        "md": {"report.md": tables.to_markdown},
        "csv": {"runs.csv": tables.runs_to_csv, "rows.csv": tables.rows_to_csv},
        "tex": {"table.tex": latex.to_latex},
    }
    if "html" in formats:  # takes a second to import
        from crgan_cli.report.html import build_page

        texts["html"] = {"report.html": build_page}
    with explain_write_failure(out):
        pictures = write_pictures(report, out) if "png" in formats else []
        paths = [path for path, _ in pictures]
        for each in formats:
            for name, render in texts.get(each, {}).items():
                write_text(out / name, render(report))
                paths.append(out / name)
        if "md" in formats:
            with open(out / "report.md", "a", encoding="utf-8", errors="backslashreplace") as file:
                for path, caption in pictures:
                    link = quote(os.fsencode(path.relative_to(out).as_posix()))
                    text = tables.escape_markdown(caption)
                    file.write(f"\n![{text}]({link})\n\n{text}\n")
    return paths


def write_pictures(report: "Report", out: Path) -> list[tuple[Path, str]]:
    """Write figures and sample grids as PNG files. Return each with its caption."""
    from crgan_cli.report.drawing import save_drawings
    from crgan_cli.report.figures import make_drawings
    from crgan_cli.report.findings import read_quantities
    from crgan_cli.report.grids import choose_runs

    drawings = make_drawings(report, read_quantities(report)[0])
    captions = [drawing.caption for drawing in drawings]
    pictures = list(zip(save_drawings(drawings, out / "figures"), captions, strict=True))
    labels = {run.path: row.label for row in report.rows for run in row.runs}
    (out / "samples").mkdir(exist_ok=True)
    for number, run in enumerate(choose_runs(report), start=1):
        if run.samples:
            path = out / "samples" / f"{number:02d}_{run.path.name}.png"
            shutil.copyfile(run.samples, path)
            pictures.append((path, f"{labels[run.path]}, step {run.step}"))
    return pictures

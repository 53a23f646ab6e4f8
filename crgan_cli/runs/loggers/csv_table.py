"""One table of all numbers, for a spreadsheet."""

import csv
from collections.abc import Mapping

from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.jsonl import is_metrics_line, read_records
from crgan_cli.runs.loggers.base import Logger
from crgan_cli.system.atomic import write_text


class CSV(Logger):
    """metrics.csv: a row for each line of metrics.jsonl, a column for each name in any of them."""

    def open(self, run: RunDir, *, step: int) -> None:
        self.run = run
        self.columns: list[str] = []
        self.rewrite()

    def rewrite(self) -> None:
        """Write the table of metrics.jsonl as it is now."""
        lines = read_records(self.run.metrics, is_metrics_line)
        self.columns = list(dict.fromkeys(key for line in lines for key in line))
        rows = ([line.get(key, "") for key in self.columns] for line in lines)
        write_text(self.run.table, "".join(map(format_row, [self.columns, *rows] if lines else [])))

    def write(self, line: Mapping[str, object], scalars: Mapping[str, float], step: int) -> None:
        if not line.keys() <= set(self.columns):
            self.rewrite()
            return
        with self.run.table.open("a", encoding="utf-8", newline="") as file:
            file.write(format_row([line.get(key, "") for key in self.columns]))


class Echo:
    """Stands in for a file: gives back what is written."""

    def write(self, text: str) -> str:
        return text


def format_row(values: list) -> str:
    """Return one row of a table, with its end of line."""
    return csv.writer(Echo(), lineterminator="\n").writerow(values)  # type: ignore[return-value]

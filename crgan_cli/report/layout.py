"""Where the figures of a report stand: on a page of the screen, or in a column of a paper."""

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from crgan_cli.report.drawing import count_lines

Item = TypeVar("Item")

MAX_ROWS = 40
"""Rows in a plot of dots."""

PAPER_HEIGHT = 5.0
"""Inches for the rows of a plot of dots in a paper: with axis and caption it fits on a page."""


class Layout(NamedTuple):
    """How wide figures are, and how wide the labels next to them.

    On the screen a figure has a title and a panel per number. In a paper it has neither: its
    caption is the title, and a number is a figure, so that each can be placed on its own.
    """

    ending: str = ""  # of the names of its files
    width: float | None = None  # of all figures, in inches; None on the screen
    letters: int = 40  # of a line of a label next to a plot

    def choose_size(self, width: float, height: float) -> tuple[float, float]:
        """Return the width and height of a plot of lines that has these on the screen."""
        return (width, height) if self.width is None else (self.width, min(0.7 * self.width, 3.2))

    def choose_title(self, title: str) -> str:
        """Return the title of a figure; "" for none."""
        return title if self.width is None else ""

    def split(self, panels: Sequence[Item]) -> list[list[Item]]:
        """Return the panels of each figure."""
        if self.width is None:
            return [list(panels)] if panels else []
        return [[panel] for panel in panels]

    def name_figure(self, kind: str, panels: Sequence[str]) -> str:
        """Return the name of a figure's file, without ending."""
        words = [kind] if self.width is None else [kind, *panels]
        return re.sub(r"[^A-Za-z0-9-]+", "_", "_".join(words)).strip("_")

    def count_rows(self, names: Sequence[str]) -> int:
        """Return how many rows of dots with these names fit into a figure."""
        if self.width is None:
            return MAX_ROWS
        return min(MAX_ROWS, max(1, int(PAPER_HEIGHT / self.row_height(names))))

    def row_height(self, names: Sequence[str]) -> float:
        """Return the height of a row of dots with its name next to it, in inches."""
        gap, line = (0.2, 0.16) if self.width is None else (0.1, 0.13)
        return gap + line * count_lines(names)


SCREEN = Layout()

COLUMNS = (Layout("_1column", 3.25, 22), Layout("_2columns", 6.75, 40))
"""One and two columns of a paper, as in most two-column formats."""

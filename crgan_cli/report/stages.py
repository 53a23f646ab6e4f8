"""The stages of runs that grow, marked on figures over steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crgan_cli.errors import UserError
from crgan_cli.gan.stages import Stage, Stages
from crgan_cli.report import plots
from crgan_cli.report.model import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNREADABLE = (UserError, ArithmeticError, AttributeError, KeyError, TypeError, ValueError)
"""What a schedule can raise that is not crgan's, or of another version."""


def read_stages(config: Mapping[str, Any]) -> Stages | None:
    """Return the stages of a stored configuration. None if it does not grow, or cannot be read."""
    try:
        stages = Stages.from_settings(config)
        numbers = [number for stage in stages for number in (*stage.sides, *stage[1:4])]
        is_valid = all(type(number) is int and number >= 0 for number in numbers)
    except UNREADABLE:
        return None
    return stages if is_valid and len(stages) > 1 else None


class StageMarks:
    """Marks where a new resolution begins, if all rows that grow do so at the same steps."""

    def __init__(self, rows: Sequence[Row]) -> None:
        """`rows` are those of the figure."""
        schedules = {get_schedule(row) for row in rows}
        self.mixed = () in schedules
        grown = schedules - {()}
        self.differ = len(grown) > 1
        self.stages = () if self.differ else next(iter(grown), ())
        self.begun: set[Stage] = set()  # that have a line
        self.faded = False  # whether a span is shaded

    def draw(self, axes: "Axes", rows: Sequence[Row]) -> None:
        """Mark the stages on a panel of these rows: after its lines, whose range of steps stays."""
        if not self.stages or not any(map(get_schedule, rows)):
            return
        low, high = axes.get_xlim()
        ends = [stage.first for stage in self.stages[1:]] + [float("inf")]
        for stage, end in zip(self.stages, ends, strict=True):
            if not (stage.first < high and end > low):
                continue
            start, faded = max(stage.first, low), min(stage.first + stage.fade_steps, high)
            if stage.first > max(low, 0):
                axes.axvline(start, color=plots.GREY, linewidth=0.6, alpha=0.6, zorder=0)
                self.begun.add(stage)
            if faded > start:
                axes.axvspan(start, faded, color=plots.GREY, alpha=0.1, linewidth=0, zorder=0)
                self.faded = True
            axes.text(
                start,
                0.98,
                f" {stage.sides} px",
                rotation=90,
                transform=axes.get_xaxis_transform(),
                verticalalignment="top",
                fontsize=6,
                color=plots.GREY,
            )
        axes.set_xlim(low, high)

    def describe(self) -> str:
        """Return sentences on the marks that were drawn; "" if there are none."""
        if self.differ:
            return " The rows grow by different schedules, which are not marked."
        if not self.begun:
            return ""
        places = ", ".join(f"{stage.first} ({stage.sides} px)" for stage in sorted(self.begun))
        shaded = "; shaded until it is there in full" if self.faded else ""
        whose = " in the rows that grow" if self.mixed else ""
        return f" Vertical lines: a new resolution fades in{whose} at steps {places}{shaded}."


def get_schedule(row: Row) -> tuple[Stage, ...]:
    """Return the stages of a row as far as marks show them; () if it does not grow.

    The runs of a row differ in nothing that a schedule depends on.
    """
    stages = row.shown[0].stages if row.shown else None
    return tuple(Stage(*stage[:3], batch_size=1) for stage in stages or ())

"""Where networks grow, figures over steps say so, and tables say of what size images were."""

from pathlib import Path
from typing import Any

import pytest
from support.reports import report_of, row_of, run_of

from crgan_cli.gan.stages import Stages
from crgan_cli.report.curves import list_terms, plot_losses, plot_metrics
from crgan_cli.report.drawing import Drawing
from crgan_cli.report.model import Row
from crgan_cli.report.rows import build_row
from crgan_cli.report.stages import read_stages
from crgan_cli.report.tables import list_shown_metrics

CONFIG = {
    "task": {
        "first_resolution": 4,
        "fade_images": 400,
        "stable_images": 600,
        "batch_sizes": None,
        "rates": None,
    },
    "optimizer": {"n_dis": 1},
    "dataset": {"resolution": 16},
    "batch_size": 10,
}
"""4 pixels at steps 0 to 60, 8 from 60 on (in full from 100 on), 16 from 160 on (200)."""

LINES = "Vertical lines: a new resolution fades in at steps 60 (8 px), 160 (16 px); shaded until"


def changed(group: str, **values: object) -> dict[str, Any]:
    return {**CONFIG, group: {**CONFIG[group], **values}}  # type: ignore[dict-item]


def growing(name: str, config: dict[str, Any] | None = CONFIG) -> Row:
    """Evaluated at steps 100 and 200, losses at steps 10 to 200."""
    run = run_of(Path(name), 1, (30.0, 20.0))
    return row_of(name, [run._replace(stages=config and read_stages(config))], {})


def drawn(*rows: Row) -> tuple[Drawing, Drawing]:
    report = report_of(rows)
    metrics = plot_metrics(report, list_shown_metrics(report))
    losses = plot_losses(report, list_terms(report))
    assert metrics is not None
    return metrics, losses


def marks(drawing: Drawing, panel: int = 0) -> tuple[list[float], list[float], list]:
    """The steps of the lines, both ends of the shaded spans, and the labels with their steps."""
    axes = drawing.figure.axes[panel]
    whole = [line for line in axes.lines if list(line.get_ydata()) == [0, 1]]
    spans = [patch.get_x() + width for patch in axes.patches for width in (0, patch.get_width())]  # type: ignore[attr-defined]
    labels = [(text.get_text().strip(), text.get_position()[0]) for text in axes.texts]
    return [float(line.get_xdata()[0]) for line in whole], spans, labels  # type: ignore[index]


def test_each_resolution_is_marked_at_its_first_step_and_shaded_while_it_fades_in() -> None:
    metrics, losses = drawn(growing("a"), growing("b"))
    low, high = losses.figure.axes[0].get_xlim()
    # to 200 and a margin: the losses are of steps 10 to 200
    assert (low, high) == pytest.approx((10 - 9.5, 200 + 9.5))
    lines, spans, labels = marks(losses)
    assert lines == [60, 160]
    assert spans == pytest.approx([60, 100, 160, 200])
    assert labels == [("4 px", pytest.approx(low)), ("8 px", 60), ("16 px", 160)]
    assert LINES in losses.caption
    assert LINES in losses.alt_text
    assert "Vertical lines: a new resolution" in metrics.alt_text
    assert "Images of less than the full size are doubled" in metrics.caption


def test_what_is_before_the_first_number_is_not_marked() -> None:
    metrics, _ = drawn(growing("a"))
    low, high = metrics.figure.axes[0].get_xlim()
    assert (low, high) == pytest.approx((95, 205))
    lines, spans, labels = marks(metrics)
    assert lines == [160]
    assert spans == pytest.approx([95, 100, 160, 200])
    assert labels == [("8 px", pytest.approx(95)), ("16 px", 160)]
    assert "at steps 160 (16 px)" in metrics.caption


def test_rows_that_grow_by_different_schedules_have_no_marks() -> None:
    for drawing in drawn(growing("a"), growing("b", changed("task", fade_images=200))):
        assert marks(drawing) == ([], [], [])
        assert "The rows grow by different schedules, which are not marked." in drawing.caption


def test_rates_are_no_part_of_what_is_marked() -> None:
    _, losses = drawn(growing("a"), growing("b", changed("task", rates=[1, 2, 3])))
    assert marks(losses)[0] == [60, 160]


def test_a_row_that_does_not_grow_shares_the_panel() -> None:
    _, losses = drawn(growing("a"), growing("b", None))
    assert marks(losses)[0] == [60, 160]
    assert "fades in in the rows that grow at steps 60" in losses.caption
    for drawing in drawn(growing("b", None)):
        assert marks(drawing) == ([], [], [])
        assert "resolution" not in drawing.caption


def test_without_fades_nothing_is_shaded() -> None:
    _, losses = drawn(growing("a", changed("task", fade_images=0)))
    assert marks(losses)[:2] == ([60, 120], [])
    assert "shaded" not in losses.caption


@pytest.mark.parametrize(
    "config",
    [
        [],
        {},
        {"task": None},
        {**CONFIG, "batch_size": "many"},
        {**CONFIG, "batch_size": 0},
        {**CONFIG, "optimizer": {"n_dis": 0}},
        changed("dataset", resolution=24),
        changed("dataset", resolution="large"),
        changed("dataset", resolution=None),
        changed("task", first_resolution=0),
        changed("task", fade_images=float("nan")),
        changed("task", fade_images=-100),
        changed("task", stable_images="some"),
        changed("task", batch_sizes=[4]),
        changed("task", batch_sizes={"4": 4}),
        {**CONFIG, "task": {"first_resolution": 4}},
        {**CONFIG, "task": {"_target_": "crgan_cli.gan.Generation"}},
    ],
)
def test_a_schedule_that_cannot_be_read_is_none(config: Any) -> None:
    assert read_stages(config) is None
    assert read_stages(CONFIG) is not None


def test_a_row_says_of_what_size_its_images_were() -> None:
    stages = read_stages(CONFIG)
    early = run_of(Path("a"), 1, (10.0, 20.0, 30.0))._replace(stages=stages)  # steps 100, 200, 300
    last = build_row("a", {}, [early], "fid", "last")
    assert last.note == ""
    best = build_row("a", {}, [early], "fid", "best")
    # step 100 is the 40th of the fade, and alpha that of its beginning
    assert best.note == "grown to 8 of 16 pixels (alpha 0.975)"


def test_the_state_after_a_step_is_that_of_its_turns() -> None:
    stages = read_stages(CONFIG)
    assert isinstance(stages, Stages)
    assert [stages.describe_growth(step) for step in (0, 60, 61, 101, 160)] == [
        "4 of 16 pixels",
        "4 of 16 pixels",
        "8 of 16 pixels (alpha 0)",
        "8 of 16 pixels",
        "8 of 16 pixels",
    ]
    assert stages.describe_growth(200) == "16 of 16 pixels (alpha 0.975)"
    assert stages.describe_growth(201) == ""

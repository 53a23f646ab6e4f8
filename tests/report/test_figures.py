"""The pictures of a report show the numbers that they are of."""

import math
import re
from pathlib import Path

import pytest
from PIL import Image
from support.reports import report_of, row_of, run_of, sweep

from crgan_cli.report import drawing, plots
from crgan_cli.report.curves import list_terms, plot_losses, plot_metrics
from crgan_cli.report.drawing import MAX_LINES
from crgan_cli.report.figures import make_drawings, plot_artefacts, plot_rows, plot_sweep
from crgan_cli.report.findings import Interval, QuantityByRow, read_quantities
from crgan_cli.report.model import Report, Spread
from crgan_cli.report.rows import build_row
from crgan_cli.report.series import Series, average_over_seeds
from crgan_cli.report.tables import list_shown_metrics
from crgan_cli.runs.status import Status

HERE = Path("runs")


def leak(share: float, floor: float = 0.01) -> dict[str, object]:
    """What `crgan artefacts RUN leakage` writes, as far as it is read."""
    read = {"share": share, "low": share - 0.05, "high": share + 0.05}
    made = {"T": "Cutout", "size": 16}
    body = {"transform": made, "generated": read, "floor": {"share": floor}, "reason": ""}
    blind = {"transform": {"T": "GaussianNoise"}, "generated": None, "floor": None}
    return {"transforms": {"cutout": body, "noise": blind}}


def measured(*records: dict[str, object], kind: str) -> Report:
    """One row whose runs have one measurement each."""
    runs = [run_of(HERE / str(i), i + 1, artefacts={kind: r}) for i, r in enumerate(records)]
    return report_of([row_of("cr", runs, {"regularizer": "cr"})])


def draw_metrics(report: Report) -> drawing.Drawing | None:
    """All curves, as on a page."""
    return plot_metrics(report, list_shown_metrics(report))


# --- numbers over steps ---------------------------------------------------------------------------


def test_a_series_is_the_mean_between_the_lowest_and_the_highest_seed() -> None:
    logs = [
        ({"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}, {"step": 3, "a": 9.0}),
        ({"step": 1, "a": 3.0}, {"step": 2, "a": 8.0}),
    ]
    found = average_over_seeds(logs, "a")
    assert found[:4] == ([1, 2], [2.0, 5.0], [1.0, 2.0], [3.0, 8.0])
    # the mean would jump without the second seed: the first goes on alone, from where it is
    assert found.alone == (([2, 3], [2.0, 9.0]),)
    assert found.describe_alone() == "1 of 2 seeds after step 2"


def test_a_series_leaves_out_what_is_no_number_and_runs_that_never_had_it() -> None:
    logs = [
        ({"step": 1, "a": math.nan}, {"step": 2, "a": 4.0}, {"step": 3, "b": 1.0}),
        ({"step": 1, "b": 1.0},),
    ]
    assert average_over_seeds(logs, "a") == Series([2], [4.0], [4.0], [4.0], seeds=1)
    assert not average_over_seeds(logs, "c")


def test_seeds_of_other_steps_count_by_the_line_between_theirs() -> None:
    every_2 = [{"step": step, "a": float(step)} for step in (2, 4, 6, 8)]
    every_3 = [{"step": step, "a": 10.0 * step} for step in (3, 6, 9)]
    found = average_over_seeds([every_2, every_3], "a")
    assert found.steps == [3, 4, 6, 8]
    assert found.lows == [3.0, 4.0, 6.0, 8.0]
    assert found.highs == pytest.approx([30.0, 40.0, 60.0, 80.0])
    assert found.alone == (([2, 3], [2.0, 3.0]), ([8, 9], pytest.approx([80.0, 90.0])))
    assert found.describe_alone() == "1 of 2 seeds before step 3, 1 of 2 seeds after step 8"
    assert found.interpolated
    assert not average_over_seeds([every_2, every_2[:2]], "a").interpolated


def test_seeds_without_a_step_in_common_are_drawn_alone() -> None:
    found = average_over_seeds([[{"step": 1, "a": 5.0}], [{"step": 2, "a": 7.0}]], "a")
    assert found[:4] == ([], [], [], [])
    assert found.alone == (([1], [5.0]), ([2], [7.0]))
    assert found.describe_alone() == "its 2 seeds have no step in common"
    assert (bool(found), found.is_curve) == (True, False)


def test_a_seed_that_ends_early_takes_no_stretch_from_the_others() -> None:
    logs = [[{"step": i, "a": float(i)} for i in range(1, last + 1)] for last in (8, 3)]
    found = average_over_seeds(logs, "a", points=4)
    # stretches of two steps: 1.5, 3.5, 5.5, 7.5, and of the second run 1.5 and its last step
    assert found.steps == [2, 3]
    assert found.highs == [1.5, 3.0]
    assert found.lows == [1.5, 2.5], "the first run half-way from 1.5 to 3.5"
    assert found.alone == (([3, 4, 6, 8], [2.5, 3.5, 5.5, 7.5]),)


def test_a_long_series_is_averaged_over_stretches() -> None:
    log = [{"step": i, "a": float(i)} for i in range(1, 9)]
    found = average_over_seeds([log], "a", points=2)
    assert found.steps == [4, 8]
    assert found.means == [(1 + 2 + 3 + 4) / 4, (5 + 6 + 7 + 8) / 4]
    assert average_over_seeds([log], "a", points=8).means == [float(i) for i in range(1, 9)]


# --- artefact measurements ------------------------------------------------------------------------


def test_leakage_is_read_in_percent_with_its_floor() -> None:
    found, unread = read_quantities(measured(leak(0.25), leak(0.75, floor=0.03), kind="leakage"))
    (cutout,) = found  # what no detector could tell has no share
    assert cutout.quantity.name == "cutout (size=16)"
    assert cutout.reference == pytest.approx(2.0)
    assert cutout.rows == (
        (
            Interval(25.0, pytest.approx(20), pytest.approx(30)),
            Interval(75.0, pytest.approx(70), pytest.approx(80)),
        ),
    )
    assert unread == []


def test_the_consistency_of_the_usual_strength_is_told() -> None:
    curve = {
        "strength": [2.0, 16.0, 32.0],
        "relative": [0.1, 0.2, 0.9],
        "relative_se": [0, 0.15, 0],
    }
    latent = {"strength": [0.01, 0.1], "relative": [0.5, 0.6], "relative_se": [0.1, 0.1]}
    record = {"curves": {"cutout": {"fake": curve, "train": curve}, "latent": {"fake": latent}}}
    found, _ = read_quantities(measured(record, kind="consistency"))
    assert [each.quantity.name for each in found] == [
        "cutout 16, fake images",
        "latent 0.1, fake images",
    ]
    assert found[0].rows == ((Interval(0.2, 0.0, 0.5),),)  # a square is not below 0


def test_the_consistency_under_the_runs_own_T_comes_first_at_its_strength() -> None:
    at = {"relative": [0.1, 0.2, 0.3], "relative_se": [0.0] * 3}
    kinds = {"cutout": [8, 16, 24], "shift": [2, 4, 8], "noise": [0.05, 0.1, 0.2]}
    curves = {kind: {"held_out": {"strength": each, **at}} for kind, each in kinds.items()}
    config = {"dataset.resolution": 32, "augment.shift": 8}
    runs = [run_of(HERE, 1, artefacts={"consistency": {"curves": curves}}, config=config)]
    found, _ = read_quantities(report_of([row_of("cr", runs, {"regularizer": "cr"})]))
    assert [each.quantity.name for each in found] == [
        "shift 8, held-out images",
        "cutout 16, held-out images",
    ]
    assert [each.rows[0][0].value for each in found] == [0.3, 0.2]


def test_the_usual_cutout_of_a_rectangle_is_half_its_shorter_side() -> None:
    values = {"strength": [12.0, 16.0, 24.0], "relative": [0.1] * 3, "relative_se": [0.1] * 3}
    record = {"consistency": {"curves": {"cutout": {"fake": values}}}}
    for resolution, usual in (("[32,48]", 16), (24, 12), (48, 24)):
        runs = [run_of(HERE, 1, artefacts=record, config={"dataset.resolution": resolution})]
        (found,), _ = read_quantities(report_of([row_of("cr", runs, {"regularizer": "cr"})]))
        assert found.quantity.name == f"cutout {usual}, fake images"


def test_diversity_and_memorisation_are_read_with_what_they_are_compared_to() -> None:
    record = {"pairs": {"pixels": {"ratio": [0.9, 0.02]}, "features": {"ratio": None}}}
    (found,), _ = read_quantities(measured(record, kind="diversity"))
    assert found.rows == ((Interval(0.9, pytest.approx(0.86), pytest.approx(0.94)),),)
    assert found.reference == 1.0
    record = {"spaces": {"pixels": {"auc": [0.6, 0.5, 0.7]}}}
    (found,), _ = read_quantities(measured(record, kind="memorisation"))
    assert found.rows == ((Interval(0.6, 0.5, 0.7),),)
    assert found.reference == 0.5


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        ("leakage", {}),
        ("leakage", {"transforms": {"cutout": {"generated": 3, "floor": 4}}}),
        ("diversity", {"pairs": {"pixels": {"ratio": [1.0]}}}),
        ("memorisation", {"spaces": {"pixels": {"auc": ["much"]}}}),
        ("consistency", {"curves": []}),
    ],
)
def test_a_damaged_measurement_is_told_of(kind: str, record: dict[str, object]) -> None:
    found, unread = read_quantities(measured(record, kind=kind))
    assert found == []
    (words,) = unread
    assert f"crgan artefacts {HERE / '0'} {kind}" in words


def test_a_plot_of_artefacts_shows_every_run_and_their_mean() -> None:
    report = measured(leak(0.25), leak(0.75), kind="leakage")
    found: list[QuantityByRow] = read_quantities(report)[0]
    drawn = plot_artefacts(report, "leakage", found)
    (axes,) = drawn.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cr"]
    middle = [line for line in axes.lines if line.get_marker() == "D"]
    assert [float(x) for line in middle for x in line.get_xdata()] == [50.0]
    assert "cutout (size=16), cr: 50" in drawn.alt_text


# --- figures --------------------------------------------------------------------------------------


def test_dots_are_at_the_seeds_and_bars_at_mean_and_deviation(tmp_path: Path) -> None:
    drawn = plot_rows(sweep(tmp_path))
    assert drawn is not None
    (axes,) = drawn.figure.axes
    seeds = [tuple(map(tuple, each.get_offsets().tolist())) for each in axes.collections[::2]]
    assert seeds[0] == ((16.0, 0.0), (14.0, 0.0))
    (bar,) = axes.containers[0].lines[2]
    ((left, _), (right, _)) = bar.get_segments()[0]
    assert (left, right) == pytest.approx((15 - 2**0.5, 15 + 2**0.5))
    assert [t.get_text() for t in axes.get_yticklabels()] == ["lambda=10", "lambda=1", "lambda=100"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the best is on top"
    assert "lambda=10 15.00; lambda=1 20.00; lambda=100 25.00" in drawn.alt_text


def test_a_published_number_is_drawn_where_it_can_be_compared(tmp_path: Path) -> None:
    report = sweep(tmp_path)
    rows = (report.rows[0]._replace(comparable=18.5), *report.rows[1:])
    compared = report._replace(rows=rows)
    for draw in (plot_rows, plot_sweep, draw_metrics):
        before, after = draw(report), draw(compared)
        assert before is not None
        assert after is not None
        said = [
            [text.get_text() for text in each.figure.legends[0].texts] for each in (before, after)
        ]
        assert not any("published" in text for text in said[0])
        assert any("published" in text for text in said[1])


def test_a_floor_is_drawn_where_it_is_near_and_told_everywhere(tmp_path: Path) -> None:
    report = sweep(tmp_path)  # from 14 to 26
    for floor, lines in ((3.0, 1), (1.0, 0)):
        spread = Spread((floor,), floor, None)
        rows = [r._replace(numbers={**r.numbers, "fid_floor": spread}) for r in report.rows]
        for drawn in (
            plot_rows(report._replace(rows=rows)),
            plot_sweep(report._replace(rows=rows)),
        ):
            assert drawn is not None
            (axes,) = drawn.figure.axes
            assert len([line for line in axes.lines if line.get_linestyle() == ":"]) == lines
            assert f"The real-vs-real distance is {floor:g}." in drawn.caption


def test_numbers_far_apart_are_drawn_on_a_log_axis_with_plain_numbers() -> None:
    rows = [row_of(n, [run_of(HERE / n, 1, (fid,))], {}) for n, fid in (("a", 3.0), ("b", 90.0))]
    drawn = plot_rows(report_of(rows))
    assert drawn is not None
    (axes,) = drawn.figure.axes
    assert axes.get_xscale() == "log"
    drawn.figure.draw_without_rendering()
    assert {"5", "10", "20", "50"} <= {text.get_text() for text in axes.get_xticklabels()}


def test_a_sweep_is_drawn_on_a_log_axis(tmp_path: Path) -> None:
    drawn = plot_sweep(sweep(tmp_path))
    assert drawn is not None
    (axes,) = drawn.figure.axes
    assert axes.get_xscale() == "log"
    line = axes.containers[0].lines[0]
    assert list(line.get_xdata()) == [1, 10, 100]
    assert list(line.get_ydata()) == [20, 15, 25]


def test_a_sweep_that_begins_at_0_keeps_its_0() -> None:
    rows = [
        row_of(f"l={v}", [run_of(HERE / str(v), 1, (fid,))], {"l": v, "r": "cr"})
        for v, fid in ((0, 9.0), (1, 5.0), (10, 7.0))
    ]
    drawn = plot_sweep(report_of(rows, swept="l"))
    assert drawn is not None
    (axes,) = drawn.figure.axes
    assert axes.get_xscale() == "symlog"
    assert list(axes.containers[0].lines[0].get_xdata()) == [0, 1, 10]


def test_nothing_swept_is_not_drawn(tmp_path: Path) -> None:
    report = sweep(tmp_path)
    assert plot_sweep(report._replace(swept="")) is None
    assert plot_sweep(report._replace(rows=report.rows[:1])) is None


def test_curves_are_means_over_seeds_and_one_evaluation_is_none(tmp_path: Path) -> None:
    drawn = draw_metrics(sweep(tmp_path))
    assert drawn is not None
    fid, kid = drawn.figure.axes
    assert list(fid.lines[0].get_ydata()) == [40.0, 15.0]
    assert list(kid.lines[0].get_ydata()) == pytest.approx([0.040, 0.015])
    assert fid.get_ylabel() == "fid\n(lower is better)"
    once = [row_of("a", [run_of(HERE, 1, (20.0,))], {})]
    assert draw_metrics(report_of(once)) is None


def test_figures_show_the_seeds_that_the_table_counts(tmp_path: Path) -> None:
    long, short = (40.0, 30.0, 20.0), (90.0,)
    runs = [
        run_of(tmp_path / "1", 1, long, artefacts={"leakage": leak(0.2)}),
        run_of(tmp_path / "2", 2, long, artefacts={"leakage": leak(0.2)}),
        run_of(tmp_path / "3", 3, short, status=Status.FAILED, artefacts={"leakage": leak(0.8)}),
    ]
    row = build_row("a", {}, runs, "fid", "last")
    assert row.counted == tuple(runs[:2])
    report = report_of([row])
    drawn = draw_metrics(report)
    assert drawn is not None
    line, _floor = drawn.figure.axes[0].lines
    assert list(line.get_xdata()) == [100.0, 200.0, 300.0]
    assert list(line.get_ydata()) == list(long)
    assert "Thin" not in drawn.caption
    (leaked,) = read_quantities(report)[0]
    assert [each.value for each in leaked.rows[0]] == pytest.approx([20.0, 20.0])


def test_where_no_seed_has_finished_the_longer_ones_go_on_as_thin_lines(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / "1", 1, (40.0, 30.0, 20.0), status=Status.RUNNING),
        run_of(tmp_path / "2", 2, (60.0, 50.0), status=Status.RUNNING),
        run_of(tmp_path / "3", 3, (80.0,), status=Status.FAILED),
    ]
    drawn = draw_metrics(report_of([build_row("a", {}, runs, "fid", "last")]))
    assert drawn is not None
    mean, *thin, _floor = drawn.figure.axes[0].lines
    assert (list(mean.get_xdata()), list(mean.get_ydata())) == ([100.0], [60.0])
    assert [list(line.get_ydata()) for line in thin] == [[40.0, 30.0, 20.0], [60.0, 50.0]]
    assert "Thin lines are single seeds (a: 2 of 3 seeds after step 100)." in drawn.caption
    drawn.figure.draw_without_rendering()


def test_seeds_without_a_common_step_are_still_drawn(tmp_path: Path) -> None:
    early, late = run_of(tmp_path / "1", 1, (40.0, 30.0)), run_of(tmp_path / "2", 2, (9.0,) * 4)
    runs = [early, late._replace(evals=late.evals[2:])]
    drawn = draw_metrics(report_of([build_row("a", {}, runs, "fid", "last")]))
    assert drawn is not None
    assert "its 2 seeds have no step in common" in drawn.caption
    assert drawn.alt_text == "a its 2 seeds have no step in common"
    drawn.figure.draw_without_rendering()


def test_steps_are_written_out(tmp_path: Path) -> None:
    run = run_of(tmp_path, 1)
    evals = tuple({**line, "step": 10**4 * line["step"] + 7} for line in run.evals)
    drawn = draw_metrics(report_of([row_of("a", [run._replace(evals=evals)], {})]))
    assert drawn is not None
    assert drawn.alt_text == "a from 30.00 at step 1000007 to 20.00 at step 2000007"


def test_each_term_of_the_losses_has_a_panel(tmp_path: Path) -> None:
    report = sweep(tmp_path)
    drawn = plot_losses(report, list_terms(report))
    assert [axes.get_title() for axes in drawn.figure.axes] == ["adversarial/d", "cr/real"]
    first = drawn.figure.axes[0].lines[0].get_ydata()[0]
    assert first == pytest.approx(((1 + 1) + (1 + 2)) / 2)


def test_what_does_not_fit_is_said_and_the_rest_told_apart() -> None:
    rows = [
        row_of(f"row {i}", [run_of(HERE / str(i), 1, (40.0, 20.0 + i))], {"i": i})
        for i in range(50)
    ]
    report = report_of(rows)
    assert f"The best {MAX_LINES} of 50 rows" in draw_metrics(report).caption  # type: ignore[union-attr]
    assert "The best 40 of 50 rows" in plot_rows(report).caption  # type: ignore[union-attr]
    looks = [plots.get_style(i) for i in range(MAX_LINES)]
    assert len(set(looks)) == MAX_LINES
    assert len({look.marker + look.dash for look in looks}) == MAX_LINES, "without colour too"


def test_rows_without_numbers_are_no_figure() -> None:
    nothing = run_of(HERE, 1, ())._replace(train=())
    assert make_drawings(report_of([row_of("a", [nothing], {})]), []) == []
    infinite = run_of(HERE, 1, (math.inf, math.nan))._replace(train=())
    assert make_drawings(report_of([row_of("a", [infinite], {})]), []) == []


def test_every_figure_can_be_written(tmp_path: Path) -> None:
    report = sweep(tmp_path)
    found = make_drawings(report, [])
    files = drawing.save_drawings(found, tmp_path / "figures")
    assert [file.name for file in files] == [
        "headline.png",
        "sweep.png",
        "metrics.png",
        "losses.png",
    ]
    for file in files:
        with Image.open(file) as image:
            low, high = image.convert("L").getextrema()
            assert low < high, "something is drawn"
    assert drawing.save_drawings(found[:1], tmp_path, ".svg")[0].read_text().startswith("<?xml")


def test_drawings_for_a_page_are_the_same_twice_and_take_its_colours(tmp_path: Path) -> None:
    once, again = (
        [plots.to_svg(each.figure, each.name) for each in make_drawings(sweep(tmp_path), [])]
        for _ in range(2)
    )
    assert once == again
    assert all("currentColor" in each and "#000000" not in each for each in once)
    assert not any("http" in each for each in once)
    ids = [name for each in once for name in re.findall(r'\bid="([^"]*)"', each)]
    assert len(ids) == len(set(ids))
    for each in once:
        targets = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', each)
        assert {a or b for a, b in targets} <= set(ids)


def test_a_long_label_is_folded_and_at_last_cut() -> None:
    label = " ".join(f"key{i}=value{i}" for i in range(20))
    folded = drawing.wrap_label(label)
    assert folded.splitlines()[0] == "key0=value0 key1=value1 key2=value2"
    assert len(folded.splitlines()) == 4
    assert folded.endswith("…")

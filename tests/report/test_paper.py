"""Figures, table and sentences for a paper: their size, their fonts, and what they say."""

import re
from pathlib import Path

import pytest
from support.reports import PROTOCOL, report_of, row_of, run_of, sweep

from crgan_cli.report import drawing, plots
from crgan_cli.report.curves import list_terms, plot_losses
from crgan_cli.report.drawing import fits_across
from crgan_cli.report.figures import make_drawings, plot_artefacts, plot_rows
from crgan_cli.report.findings import Interval, Quantity, QuantityByRow
from crgan_cli.report.layout import COLUMNS
from crgan_cli.report.model import Comparison, Report
from crgan_cli.report.paper import describe_experiment, write_figures, write_paper
from crgan_cli.runs.status import Status

ONE, TWO = COLUMNS


def compared(folder: Path) -> Report:
    """Three rows without curves, of which one has a run that failed and one has one seed."""
    report = sweep(folder)
    first, second, third = (
        row._replace(runs=tuple(r._replace(train=(), evals=r.evals[-1:]) for r in row.runs))
        for row in report.rows
    )
    failed = run_of(folder / "failed", 3, (), status=Status.FAILED)
    second = second._replace(runs=(*second.runs, failed), counted=second.runs)
    third = third._replace(runs=third.runs[:1])
    comparisons = (
        Comparison(first.label, second.label, 0.0377, ""),
        Comparison(first.label, third.label, None, ""),
    )
    return report._replace(rows=(first, second, third), comparisons=comparisons)


def test_a_figure_holds_one_panel_without_a_title_as_wide_as_its_columns(tmp_path: Path) -> None:
    measured = [
        QuantityByRow(Quantity("leakage", name, "%", ""), None, ((Interval(1, 0, 2),), (), ()))
        for name in ("cutout (size=16)", "shift")
    ]
    for layout, width in zip(COLUMNS, (3.25, 6.75), strict=True):
        drawn = make_drawings(sweep(tmp_path), measured, layout)
        assert [each.name for each in drawn] == [
            "headline",
            "sweep",
            "metrics_fid",
            "metrics_kid",
            "losses_adversarial_d",
            "losses_cr_real",
            "leakage_cutout_size_16",
            "leakage_shift",
        ]
        for each in drawn:
            (axes,) = each.figure.axes
            assert each.figure.get_size_inches()[0] == width
            assert (each.figure.get_suptitle(), axes.get_title()) == ("", "")
            assert axes.get_xlabel()
    assert axes.get_xlabel() == "shift\n%"


def test_names_that_differ_at_their_end_stay_apart() -> None:
    name = " ".join(f"setting_{i}=value" for i in range(4))
    rows = [row_of(f"{name} n={i}", [run_of(Path(str(i)), 1)], {}) for i in range(2)]
    dots, *_, curves = make_drawings(report_of(rows), [], ONE)
    assert [each.get_text()[-3:] for each in dots.figure.axes[0].get_yticklabels()] == [
        "n=0",
        "n=1",
    ]
    texts = [each.get_text() for each in curves.figure.legends[0].texts]
    assert [text[-3:] for text in texts] == ["n=0", "n=1"]


def test_what_is_drawn_stays_within_the_width_of_a_column() -> None:
    label = " ".join(f"some.long_setting_{i}={i}" for i in range(4))
    rows = [
        row_of(
            f"{label} n={i}", [run_of(Path(f"{i}_{s}"), s, (40.0, 20.0 + i)) for s in (1, 2)], {}
        )
        for i in range(3)
    ]
    with plots.paper_style():
        for layout in COLUMNS:
            for each in make_drawings(report_of(rows), [], layout):
                each.figure.draw_without_rendering()
                box = each.figure.get_tightbbox()
                assert box.x0 >= 0
                assert box.x1 <= layout.width


def test_files_embed_their_font_as_text_and_are_the_same_bytes_twice(tmp_path: Path) -> None:
    kinds = ("pdf", "svg", "png")
    report = report_of([row_of("a", [run_of(tmp_path, 1, (20.0,))._replace(train=())], {})])
    once, again = (
        [file.read_bytes() for file in write_figures(report, tmp_path / name, kinds)]
        for name in ("a", "b")
    )
    assert len(once) == 2 * len(kinds)
    assert once == again
    pdf = (tmp_path / "a" / "headline_1column.pdf").read_bytes()
    assert b"/FontFile2" in pdf, "TrueType"
    assert b"/Type3" not in pdf
    assert b"Date" not in pdf
    assert re.search(rb"/MediaBox \[ 0 0 234 ", pdf), "3.25 inches of 72 points"
    svg = (tmp_path / "a" / "headline_2columns.svg").read_text(encoding="utf-8")
    assert "<text" in svg
    assert "date" not in svg.lower()
    assert 'width="486pt"' in svg


def test_every_line_has_a_marker_that_no_other_has_with_its_dashes() -> None:
    rows = [
        row_of(f"row {i}", [run_of(Path(str(i)), 1)._replace(train=long_log(i))], {"i": i})
        for i in range(drawing.MAX_LINES)
    ]
    report = report_of(rows)
    drawn = plot_losses(report, list_terms(report), ONE)
    lines = drawn.figure.axes[0].lines
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(lines[0].get_xdata()) == 60
    assert len(looks) == len(lines) == drawing.MAX_LINES
    assert {"", "None", None}.isdisjoint(marker for marker, _ in looks)
    starts = {line.get_markevery() for line in lines}
    assert len(starts) > 1, "lines on each other show their markers in turns"


def long_log(row: int) -> tuple[dict[str, float], ...]:
    return tuple({"step": float(i), "terms/d": row + 1 / i} for i in range(1, 101))


def test_rows_that_do_not_fit_on_a_page_are_counted(tmp_path: Path) -> None:
    name = " ".join(f"setting_{i}=value" for i in range(4))
    rows = [row_of(f"{name} {i}", [run_of(tmp_path / str(i), 1)], {}) for i in range(20)]
    drawn = plot_rows(report_of(rows), ONE)
    assert drawn is not None
    assert "The best 8 of 20 rows." in drawn.caption
    assert drawn.figure.get_size_inches()[1] < 8.0
    many = QuantityByRow(Quantity("leakage", "x", "%", ""), None, ((Interval(1, 0, 2),),) * 20)
    assert (
        "The best 8 of 20 rows." in plot_artefacts(report_of(rows), "leakage", [many], ONE).caption
    )


@pytest.mark.parametrize(("columns", "fits"), [(1, True), (2, True), (3, False)])
def test_a_legend_has_as_many_columns_as_fit(columns: int, fits: bool) -> None:
    # (a, b) and (c, d): 2 * (20 * 0.07 + 0.6) = 4.0; (a, b), (c) and (d): 0.67 more
    assert fits_across(["a" * 20, "b", "c" * 20, "d"], columns, 4.1) == fits


# --- the folder -----------------------------------------------------------------------------------


def test_the_sentences_say_protocol_seeds_and_test(tmp_path: Path) -> None:
    assert describe_experiment(compared(tmp_path)) == [
        "Protocol demo_500_test: 400 generated images, the mean over 3 such sets, against 500 real "
        f"ones of the split test, extractor tiny (SHA-256 of its weights {'ab' * 32}), weights of "
        "the generator: ema.",
        "Numbers are fid (lower is better) at the last step, as mean and sample standard deviation "
        "over seeds 1, 2; lambda=100: 1 alone, without a deviation. Left out of lambda=1: 1 of 3 "
        "runs.",
        "Each row was compared with the best, lambda=10, by Welch's t-test (two-sided, over seeds, "
        "p-values not corrected for the number of tests, 1): lambda=1: p = 0.038. Not tested, "
        "having no spread: lambda=100.",
    ]


def test_the_best_of_several_seeds_is_named_where_it_is_not_the_first(tmp_path: Path) -> None:
    report = compared(tmp_path)
    first, second, third = report.rows
    said = describe_experiment(report._replace(rows=(third, first, second)))[-1]
    assert said.startswith(
        "Each row was compared with the best of several seeds, lambda=10, by Welch's t-test"
    )


def test_what_weakens_the_numbers_is_said(tmp_path: Path) -> None:
    going = [run_of(tmp_path / "a", 4, status=Status.RUNNING)]
    report = report_of([row_of("a", going, {})], step="best", protocols=())
    report = report._replace(warnings=("NOT COMPARABLE: a and b", "another"))
    beware, protocol, seeds, test = describe_experiment(report)
    assert beware == "NOT COMPARABLE: a and b"
    assert protocol == "The protocol is not recorded, as no run has finished."
    assert "chosen by the same numbers that are reported: this flatters every row" in seeds
    assert seeds.endswith("of one seed (4). Not finished of a: 1 of 1 runs.")
    assert (
        test == "No difference was tested: a test needs two rows of at least two seeds that differ."
    )


def test_the_weights_are_those_that_runs_had(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / each, 1)._replace(protocol={**PROTOCOL, "generator_weights": each})
        for each in ("ema", "raw")
    ]
    rows = [row_of(run.path.name, [run], {}) for run in runs]
    record = {**PROTOCOL, "weights": "auto", "generator_weights": "ema"}
    (protocol, *_) = describe_experiment(report_of(rows, protocols=(record,)))
    assert protocol.endswith("weights of the generator: ema, raw.")


def test_two_protocols_of_one_name_have_their_own_weights(tmp_path: Path) -> None:
    records = [
        {**PROTOCOL, "resize": resize, "generator_weights": weights}
        for resize, weights in (("none", "ema"), ("224", "raw"))
    ]
    runs = [run_of(tmp_path / str(i), 1)._replace(protocol=r) for i, r in enumerate(records)]
    rows = [row_of(run.path.name, [run], {}) for run in runs]
    first, second, *_ = describe_experiment(report_of(rows, protocols=tuple(records)))
    assert first.endswith("weights of the generator: ema.")
    assert second.endswith("weights of the generator: raw.")


def test_the_example_includes_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "paper"
    report = compared(tmp_path)
    report = report._replace(title="50 % of β")
    paths = write_paper(report, folder, ("pdf",))
    assert {path.relative_to(folder).as_posix() for path in paths} >= {
        "table.tex",
        "statement.tex",
        "statement.txt",
        "example.tex",
        "figures/sweep_1column.pdf",
        "figures/sweep_2columns.pdf",
    }
    assert all(path.is_file() for path in paths)
    example = (folder / "example.tex").read_text(encoding="ascii")
    assert r"\caption{50 \% of $\beta$}" in example
    assert all((folder / f"{name}.tex").is_file() for name in re.findall(r"\\input{(.*)}", example))
    included = re.findall(r"\\includegraphics\[.*\]{(.*)}", example)
    assert included == ["figures/headline_1column", "figures/sweep_1column"]
    assert all((folder / f"{name}.pdf").is_file() for name in included)
    assert example.count("{") == example.count("}")
    statement = (folder / "statement.tex").read_text(encoding="ascii")
    assert "lambda=1: p = 0.038" in statement
    assert r"demo\_500\_test" in statement


def test_one_seed_is_no_mean_and_steps_that_differ_are_said(tmp_path: Path) -> None:
    rows = [row_of(name, [run_of(tmp_path / name, 1)], {}) for name in "ab"]
    (text,) = [each for each in describe_experiment(report_of(rows)) if each.startswith("Numbers")]
    assert "at the last step, of one seed (1)." in text
    assert "deviation" not in text
    assert "Measured" not in text
    rows = [*sweep(tmp_path).rows, rows[0]._replace(steps=(100,))]
    (text,) = [each for each in describe_experiment(report_of(rows)) if each.startswith("Numbers")]
    assert "deviation over seeds 1, 2; a: 1 alone, without a deviation." in text
    assert "Measured at step 200; a: 100." in text

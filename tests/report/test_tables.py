"""The formats, cell by cell, and text that is awkward in each of them."""

import csv
import io
import re
from pathlib import Path

import pytest
from support.run_folders import write_run

from crgan_cli.report.collect import collect
from crgan_cli.report.latex import escape_latex, to_latex
from crgan_cli.report.model import Report
from crgan_cli.report.rows import build_report
from crgan_cli.report.statistics import mean_and_std
from crgan_cli.report.tables import (
    escape_markdown,
    format_spread,
    format_steps,
    list_remarks,
    rows_to_csv,
    runs_to_csv,
    to_aligned_text,
    to_csv,
    to_markdown,
)
from crgan_cli.report.write import write_report

AWKWARD = "a_b|c & 5% #1 $x$ {y} ~^\\ <b>"


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Two weights, of two seeds and of one, with a published number beside the first."""
    source = {
        "published.fid": 18.72,
        "published.source": "arXiv:2002.04724, small models",
        "published.protocol": "demo_10k_test",
    }
    others = {"is": 8.0, "is_std": 0.1, "fid_floor": 2.5}
    for seed, fid in {1: 20.0, 2: 21.0}.items():
        write_run(tmp_path / f"a{seed}", {300: fid}, seed=seed, settings=source, others=others)
    settings = {"regularizer.lambda_cr": 1, **source}
    write_run(tmp_path / "b", {100: 25.0, 300: 30.0}, settings=settings, others=others)
    return build_report(collect([tmp_path]), title="A report")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([86.0, 88.0], "87.0 ± 1.4 (n=2)"),
        ([0.061, 0.063, 0.062], "0.0620 ± 0.0010 (n=3)"),
        ([100.0, 300.0], "200 ± 141 (n=2)"),
        ([64.2594], "64.26 (n=1)"),
        ([0.0352979], "0.03530 (n=1)"),
        ([12345.6], "12346 (n=1)"),
        ([0.0], "0.00 (n=1)"),
        ([3.0, 3.0], "3.000 ± 0.000 (n=2)"),
        ([-0.5], "-0.5000 (n=1)"),
    ],
)
def test_a_spread_has_two_digits_of_its_deviation_and_says_n(
    values: list[float], words: str
) -> None:
    assert format_spread(mean_and_std(values)) == words


def test_a_span_has_two_ends() -> None:
    assert [format_steps(steps) for steps in ((), (300,), (100, 200, 300))] == [
        "",
        "300",
        "100 to 300",
    ]


def test_the_text_is_aligned_and_best_first(report: Report) -> None:
    lines = to_aligned_text(report).splitlines()
    assert lines[0] == "A report"
    head, rule, best, other = lines[2:6]
    assert re.split(r"  +", head) == [
        *("settings", "fid ↓", "is ↑", "last step", "time", "published", "note"),
    ]
    assert set(rule) == {"-"}
    assert re.split(r"  +", best) == [
        *("lambda_cr=10", "20.50 ± 0.71 (n=2)", "8.000 ± 0.000 (n=2)", "300", "1.2 min"),
        "18.72: ours +1.78, within our spread (p = 0.29)",
    ]
    assert re.split(r"  +", other)[-1] == "n=1: no statement"
    assert head.index("fid ↓") + len("fid ↓") == best.index(" (n=2)") + len(" (n=2)")
    assert not any(line != line.rstrip() for line in lines)


def test_under_the_table_stand_protocol_sources_floor_and_warnings(report: Report) -> None:
    said = list_remarks(report._replace(warnings=("run x failed",), step="best"))
    assert said[0] == "protocol: demo_10k_test (extractor inception, SHA-256 6726825d)"
    assert "Welch" in said[1]
    assert "this flatters every row" in said[2]
    assert said[3].startswith("fid_floor 2.500: real-vs-real distance")
    assert said[4] == "published 18.72: arXiv:2002.04724, small models, protocol demo_10k_test"
    assert said[5:] == ["run x failed"]
    assert not any("flatter" in line for line in list_remarks(report))


def test_the_number_of_real_images_stands_under_the_table(tmp_path: Path) -> None:
    others = {"class_accuracy": 0.8, "class_accuracy_real": 0.9, "ms_ssim_n9_real": 0.3}
    write_run(tmp_path / "a", {300: 20.0}, others=others)
    said = list_remarks(build_report(collect([tmp_path]), title="A report"))
    assert said[-2:] == [
        "class_accuracy_real 0.9000: that of real images",
        "ms_ssim_n9_real 0.3000: that of real images",
    ]


def test_markdown_has_as_many_cells_in_every_line(report: Report) -> None:
    lines = to_markdown(report._replace(title=AWKWARD)).splitlines()
    assert lines[0] == "# a\\_b\\|c & 5% #1 $x$ {y} ~^\\\\ \\<b\\>"
    table = lines[2:6]
    assert {len(line) for line in table} == {len(table[0])}
    assert {line.count("|") for line in table} == {8}
    kinds = [cell.strip() for cell in table[1].strip("|").split("|")]
    assert [cell.endswith(":") for cell in kinds] == [False, True, True, True, True, False, False]
    assert table[2].startswith("| lambda\\_cr=10 ")
    assert lines[7].startswith("- protocol: demo\\_10k\\_test")


def test_latex_is_a_booktabs_table_with_the_best_in_bold(report: Report) -> None:
    text = to_latex(report)
    body = text[text.index(r"\begin") :].splitlines()
    assert body == [
        r"\begin{adjustbox}{max width=\linewidth}",
        r"\begin{tabular}{lrrrrl}",
        r"  \toprule",
        r"  settings & fid $\downarrow$ & is $\uparrow$ & last step & time & published \\",
        r"  \midrule",
        r"  lambda\_cr=10 & \textbf{20.50 $\pm$ 0.71 (n=2)} & 8.000 $\pm$ 0.000 (n=2) & 300"
        r" & 1.2 min & 18.72: ours +1.78, within our spread (p = 0.29) \\",
        r"  lambda\_cr=1 & 30.00 (n=1) & 8.000 (n=1) & 300 & 36 s"
        r" & 18.72: ours +11.28, n=1: no statement \\",
        r"  \bottomrule",
        r"\end{tabular}",
        r"\end{adjustbox}",
    ]
    assert all(line.startswith("% ") for line in text[: text.index(r"\begin")].splitlines())


def test_long_names_of_metrics_stand_below_a_latex_table(tmp_path: Path) -> None:
    others = {"kid_effnet_n500": 0.1, "ms_ssim_n500": 0.2, "kid_clip_n500": 0.3, "psnr": 20.0}
    write_run(tmp_path / "a", {300: 20.0}, others=others)
    text = to_latex(build_report(collect([tmp_path]), title="A report"))
    head = text.partition("\\toprule\n")[2].splitlines()[0]
    assert [cell.strip() for cell in head.split("&")[1:6]] == [
        "fid $\\downarrow$",
        "KID 1 $\\downarrow$",
        "MS SSIM $\\downarrow$",
        "KID 2 $\\downarrow$",
        "psnr $\\uparrow$",
    ]
    assert text.endswith(
        "\\end{adjustbox}\n\\par\\smallskip{\\footnotesize KID 1: kid\\_effnet\\_n500; "
        "MS SSIM: ms\\_ssim\\_n500; KID 2: kid\\_clip\\_n500\\par}\n"
    )


def test_the_whole_file_for_latex_is_ascii(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 20.0})
    text = to_latex(build_report(collect([tmp_path]), title="Größe\nβ = 5 %"))
    assert text.isascii()
    assert text.startswith('% Gr\\"{o}')
    assert "$\\beta$ = 5 %\n" in text.splitlines(keepends=True)[0]


def test_awkward_text_means_itself() -> None:
    assert escape_latex(AWKWARD) == (
        r"a\_b\textbar{}c \& 5\% \#1 \$x\$ \{y\} \textasciitilde{}\textasciicircum{}"
        r"\textbackslash{} \textless{}b\textgreater{}"
    )
    assert escape_markdown("two\nlines [x](y)") == r"two lines \[x\](y)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Müller – naïve", r"M\"{u}ller -- na\"{i}ve"),
        ("λ=10 × 2", r"$\lambda$=10 $\times$ 2"),
        ("ΔΩ", r"$\Delta$$\Omega$"),
        ("[a]", "{[}a{]}"),  # after a line's end it would be a length
        ("猫😀", "U+732BU+1F600"),
    ],
)
def test_latex_gets_ascii(text: str, expected: str) -> None:
    assert escape_latex(text) == expected


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+1", "-cmd", "\tx"])
def test_no_cell_of_a_csv_is_a_formula(text: str) -> None:
    (record,) = records(to_csv([{"a": text, "b": -0.5, "c": "a=b"}]))
    assert record == {"a": f"'{text}", "b": "-0.5", "c": "a=b"}


def test_captions_of_markdown_are_escaped(report: Report, tmp_path: Path) -> None:
    label = "<script>|\nx"
    rows = [row._replace(label=label) for row in report.rows]
    write_report(report._replace(rows=tuple(rows)), tmp_path, ("md", "png"))
    text = (tmp_path / "report.md").read_text()
    assert "![" in text
    assert "<script>" not in text.replace(r"\<script\>", "")


def records(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_csv_of_rows_has_one_line_a_row(report: Report) -> None:
    best, other = records(rows_to_csv(report))
    assert best["label"] == "lambda_cr=10"
    assert (best["regularizer.lambda_cr"], best["runs"], best["n"]) == ("10", "2", "2")
    assert float(best["fid"]) == 20.5
    assert float(best["fid_deviation"]) == pytest.approx(0.5**0.5)
    assert (best["published_fid"], best["steps"]) == ("18.72", "300")
    assert (other["fid"], other["fid_deviation"], other["p_against_best"]) == ("30.0", "", "")
    assert other["note"] == "n=1: no statement"


def test_a_csv_of_runs_has_all_settings_and_the_numbers_that_count(report: Report) -> None:
    found = records(runs_to_csv(report._replace(step="best")))
    assert [line["fid"] for line in found] == ["20.0", "21.0", "25.0"]
    assert [line["of_step"] for line in found] == ["300", "300", "100"]
    assert [line["seed"] for line in found] == ["1", "2", "1"]
    assert [line["row"] for line in found] == ["lambda_cr=10", "lambda_cr=10", "lambda_cr=1"]
    assert found[0]["architecture.resolution"] == "32"
    assert found[0]["out"] == "null"
    assert found[0]["peak_memory_bytes"] == "1000"


def test_a_row_without_numbers_has_a_dash(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0})
    settings = {"regularizer.lambda_cr": 1}
    write_run(tmp_path / "b", {}, settings=settings, status="failed", more={"error": "nan, \n5"})
    report = build_report(collect([tmp_path]))
    last = next(
        line for line in to_aligned_text(report).splitlines() if line.startswith("lambda_cr=1 ")
    )
    assert re.split(r"  +", last)[1] == "-"
    assert re.split(r"  +", last)[-1] == "1 of 1 failed, no numbers"
    failed = records(runs_to_csv(report))[1]
    assert (failed["status"], failed["error"], failed["fid"]) == ("failed", "nan, \n5", "")
    assert r"lambda\_cr=1 & -" in to_latex(report)

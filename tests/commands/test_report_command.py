"""`crgan report`: what it prints and writes, what it refuses, and that it needs no torch."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image
from support.run_folders import PROTOCOL, write_run
from support.runs import Crgan, refused, train
from support.runs import crgan as in_a_process

from crgan_cli.report import write

TEXTS = ("report.md", "runs.csv", "rows.csv", "table.tex")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two weights of two seeds."""
    for value in (1, 10):
        for seed in (1, 2):
            settings = {"regularizer.lambda_cr": value}
            fids = {100: 70.0 + seed, 300: 50.0 + value + seed}
            write_run(tmp_path / "sweep" / f"{value}_{seed}", fids, seed=seed, settings=settings)
    return tmp_path / "sweep"


def test_it_prints_a_table_and_writes_the_formats_asked_for(sweep: Path, crgan: Crgan) -> None:
    code, out, err = crgan("report", sweep, "--format", "md,csv,tex")
    assert (code, err) == (0, "")
    assert out.startswith("4 runs of sweep\n")
    assert out.index("lambda_cr=1 ") < out.index("lambda_cr=10")
    assert "52.50 ± 0.71 (n=2)" in out
    files = [sweep / "report" / name for name in TEXTS]
    assert out.split()[-4:] == [str(file) for file in files]
    assert sorted((sweep / "report").iterdir()) == sorted(files)
    again = crgan("report", sweep, "--format", "md,csv,tex")
    assert again == (0, out, "")


def test_several_folders_go_into_one_report_here(sweep: Path, crgan: Crgan, tmp_path: Path) -> None:
    words = (sweep / "1_1", sweep / "10_1", "--format", "csv", "--title", "T", "--step", "best")
    code, out, _ = crgan("report", *words)
    assert code == 0
    assert out.startswith("T\n")
    assert "best step" in out
    assert sorted(file.name for file in (tmp_path / "report").iterdir()) == ["rows.csv", "runs.csv"]


def test_the_page_is_written_among_the_files(sweep: Path, crgan: Crgan, tmp_path: Path) -> None:
    code, out, _ = crgan("report", sweep, "--out", "deep/here")
    assert code == 0
    page = tmp_path / "deep" / "here" / "report.html"
    assert out.split()[-1] == "deep/here/report.html"
    assert "lambda_cr=10" in page.read_text(encoding="utf-8")
    assert {*TEXTS} <= {file.name for file in page.parent.iterdir()}
    links = re.findall(r"!\[.*\]\((.*)\)", (page.parent / "report.md").read_text(encoding="utf-8"))
    assert "figures/headline.png" in links
    for link in links:
        with Image.open(page.parent / unquote(link)) as picture:
            assert picture.width > 10


def test_figures_for_a_paper_go_to_the_report_or_to_their_own_folder(
    crgan: Crgan, tmp_path: Path
) -> None:
    write_run(tmp_path / "a", {300: 50.0})
    code, out, _ = crgan("report", "a", "--format", "csv", "--figures", "svg")
    assert code == 0
    figures = ["a/report/figures/headline_1column.svg", "a/report/figures/headline_2columns.svg"]
    assert out.split()[-2:] == figures
    words = ("--format", "csv", "--out", "b", "--paper", "paper", "--figures", "png")
    code, out, _ = crgan("report", "a", *words)
    assert code == 0
    assert "paper/statement.tex" in out
    suffixes = {path.suffix for path in (tmp_path / "paper" / "figures").iterdir()}
    assert suffixes == {".pdf", ".png"}, "PDF always: example.tex includes it"
    assert not (tmp_path / "b" / "figures").exists()


def test_a_terminal_gets_a_table_that_fits(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crgan_cli.report.collect import collect
    from crgan_cli.report.rows import build_report

    report = build_report(collect([sweep]), title="[bold]4 runs")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        patch.setenv("TERM", "dumb")  # of 80 columns
        write.print_report(report)
    out = capsys.readouterr().out
    assert "[bold]4 runs" in out
    assert "lambda_cr=10" in out
    assert max(map(len, out.splitlines())) <= 80


def test_text_formats_need_neither_torch_nor_matplotlib(sweep: Path, tmp_path: Path) -> None:
    """They answer at once, on a machine's login node too."""
    for name in ("torch", "matplotlib"):
        (tmp_path / "absent" / name).mkdir(parents=True)
        (tmp_path / "absent" / name / "__init__.py").write_text("raise ImportError('not here')")
    done = in_a_process(
        *("report", str(sweep), "--format", "md,csv,tex"),
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "absent")},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_real_runs_are_reported(crgan: Crgan, tmp_path: Path) -> None:
    steps = ("steps=2", "metrics.every=1", "samples.every=2", "checkpoint.every=2")
    for weight in (1, 10):
        train(tmp_path / "runs" / str(weight), *steps, f"regularizer.lambda_cr={weight}")
    code, out, _ = crgan("report", "runs", "--format", "md")
    assert code == 0
    assert "lambda_cr=10" in out
    assert "fd_effnetlite0_32_n8 ↓" in out
    assert "demo_8_test" in out


def test_a_failed_run_is_said(sweep: Path, crgan: Crgan) -> None:
    write_run(sweep / "20_1", {}, status="failed", more={"error": "RunFailed: loss/d became nan"})
    code, out, _ = crgan("report", sweep, "--format", "md")
    assert code == 0
    assert f"{sweep / '20_1'} failed at step 300 of 300: RunFailed: loss/d became nan" in out


# --- what is refused ---


def test_what_is_no_run_is_refused(crgan: Crgan, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(crgan("report", "empty"), "empty is empty", "Give the folders of runs")
    refused(crgan("report", "gone"), "there is nothing at gone")
    refused(crgan("report"), "required: DIR")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert not list((tmp_path / "empty").iterdir())


def test_runs_without_metrics_are_refused(crgan: Crgan, tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, settings={"metrics._target_": {}, "architecture.z_dim": 8})
    refused(crgan("report", "a"), "has metrics: there is nothing to compare", "metrics=demo")


def test_a_run_of_another_version_is_refused(sweep: Path, crgan: Crgan) -> None:
    (sweep / "1_1" / "config.yaml").write_text("generator: sndcgan")
    refused(crgan("report", sweep), "1_1/config.yaml cannot be read", "made by crgan 0.1.0")


def test_two_protocols_are_refused_and_forced_with_a_warning(sweep: Path, crgan: Crgan) -> None:
    file = sweep / "1_1" / "result.json"
    result = json.loads(file.read_text())
    result["protocol"] = {**PROTOCOL, "num_samples": 500}
    file.write_text(json.dumps(result))
    refused(crgan("report", sweep), "different protocols", "num_samples", "--force")
    code, out, _ = crgan("report", sweep, "--force", "--format", "md")
    assert code == 0
    assert "NOT COMPARABLE" in out
    assert "NOT COMPARABLE" in (sweep / "report" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "pdf"], "'pdf' is not of md, csv, tex, html, png"),
        (["--format", ""], "'' is not of"),
        (["--figures", "eps"], "'eps' is not of pdf, svg, png"),
        (["--step", "first"], "'first' is not last, best or a step such as 3000"),
        (["--step", "0"], "'0' is not last, best or a step"),
        (["--step", "200"], "--step 200: no run has fid at this step. The nearest evaluations are"),
        (["--metric", "recall"], "--metric recall: no run has this metric. Choose one of: fid."),
        (["--out", "file"], "the folder file cannot be created"),
        (
            ["--paper", "file"],
            "the folder file cannot be created (File exists). Choose another with",
        ),
    ],
)
def test_what_was_typed_wrongly_is_named(
    words: list[str], said: str, sweep: Path, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    refused(crgan("report", sweep, *words), said)
    assert not (sweep / "report").exists()


def test_a_disk_that_is_full_is_a_failure(
    sweep: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crgan_cli.system.atomic.write_text", full)
    code, _, err = crgan("report", sweep, "--format", "md")
    assert code == 1
    assert "crgan report: failed: writing to" in err
    assert "No space left on device" in err

"""`latest` stands for the newest run, wherever a run is named."""

import os
from pathlib import Path

import pytest
from support.run_folders import write_run
from support.runs import Crgan, refused

from crgan_cli.commands import artefacts, eval, info, report, sample, train, translate
from crgan_cli.commands.main import Parser
from crgan_cli.errors import UserError
from crgan_cli.report.latest import find_latest, resolve_run

FIRST, SECOND = "20260101-120000-000000-ab12-demo", "20260301-120000-000000-ab12-demo"
LOGGED = "2026-02-01 12:00:00,123 INFO device cpu\n2027-01-01 12:00:00,000 INFO resumed\n"
NAMING = (  # the command, its words, and the argument that is a run
    (sample, ("latest",), "checkpoint"),
    (translate, ("latest", "in", "--out", "out"), "checkpoint"),
    (artefacts, ("latest",), "checkpoint"),
    (info, ("latest",), "path"),
    (report, ("latest",), "folders"),
    (train, ("--from", "latest"), "start"),
    (eval, ("x", "--against", "latest"), "against"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_newest_run_is_the_one_that_was_started_last(here: Path) -> None:
    """By the names that crgan gives, by the log of a folder of another name; not by file times."""
    outputs = here / "outputs"
    named = write_run(outputs / "demo" / FIRST, {})
    logged = write_run(outputs / "sweeps" / "x" / "seed=1", {})
    (logged / "train.log").write_text(LOGGED)
    os.utime(named / "overrides.txt", (4e9, 4e9))
    assert find_latest(outputs) == logged
    latest = write_run(outputs / "2026-03-01" / SECOND, {})
    assert find_latest(outputs) == latest
    unlogged = write_run(outputs / "mine", {})
    os.utime(unlogged / "overrides.txt", (4e9, 4e9))
    assert find_latest(outputs) == unlogged


def test_a_command_says_which_run_it_took(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(here / "outputs" / "demo" / FIRST, {})
    assert (here / resolve_run("latest")) == run
    assert (here / resolve_run("latest/checkpoints/best.pt")) == run / "checkpoints" / "best.pt"
    assert capsys.readouterr().err == f"latest: outputs/demo/{FIRST}\n" * 2
    assert resolve_run("./latest") == Path("latest")
    assert resolve_run("latest.pt") == Path("latest.pt")
    assert capsys.readouterr().err == ""


def test_a_folder_of_that_name_comes_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(here / "outputs" / "demo" / FIRST, {})
    write_run(here / "latest", {})
    assert resolve_run("latest") == Path("latest")
    assert f"latest: {here / 'latest'}, which is here: not the new" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "words", "name"), NAMING, ids=lambda x: getattr(x, "help", ""))
def test_every_command_that_takes_a_run_knows_it(here: Path, command, words, name) -> None:
    run = Path("outputs", "demo", FIRST)
    write_run(here / run, {})
    parser = Parser(prog="crgan", conflict_handler="resolve")
    command.configure(parser)
    found = getattr(parser.parse_intermixed_args(words), name)
    assert found in (run, [run])


def test_eval_knows_it_among_its_words_too(here: Path) -> None:
    write_run(here / "outputs" / "demo" / FIRST, {})
    paths, _ = eval.split_paths_and_overrides(["latest", "metrics=demo"])
    assert paths == [Path("outputs", "demo", FIRST)]


def test_without_a_run_it_is_said_where_one_was_looked_for(here: Path, crgan: Crgan) -> None:
    (here / "outputs").mkdir()
    said = f"newest run below {here / 'outputs'}, and no run is there", "crgan train experiment="
    refused(crgan("sample", "latest"), *said)
    refused(crgan("eval", "latest"), *said)
    with pytest.raises(UserError, match="no run is there"):
        find_latest(here / "elsewhere")

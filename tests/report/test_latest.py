"""`latest` stands for the newest run, wherever a run is named."""

import os
import re
from pathlib import Path

import pytest
from support.run_folders import write_run
from support.runs import Crgan, refused

from crgan_cli.commands import eval
from crgan_cli.commands.main import COMMANDS, Parser, load_command
from crgan_cli.commands.sample import parse_run
from crgan_cli.errors import UserError
from crgan_cli.experiments.check import prepare_overrides
from crgan_cli.report.latest import find_latest, resolve_run

FIRST, SECOND = "20260101-120000-000000-ab12-demo", "20260301-120000-000000-ab12-demo"
LOGGED = "2026-02-01 12:00:00,123 INFO device cpu\n2027-01-01 12:00:00,000 INFO resumed\n"


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


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_that_names_a_run_knows_it(name: str) -> None:
    parser = Parser(prog="crgan", conflict_handler="resolve")
    load_command(name).configure(parser)
    of_runs = [
        action
        for action in parser._actions
        if re.search(r"\bRUN|^DIR$|_RUN", str(action.metavar)) or action.dest == "against"
        if action.dest not in ("what", "config_dir")  # eval's words: below
    ]
    assert [action.dest for action in of_runs if action.type is not parse_run] == []
    assert bool(of_runs) == (name not in ("reproduce", "completion"))


def test_a_run_is_looked_up_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("outputs", "demo", FIRST)
    write_run(here / run, {})
    for words, name in ((("latest",), "checkpoint"), (("--seed", "1", "latest"), "checkpoint")):
        parser = Parser(prog="crgan")
        load_command("sample").configure(parser)
        assert getattr(parser.parse_intermixed_args(words), name) == run
        assert capsys.readouterr().err == f"latest: {run}\n"


def test_eval_knows_it_among_its_words_too(here: Path) -> None:
    write_run(here / "outputs" / "demo" / FIRST, {})
    paths, _ = eval.split_paths_and_overrides(["latest", "metrics=demo"])
    assert paths == [Path("outputs", "demo", FIRST)]


def test_a_setting_that_names_a_run_knows_it(here: Path) -> None:
    """It is named before the jobs of a sweep begin, of which one would be the newest."""
    write_run(here / "outputs" / "demo" / FIRST, {})
    assert prepare_overrides(["init_from=latest"]) == [f"init_from=outputs/demo/{FIRST}"]
    for word in ("init_from=latest.pt", "out=latest", "init_from=RUN//x", "seed=1,2"):
        assert prepare_overrides([word]) == [word]


def test_without_a_run_it_is_said_where_one_was_looked_for(here: Path, crgan: Crgan) -> None:
    (here / "outputs").mkdir()
    said = f"newest run below {here / 'outputs'}, and no run is there", "crgan train experiment="
    refused(crgan("sample", "latest"), *said)
    refused(crgan("eval", "latest"), *said)
    with pytest.raises(UserError, match="no run is there"):
        find_latest(here / "elsewhere")

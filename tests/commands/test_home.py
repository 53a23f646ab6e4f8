"""`~` is the home folder in every path: of arguments, of settings and of environment variables."""

import argparse
from pathlib import Path

import pytest
from support.runs import Crgan, refused, tiny, unmeasured

from crgan_cli.commands import main
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose
from crgan_cli.config.messages import quote_overrides
from crgan_cli.config.stored import Typed, from_text, to_text
from crgan_cli.config.trust import path_keys
from crgan_cli.errors import UserError
from crgan_cli.experiments.check import check_jobs
from crgan_cli.system.paths import expand_home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_the_home_folder_by_hand(home: Path) -> None:
    assert expand_home("~") == home
    assert expand_home("~/a b/c") == home / "a b" / "c"
    for unchanged in ("a/~", "./a", "/x~", "a~b"):
        assert expand_home(unchanged) == Path(unchanged)


def test_the_folder_of_nobody_is_refused(crgan: Crgan) -> None:
    with pytest.raises(UserError, match="'~nobody-here' stands for a home folder"):
        expand_home("~nobody-here/x")
    said = "'~nobody-here' stands for a home folder, and none of it is known here"
    refused(crgan("train", "out=~nobody-here/x"), said)
    refused(crgan("sample", "~nobody-here/x"), said)


def test_every_argument_that_is_a_path_is_parsed_as_one() -> None:
    words = {"path", "folder", "file", "dir", "run", "checkpoint_or_run", "input"}
    for name in main.COMMANDS:
        parser = argparse.ArgumentParser(conflict_handler="resolve")
        main.load_command(name).configure(parser)
        for action in parser._actions:
            if action.type is None and name != "eval":  # there paths and settings are one list
                assert str(action.metavar).lower() not in words, (name, action.dest)
            assert action.type is not Path, (name, action.dest)


@pytest.mark.parametrize(
    "choices",
    [
        ("dataset=folder", "metrics=none"),
        ("dataset=cifar10", "metrics.reference_file=~/x.npz"),
        ("extractor=inception", "metrics=fid10k_test", "extractor.weights=~/x.pth"),
        ("extractor=torchscript", "extractor.path=~/x.pt"),
    ],
)
def test_every_setting_that_is_a_path_is_expanded(home: Path, choices: tuple[str, ...]) -> None:
    typed = [*choices, "out=~/x/out", "data_root=~/x/sets"]
    typed += ["dataset.root=~/x/images"] if "dataset=folder" in choices else []
    config = compose(quote_overrides(typed))
    assert (config.out, config.data_root) == (f"{home}/x/out", f"{home}/x/sets")
    text = to_text(config)
    assert path_keys(config)
    assert "~" not in text
    assert f"{home}/x" in text


def test_a_path_typed_for_a_stored_configuration_is_expanded(home: Path) -> None:
    (home / "images").mkdir()
    images = ["dataset=folder", "metrics=none", f"dataset.root={home}"]
    typed = Typed(["dataset.root=~/images"], ("device",), "crgan eval")
    config = from_text(to_text(compose(images)), "a run", typed=typed)
    assert config.dataset.root == str(home / "images")


def test_a_run_below_the_home_folder(home: Path, crgan: Crgan, tmp_path: Path) -> None:
    assert crgan("train", *unmeasured(tiny("steps=1")), "out=~/run")[0] == 0
    assert crgan("train", "--from", "~/run")[0] == 0
    assert crgan("sample", "~/run", "--out=~/grid.png", "--n", "4")[0] == 0
    assert sorted(path.name for path in home.iterdir()) == ["grid.png", "run"]
    assert not (tmp_path / "~").exists()


def test_a_sweep_below_the_home_folder(home: Path) -> None:
    typed = quote_overrides(["out=~/sweep", "seed=1,2"])
    plan = check_jobs(typed, Choices(), multirun=True, whole=True)
    assert plan
    assert plan.folder == home / "sweep"

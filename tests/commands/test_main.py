"""The command line: what is typed, what is answered, and the exit code."""

import logging
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from crgan_cli import __version__
from crgan_cli.commands import main
from crgan_cli.config.compose import compose
from crgan_cli.config.stored import to_text
from crgan_cli.errors import Interrupted, RunFailed, UserError

Job = tuple[DictConfig, list[str], dict[str, str | None], Path | None]


ENV = os.environ | {"PYTHONPATH": str(Path(main.__file__).parents[2])}  # also where not installed


def fails(cfg: DictConfig) -> None:
    """Seeds from 100 on end badly, each in its way."""
    if cfg.seed == 100:
        raise UserError("no such data")
    if cfg.seed == 101:
        raise RunFailed("the disk is full")
    if cfg.seed == 102:
        error = ZeroDivisionError("x / 0")
        error.add_note("Its traceback is in RUN/log.txt.")
        raise error
    if cfg.seed == 103:
        raise Interrupted(signal.SIGTERM, "Saved.")
    if cfg.seed == 104:
        raise KeyboardInterrupt


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Job]:
    """The jobs that were trained, by a training that only notes them down."""
    seen: list[Job] = []

    def train_run(
        cfg: DictConfig,
        overrides: list[str],
        choices: dict[str, str | None],
        folder: Path | None,
        **_: object,
    ) -> float:
        seen.append((cfg, overrides, choices, folder))
        fails(cfg)
        return 1.0

    module = types.ModuleType("crgan_cli.training.start")
    module.train_run = train_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "crgan_cli.training.start", module)
    monkeypatch.chdir(tmp_path)
    return seen


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Hydra's --info sets up the logging of a process that ends soon after; here it goes on."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def crgan(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Answers a command line: exit code, standard output, standard error."""

    def answer(*argv: str) -> tuple[int, str, str]:
        code = main.run_command(list(argv))
        out, err = capsys.readouterr()
        return code, out, err

    return answer


def test_help_names_every_command(crgan) -> None:
    code, out, err = crgan("--help")
    assert (code, err) == (0, "")
    assert [name for name in main.COMMANDS if f"\n  {name} " not in out] == []
    assert "train" in main.COMMANDS


def test_version_is_that_of_the_package(crgan) -> None:
    assert crgan("--version") == (0, f"crgan {__version__}\n", "")


def test_no_command_shows_the_help_and_is_an_error(crgan) -> None:
    code, out, _ = crgan()
    assert code == 2
    assert out.startswith("usage: crgan COMMAND")


def test_a_misspelt_command_is_guessed(crgan) -> None:
    code, _, err = crgan("trian")
    assert code == 2
    assert err.startswith("crgan: error: Unknown command 'trian'. Did you mean 'train'?")


def test_a_setting_without_a_command_is_given_one(crgan) -> None:
    assert "type crgan train regularizer=icr" in crgan("regularizer=icr")[2]


def test_help_of_train_lists_groups_choices_and_settings(crgan, tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: crgan_cli.gan.Hinge\n")
    code, out, _ = crgan("train", "--help", "--config-dir", str(tmp_path))
    assert code == 0
    assert "regularizer   ac, bcr, classification, clip, cr*, cr_gp, dragan, drift, gp" in out
    assert "mine" in out
    assert "steps=200000 " in out
    assert "ema.decay=null " in out


def test_an_unknown_flag_is_named(crgan) -> None:
    code, _, err = crgan("train", "--multirn")
    assert code == 2
    assert "unrecognized arguments: --multirn. Type 'crgan train --help'." in err


@pytest.mark.parametrize("argv", [["seed=3", "steps=5"], ["regularizer=[cr,gp]"], []])
def test_one_run_is_trained_as_typed_and_says_nothing(crgan, jobs: list[Job], argv) -> None:
    assert crgan("train", *argv) == (0, "", "")
    ((cfg, overrides, choices, folder),) = jobs
    assert overrides == argv
    assert folder is None
    assert cfg == compose(argv)
    assert choices["regularizer"] == ("[cr,gp]" if "regularizer=[cr,gp]" in argv else "cr")
    assert choices["experiment"] is None
    assert not list(Path().iterdir())  # Hydra leaves nothing behind


def test_a_mistake_trains_nothing(crgan, jobs: list[Job]) -> None:
    code, out, err = crgan("train", "regularizr=icr")
    assert (code, out) == (2, "")
    assert err.startswith("crgan train: error: Unknown setting 'regularizr'. Did you mean")
    assert err.count("\n") == 1
    assert not jobs


def test_a_sweep_is_every_combination_in_folders_of_their_own(crgan, jobs: list[Job]) -> None:
    code, out, err = crgan("train", "regularizer.lambda_cr=1,5", "-m", "seed=1,2")
    assert (code, out) == (0, "")
    assert "job 2 of 4: regularizer.lambda_cr=1,seed=2" in err.splitlines()
    tried = [(job[0].regularizer.lambda_cr, job[0].seed) for job in jobs]
    assert tried == [(1, 1), (1, 2), (5, 1), (5, 2)]
    assert [folder.name for *_, folder in jobs if folder] == [
        f"regularizer.lambda_cr={weight},seed={seed}" for weight, seed in tried
    ]
    assert jobs[3][1] == ["regularizer.lambda_cr=5", "seed=2"]


def test_choices_ranges_and_globs_are_swept(crgan, jobs: list[Job]) -> None:
    assert crgan("train", "-m", "regularizer=glob(?cr)", "seed=range(4,5)")[0] == 0
    assert [(job[2]["regularizer"], job[0].seed) for job in jobs] == [
        (name, 4) for name in ("bcr", "icr", "zcr")
    ]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["regularizer=icr,icrr"], "Unknown choice 'icrr' in regularizer."),
        (
            ["regularizer.lambda_cr=1,-5", "seed=1,2"],
            "not -5. (in the job regularizer.lambda_cr=-5",
        ),
        (
            ["regularizer=cr,icr", "regularizer.lambda_cr=1,2"],
            "'lambda_cr' in regularizer. It is a key of",
        ),
        (["regularizer=glob(x*)"], "'regularizer=glob(x*)' matches no choice."),
        (["seed=interval(0,1)"], "has no end of values"),
        (["seed=range(200)", "regularizer.lambda_cr=1,2,-3"], "not -3"),
        (["seed=1,2", "out=x,y"], "is the one folder in which its runs are made"),
        (["seed=1,2", "out=x", "hydra.sweep.dir=y"], "type out=FOLDER instead"),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true is not for crgan: every path"),
        (["hydra.sweep.subdir=${hydra.job.num}"], "is named after its settings, below out=FOLDER"),
        (["seed=1,2", "--cfg", "job"], "leave out -m"),
    ],
)
def test_a_mistake_in_any_job_of_a_sweep_trains_none(crgan, jobs: list[Job], argv, said) -> None:
    code, out, err = crgan("train", "-m", *argv)
    assert (code, out) == (2, "")
    assert said in err
    assert not jobs


def test_an_experiment_can_ask_for_a_sweep(crgan, jobs: list[Job], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "grid.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 4,5\n"
    )
    assert crgan("train", "-cd", str(tmp_path), "experiment=grid", "steps=7")[0] == 0
    assert [(job[0].seed, job[0].steps) for job in jobs] == [(4, 7), (5, 7)]


@pytest.mark.parametrize(
    ("seed", "code", "said"),
    [
        (100, 2, "crgan train: error: no such data\n"),
        (101, 1, "crgan train: failed: the disk is full\n"),
        (
            102,
            1,
            "crgan train: failed: ZeroDivisionError: x / 0. Its traceback is in RUN/log.txt.\n",
        ),
        (103, 143, "crgan train: stopped. Saved.\n"),
        (104, 130, "crgan train: stopped.\n"),
    ],
)
def test_a_run_that_ends_badly_has_its_exit_code(crgan, jobs: list[Job], seed, code, said) -> None:
    assert crgan("train", f"seed={seed}") == (code, "", said)


def test_a_traceback_is_shown_only_on_request(crgan, jobs: list[Job], monkeypatch) -> None:
    monkeypatch.setenv("CRGAN_DEBUG", "1")
    assert "Traceback" in crgan("train", "seed=102")[2]


def test_a_failed_job_does_not_stop_a_sweep(crgan, jobs: list[Job]) -> None:
    code, out, err = crgan("train", "-m", "seed=100,101,2")
    assert (code, out) == (1, "")
    assert [job[0].seed for job in jobs] == [100, 101, 2]
    # the jobs of this test leave no files
    said_more = ("job 3 (seed=2) finished in", "no table: ")
    lines = [line for line in err.splitlines() if not line.startswith(said_more)]
    assert lines[:-1] == [
        "job 1 of 3: seed=100",
        "crgan train: job 1 (seed=100) failed: no such data",
        "job 2 of 3: seed=101",
        "crgan train: job 2 (seed=101) failed: the disk is full",
        "job 3 of 3: seed=2",
        "crgan train: 2 of 3 jobs failed:",
        "  job 1 (seed=100): no such data",
        "  job 2 (seed=101): the disk is full",
    ]
    assert "skips what is done, if it has out=" in lines[-1]
    assert crgan("train", "-m", "seed=100")[0] == 2


@pytest.mark.parametrize(("seed", "code"), [(103, 143), (104, 130)])
def test_an_interruption_stops_the_whole_sweep(crgan, jobs: list[Job], seed, code) -> None:
    assert crgan("train", "-m", f"seed=1,{seed},2")[0] == code
    assert [job[0].seed for job in jobs] == [1, seed]


def test_cfg_shows_the_configuration_and_trains_nothing(crgan, jobs: list[Job]) -> None:
    code, out, err = crgan("train", "--cfg", "job", "regularizer=icr", "--resolve")
    assert (code, err) == (0, "")
    assert out.rstrip() == to_text(compose(["regularizer=icr"])).rstrip()
    assert "root: ???" in crgan("train", "--cfg", "job", "dataset=folder")[1]
    assert crgan("train", "--cfg", "job", "steps=x")[0] == 2
    assert "regularizer/cr" in crgan("train", "--info", "defaults")[1]
    assert "root: ???" in crgan("train", "--cfg", "job", "dataset=folder", "-p", "dataset")[1]
    assert not jobs


def test_hydra_help_lists_hydras_groups_and_the_flags_that_are_here(crgan, jobs: list[Job]) -> None:
    code, out, err = crgan("train", "--hydra-help")
    assert (code, err) == (0, "")
    assert "\nhydra/launcher: basic" in out
    assert "\nhydra/sweeper: basic" in out
    offered, missing = out.split("It does not have:")
    assert "--package" in offered
    assert "--config-name" in missing
    assert not jobs


def test_a_folder_of_the_users_own_is_searched_by_every_way(crgan, jobs, tmp_path: Path) -> None:
    folder = tmp_path / "it's mine"
    (folder / "loss").mkdir(parents=True)
    (folder / "loss" / "mine.yaml").write_text("_target_: crgan_cli.gan.losses.Hinge\n")
    mine = ("train", "--config-dir", str(folder), "loss=mine")
    assert "losses.Hinge" in crgan(*mine, "--cfg", "job", "--package", "loss")[1]
    assert "loss/mine" in crgan(*mine, "--info", "defaults")[1]
    assert crgan(*mine)[0] == crgan(*mine, "-m", "seed=1,2")[0] == 0
    assert [job[0].loss._target_ for job in jobs] == ["crgan_cli.gan.losses.Hinge"] * 3


def test_hydras_parser_is_not_needed(crgan, jobs: list[Job], monkeypatch) -> None:
    """It fails on Python 3.14 before it reads an argument."""

    def fail() -> None:
        raise ValueError("badly formed help string")

    monkeypatch.setattr("hydra._internal.utils.get_args_parser", fail)
    monkeypatch.setattr(sys.modules["hydra.main"], "get_args_parser", fail)
    assert crgan("train", "seed=3") == (0, "", "")
    assert crgan("train", "-m", "seed=4,5")[0] == 0
    assert [job[0].seed for job in jobs] == [3, 4, 5]
    assert crgan("train", "--cfg", "job")[0] == crgan("train", "--hydra-help")[0] == 0


def test_a_run_leaves_no_open_hydra_and_can_be_followed_by_another(crgan, jobs: list[Job]) -> None:
    for argv in (["seed=1"], ["seed=101"], ["-m", "seed=2,3"], ["--cfg", "job"]):
        crgan("train", *argv)
        assert not GlobalHydra.instance().is_initialized()
    assert [job[0].seed for job in jobs] == [1, 101, 2, 3]


def test_a_job_knows_itself_from_hydra(crgan, tmp_path: Path, monkeypatch) -> None:
    seen: list[tuple[str, str, list[str]]] = []

    def train_run(*_: object, **__: object) -> float:
        node = HydraConfig.get()
        seen.append((node.job.name, str(node.mode), list(node.overrides.task)))
        return 1.0

    module = types.ModuleType("crgan_cli.training.start")
    module.train_run = train_run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "crgan_cli.training.start", module)
    monkeypatch.chdir(tmp_path)
    crgan("train", "seed=3")
    crgan("train", "-m", "seed=4")
    assert seen == [("train", "RunMode.RUN", ["seed=3"]), ("train", "RunMode.MULTIRUN", ["seed=4"])]


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """The folder of a run that can be continued."""
    folder = tmp_path / "run"
    folder.mkdir()
    cfg = compose(["regularizer=icr", "seed=7", "resume=never"])
    (folder / "config.yaml").write_text(to_text(cfg))
    return folder


def test_from_continues_a_run_as_it_was_configured(crgan, jobs: list[Job], started: Path) -> None:
    assert crgan("train", "--from", str(started), "steps=9", "device=cpu") == (0, "", "")
    ((cfg, _, _, folder),) = jobs
    assert (cfg.seed, cfg.steps, cfg.device, cfg.resume) == (7, 9, "cpu", "auto")
    assert cfg.regularizer.lambda_real == 10.0
    assert (cfg.out, folder) == (str(started), None)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["seed=8"], "log=, logger=, metrics.every= and optimizer= with it."),
        (["steps=x"], "steps must be a whole number"),
        (["-m"], "--from continues one run"),
    ],
)
def test_from_takes_nothing_that_changes_the_run(crgan, jobs, started: Path, argv, said) -> None:
    code, _, err = crgan("train", "--from", str(started), *argv)
    assert code == 2
    assert said in err
    assert not jobs


def test_from_a_folder_without_a_run_is_refused(crgan, jobs: list[Job], tmp_path: Path) -> None:
    assert "no run is there" in crgan("train", "--from", str(tmp_path))[2]


def test_help_and_mistakes_are_answered_without_torch(tmp_path: Path) -> None:
    code = """
import sys
from crgan_cli.commands.main import run_command
for line in sys.argv[1:]:
    code = run_command(line.split())
    print(line, code, "torch" in sys.modules, file=sys.stderr)
    assert "hydra" not in sys.modules or "=" in line or "--cfg" in line
"""
    lines = {
        "--help": 0,
        "--version": 0,
        "train --help": 0,
        "train regularizr=icr": 2,
        "train --cfg job": 0,
        "train -m seed=1,x": 2,
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *lines], capture_output=True, text=True, cwd=tmp_path, env=ENV
    )
    told = [line for line in done.stderr.splitlines() if line.endswith(("True", "False"))]
    assert told == [f"{line} {expected} False" for line, expected in lines.items()]


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys, os; from crgan_cli.commands.main import main;"
        "sys.argv[1:] = ['train', '--help'];"
        "r, w = os.pipe(); os.close(r); os.dup2(w, 1); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=ENV
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_in_an_import_stops_whatever_the_import_makes_of_it(tmp_path: Path) -> None:
    code = """
import os, signal, time
from crgan_cli.commands import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start tests without it

def dispatch(argv):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    except KeyboardInterrupt:
        raise ImportError("half a module") from None

main.dispatch = dispatch
main.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "train"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=ENV,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (130, "crgan train: stopped.\n")

"""A table of the papers as runs: one for each of its rows and seeds, in folders of fixed names.

A table is a file `tables/<name>.yaml`: its rows are experiments of `conf/experiment`,
which hold the settings and the published numbers. A scale, `tables/scale/<name>.yaml`,
says what is changed of all rows. No torch: each run is a `crgan train` in a process of its own,
which gives its memory back and takes nobody with it when it crashes.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import yaml

from crgan_cli.config import compose, messages
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import Settings
from crgan_cli.config.schema import nearest
from crgan_cli.errors import Interrupted, UserError
from crgan_cli.report.collect import is_locked
from crgan_cli.runs.folder import RunDir
from crgan_cli.system.signals import heard_by

TABLES = Path(__file__).parent / "tables"

INSTEAD = {
    "out": "give --out FOLDER",
    "seed": "give --seeds 1,2,3",
    "experiment": "each row is an experiment; train another with crgan train experiment=...",
    "resume": "a table is always gone on with; give another --out to start anew",
}
"""Settings that a table makes itself -> what to type."""

NEW, RESUME, FINISHED, RUNNING = "new", "resume", "finished", "running elsewhere"


class Row(NamedTuple):
    """One row of a table."""

    name: str  # of its runs' folders
    label: str  # as the paper calls it
    experiment: str
    overrides: tuple[str, ...]


class Table(NamedTuple):
    """A table of a paper."""

    name: str
    title: str
    protocol: str  # of the published numbers
    rows: tuple[Row, ...]


class Scale(NamedTuple):
    """At what size a table is run."""

    name: str
    title: str  # added to the report's; empty for the published size
    seeds: tuple[int, ...]  # where none are typed
    overrides: tuple[str, ...]
    architectures: Mapping[str, tuple[str, ...]]  # how an experiment's name ends -> more of them
    cpu_minutes: float | None  # a run, on one thread; None where a GPU is meant


class Job(NamedTuple):
    """A row with a seed."""

    row: Row
    seed: int
    folder: Path
    overrides: tuple[str, ...]  # of crgan train, without the seed and the folder
    config: Settings  # whole and checked

    @property
    def words(self) -> list[str]:
        """The command line behind `crgan`."""
        return ["train", *self.overrides, f"seed={self.seed}", f"out={quoted(str(self.folder))}"]

    @property
    def command(self) -> str:
        """What to type for this run alone."""
        return shlex.join(["crgan", *self.words])


class Failure(NamedTuple):
    """A run that ended badly. It has said why."""

    job: Job
    code: int  # its exit code


# --- reading --------------------------------------------------------------------------------------


def names() -> list[str]:
    """The tables that there are."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def scales() -> list[str]:
    """The scales that there are."""
    return sorted(path.stem for path in (TABLES / "scale").glob("*.yaml"))


def table_of(name: str) -> Table:
    """A table by its name. Raises UserError where there is none of it."""
    if name not in names():
        guess = nearest(name, names())
        hint = f"; did you mean '{guess}'?" if guess else "."
        raise UserError(f"There is no table '{name}'{hint} The tables are: {', '.join(names())}.")
    content = read(TABLES / f"{name}.yaml")
    rows = tuple(row_of(each) for each in content["rows"])
    return Table(name, content["title"], content["protocol"], rows)


def row_of(content: dict) -> Row:
    """A row. Its published number is its experiment's, but where it names one of its own."""
    overrides = tuple(content.get("overrides", ()))
    if published := content.get("published"):
        source = quoted(published["source"])
        overrides += (f"published.fid={published['fid']}", f"published.source={source}")
    return Row(content["name"], content["label"], content["experiment"], overrides)


def scale_of(name: str) -> Scale:
    """A scale by its name."""
    content = read(TABLES / "scale" / f"{name}.yaml")
    more = {net: tuple(each) for net, each in content.get("architectures", {}).items()}
    return Scale(
        name,
        content["title"],
        tuple(content["seeds"]),
        tuple(content["overrides"]),
        more,
        content.get("cpu_minutes"),
    )


def read(path: Path) -> dict:
    """A file of ours."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# --- planning -------------------------------------------------------------------------------------


def planned(
    table: Table, scale: Scale, seeds: Sequence[int], typed: Sequence[str], out: Path
) -> list[Job]:
    """All runs, seed by seed, so that the first seed's table is whole first.

    Raises UserError where a row cannot be run as it was typed.
    """
    require_own(out, table)
    typed = texts(typed)
    settings = {row.name: composed(row, overrides_of(row, scale, typed)) for row in table.rows}
    return [
        Job(
            row,
            seed,
            out / f"{row.name}_s{seed}",
            overrides_of(row, scale, typed),
            {**settings[row.name], "seed": seed},
        )
        for seed in seeds
        for row in table.rows
    ]


def require_own(out: Path, table: Table) -> None:
    """Raises UserError where something else than this table's runs lies in the folder."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out} is a file: give a folder, which is made if it is not there.")
    ours = re.compile(rf"({'|'.join(re.escape(row.name) for row in table.rows)})_s\d+")
    there = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if there and not any(ours.fullmatch(name) for name in there):
        raise UserError(
            f"the folder {out} holds other things ({', '.join(there[:3])}) and no run of the table "
            f"{table.name}. Choose another with --out FOLDER, or leave it out."
        )


def texts(typed: Sequence[str]) -> list[str]:
    """What was typed for all rows, in quotes where it needs them. Raises UserError for a setting
    that the table makes itself."""
    for word in typed:
        key = word.partition("=")[0].lstrip("+~")
        if key in INSTEAD or key.startswith("hydra."):
            reason = INSTEAD.get(key, "the runs of a table are not started by Hydra")
            raise UserError(f"'{word}': a table sets this for each of its runs: {reason}.")
    choices = Choices()
    with compose.searching(choices) as parser:
        return [messages.as_text(word, parser) for word in typed]


def overrides_of(row: Row, scale: Scale, typed: Sequence[str]) -> tuple[str, ...]:
    """The row's, then the scale's, then what was typed; of a key's several values the last."""
    nets = [more for net, more in scale.architectures.items() if row.experiment.endswith(f"_{net}")]
    words = [
        f"experiment={row.experiment}",
        *row.overrides,
        *scale.overrides,
        *(word for more in nets for word in more),
        *typed,
    ]
    return tuple({word.partition("=")[0]: word for word in words}.values())


def composed(row: Row, overrides: Sequence[str]) -> Settings:
    """A row's configuration. Raises UserError that names the row."""
    try:
        return compose.plain(compose.compose(overrides))
    except UserError as error:
        raise UserError(f"{error} (in the row {row.name})") from error


def quoted(text: str) -> str:
    """A text as Hydra's grammar reads it: bare where it can be nothing but text."""
    plainly = re.fullmatch(r"(\.{0,2}/|[A-Za-z_])[\w./+-]*", text, re.ASCII)
    if plainly and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    escaped = re.sub(r"(\\+)('|$)", r"\1\1\2", text).replace("'", "\\'")
    return f"'{escaped}'"


# --- running --------------------------------------------------------------------------------------


def state_of(job: Job) -> str:
    """What is to be done for a run: one of NEW, RESUME, FINISHED and RUNNING.

    Raises UserError where its folder holds a run of other settings.
    """
    run = RunDir(job.folder)
    if is_locked(job.folder / ".lock"):
        return RUNNING
    if not run.is_run():
        return NEW
    result, steps = run.read_result(), int(job.config["steps"])
    before = compose.from_text(run.config.read_text(encoding="utf-8"), str(run.config))
    changed = compose.difference(before, job.config)
    if result.get("step", 0) > steps:
        changed.append(f"steps: {result['step']} -> {steps}")
    if changed:
        lines = "".join(f"\n  {line}" for line in changed)
        raise UserError(
            f"{job.folder} holds a run with other settings:{lines}\n"
            "Choose another folder with --out FOLDER, or give the settings that it was begun with."
        )
    done = result.get("status") == "finished" and result.get("step") == steps
    return FINISHED if done else RESUME


class Conductor:
    """Runs one process after another, and passes signals on to the one that runs."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def listening(self) -> AbstractContextManager[None]:
        """Handles the signals while the body runs."""
        return heard_by(self.heard)

    def heard(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler. A run saves itself on the first signal, and ends on the second."""
        self.signum = signum
        if self.child is not None:
            self.child.send_signal(signum)

    def run(self, words: Sequence[str]) -> int:
        """The exit code of `crgan WORDS`, 128 + n where signal n ended it.

        Its last words go to stderr, with all else that it says: stdout is the table's.
        """
        self.child = subprocess.Popen(
            [sys.executable, "-m", "crgan_cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,  # Ctrl-C reaches it through us alone, and so once
        )
        if self.signum is not None:  # it came while the process was being made
            self.child.send_signal(self.signum)
        code = self.child.wait()
        self.child = None
        return code if code >= 0 else 128 - code


def conduct(jobs: Sequence[Job], say: Callable[[str], None]) -> list[Failure]:
    """Runs what is not finished, one after another. Returns what failed; the rest go on.

    Raises Interrupted where a signal has come: the run was saved.
    """
    conductor = Conductor()
    failures = []
    with conductor.listening():
        for number, job in enumerate(jobs, start=1):
            state = state_of(job)  # now: another crgan may have come before
            say(f"[{number} of {len(jobs)}] {job.row.label}, seed {job.seed}: {state}")
            code = conductor.run(job.words) if state in (NEW, RESUME) else 0
            if conductor.signum is not None:
                raise Interrupted(conductor.signum)
            if code:
                failures.append(Failure(job, code))
                say(f"{described(failures[-1])}; the rest go on")
    return failures


def described(failure: Failure) -> str:
    """A failure on one line."""
    job = failure.job
    return f"{job.folder} failed with exit code {failure.code}: {job.row.label}, seed {job.seed}"


def exit_code(failures: Sequence[Failure]) -> int:
    """Of the whole table: 2 where all that failed cannot be used as it was typed or given."""
    if not failures:
        return 0
    return 2 if all(failure.code == 2 for failure in failures) else 1

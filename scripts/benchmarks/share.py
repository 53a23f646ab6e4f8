"""What several runs side by side on one device train together, against one alone.

k processes of `crgan train` with the same configuration, on the demo's images and without metrics.
Time counts from when all of them are warm until each has taken the steps that were asked for, so
that all run all the time. What each has shown D is read from its metrics.jsonl as it grows.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

import torch

from crgan_cli.errors import UserError
from crgan_cli.experiments.sweep_table import read_last_lines
from crgan_cli.system import mps
from crgan_cli.system.atomic import write_json
from crgan_cli.system.device import resolve_device
from crgan_cli.system.threads import split_threads

from .checkout import environment
from .timing import heading, machine

ENDLESS = 10**9
"""Steps of each run: it is stopped when enough has been seen."""

LINES = 20
"""Lines of metrics.jsonl in the steps that count: time is known as exactly as they are apart."""

LOOK_SECONDS = 0.01


class Point(NamedTuple):
    """How far a run was when somebody looked."""

    when: float
    step: int
    images: int


class Racer:
    """One process of `crgan train`, and what has been seen of it."""

    def __init__(self, folder: Path, typed: Sequence[str]) -> None:
        self.folder = folder
        self.seen: list[Point] = []
        self.said = folder.with_suffix(".txt")
        with open(self.said, "w", encoding="utf-8") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "crgan_cli", "train", *typed, f"out={folder}"],
                env=environment(),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """A second signal ends a run at once, saved or not."""
        for _ in range(2):
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
                return
            except subprocess.TimeoutExpired:
                continue
        self.process.kill()
        self.process.wait()

    def look(self) -> None:
        """Notes the newest line, if it is new. Raises UserError where the run has ended."""
        if self.process.poll() is not None:
            words = " ".join(self.said.read_text(encoding="utf-8").split()[-60:])
            raise UserError(f"crgan train ended with {self.process.returncode}: {words}")
        lines = [
            line for line in read_last_lines(self.folder / "metrics.jsonl") if "images_seen" in line
        ]
        if lines and lines[-1]["step"] > self.step:
            newest = lines[-1]
            self.seen.append(Point(time.perf_counter(), newest["step"], newest["images_seen"]))

    @property
    def step(self) -> int:
        """The step of the newest line."""
        return self.seen[-1].step if self.seen else 0


def images_between(seen: Sequence[Point], start: float, end: float) -> float:
    """The images in a span of time, which lies within what was seen; between looks evenly."""
    return images_at(seen, end) - images_at(seen, start)


def images_at(seen: Sequence[Point], when: float) -> float:
    """The images until a time."""
    after = next(i for i, point in enumerate(seen) if point.when >= when)
    if after == 0 or seen[after].when == when:
        return float(seen[after].images)
    one, other = seen[after - 1], seen[after]
    part = (when - one.when) / (other.when - one.when)
    return one.images + part * (other.images - one.images)


class Race(NamedTuple):
    """What k processes came to."""

    k: int
    mps: str  # on, off; theirs where a daemon runs already; "" on a CPU
    seconds: float
    images_per_second: float  # of all together
    slowest: float  # images/s of one process
    fastest: float


def race(k: int, served: str, typed: Sequence[str], warm_up: int, steps: int) -> Race:
    """Runs k processes until each has taken so many steps beside all others, warm."""
    with ExitStack() as open_ones:
        place = Path(open_ones.enter_context(tempfile.TemporaryDirectory(prefix="crgan-share-")))
        if served == "on":
            open_ones.enter_context(mps.mps_daemon(place))
        open_ones.enter_context(split_threads(k))
        racers = [open_ones.enter_context(Racer(place / str(i), typed)) for i in range(k)]
        await_steps(racers, [warm_up] * k)
        start = max(racer.seen[-1].when for racer in racers)
        await_steps(racers, [racer.step + steps for racer in racers])
        end = min(racer.seen[-1].when for racer in racers)
        images = [images_between(racer.seen, start, end) for racer in racers]
    speeds = [each / (end - start) for each in images]
    return Race(k, served, end - start, sum(speeds), min(speeds), max(speeds))


def await_steps(racers: Sequence[Racer], steps: Sequence[int]) -> None:
    """Looks on until every run has taken its steps."""
    while any(racer.step < wanted for racer, wanted in zip(racers, steps, strict=True)):
        time.sleep(LOOK_SECONDS)
        for racer in racers:
            racer.look()


def ways(k: int, device: torch.device) -> list[str]:
    """With and without MPS, where there is a choice."""
    if device.type != "cuda":
        return [""]
    if mps.find_running_daemon(os.environ):
        return ["theirs"]
    return ["off", "on"] if k > 1 and shutil.which(mps.PROGRAM) else ["off"]


def table(races: Sequence[Race]) -> Iterator[str]:
    """The lines of a Markdown table."""
    alone = races[0].images_per_second
    yield "| processes | MPS | images/s together | times one | images/s a process | seconds |"
    yield "|---|---|---|---|---|---|"
    for each in races:
        yield (
            f"| {each.k} | {each.mps or '-'} | {each.images_per_second:.4g} "
            f"| {each.images_per_second / alone:.2f} "
            f"| {each.slowest:.4g} to {each.fastest:.4g} | {each.seconds:.1f} |"
        )


def run_share(args: argparse.Namespace) -> None:
    """Prints what each number of processes comes to."""
    given = dict(word.partition("=")[::2] for word in args.overrides)
    device = resolve_device(given.get("device", "auto"))
    every = max(args.steps // LINES, 1)
    never = [f"{what}.every={ENDLESS}" for what in ("samples", "checkpoint")]
    typed = ["dataset=demo", "metrics=none", *never, f"log.every={every}", f"device={device}"]
    typed += [f"steps={ENDLESS}", *(word for word in args.overrides if "device=" not in word)]
    races = []
    for k in sorted({1, *args.k}):
        for served in ways(k, device):
            races.append(race(k, served, typed, args.warm_up, args.steps))
            print(f"{k} side by side: {races[-1].images_per_second:.4g} images/s", file=sys.stderr)
    found = {**machine(device), "overrides": " ".join(args.overrides)}
    print("\n".join([*heading(found), "", *table(races)]))
    if args.json:
        rows = [each._asdict() for each in races]
        write_json(args.json, {"conditions": found, "rows": rows}, indent=2)


def numbers(text: str) -> list[int]:
    """1,2,4"""
    return [positive(word) for word in text.split(",")]


def positive(word: str) -> int:
    """A whole number of at least 1."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of at least 1")
    return int(word)


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The verb `share`."""
    verb = verbs.add_parser("share", help="several runs side by side on one device")
    verb.set_defaults(run=run_share)
    add = verb.add_argument
    add("--k", type=numbers, default=[1, 2, 4], metavar="A,B", help="processes (1,2,4); always 1")
    add("--steps", type=positive, default=200, help="of each process that count (200)")
    add("--warm-up", type=positive, default=50, help="steps of each process before (50)")
    add("--json", type=Path, metavar="FILE", help="where all numbers go as well")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="the configuration, as of crgan train")

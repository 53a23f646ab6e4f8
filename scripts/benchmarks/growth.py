"""What growing saves: crgan's run that grows beside one at full size from the start.

The schedule has as many images in each part: 4x4, then for each further resolution its fade and
what follows, to the end of the last. A step of each part and one at full size are timed by turns in
one process. A run's time is the sum of its steps; both runs show D the same number of images.
"""

import argparse
from functools import partial
from typing import NamedTuple

from omegaconf import DictConfig

from crgan_cli.data.levels import shrink_pixels
from crgan_cli.errors import UserError
from crgan_cli.gan.stages import Stage, Stages
from crgan_cli.system.device import resolve_device

from .game import Ours, compose_config, random_images
from .peers import Sets
from .timing import Timing, heading, machine, markdown, time_interleaved
from .train import STEPS, WARM_UP, words

FULL = "full size"


class Part(NamedTuple):
    """A stretch of the schedule."""

    stage: Stage
    fading: bool

    @property
    def name(self) -> str:
        return f"{self.stage.resolution} px{', fading in' * self.fading}"

    @property
    def first(self) -> int:
        """A step in the middle of the fade, or the first one after it."""
        return self.stage.first + self.stage.fade_steps // (1 + self.fading)


def list_parts(stages: Stages) -> list[Part]:
    """All parts that have images."""
    return [
        Part(stage, fading)
        for stage in stages
        for fading in (True, False)
        if stage.fade_steps or not fading
    ]


def shrink_sets(sets: Sets, factor: int) -> Sets:
    """The images of a stage."""
    return {name: each._replace(x=shrink_pixels(each.x, factor)) for name, each in sets.items()}


class Growing(NamedTuple):
    """Seconds per image that D is shown, of each part and at full size."""

    parts: dict[str, float]
    full: float

    @property
    def ratio(self) -> float:
        """How many times less time the run that grows takes, with as many images in each part."""
        return self.full * len(self.parts) / sum(self.parts.values())


def run_growth(args: argparse.Namespace) -> None:
    """Times all parts, and prints."""
    if min(args.rounds, args.steps_per_round or 1) < 1:
        raise UserError("--rounds and --steps-per-round are whole numbers of at least 1.")
    device = resolve_device(args.device)
    if device.type not in WARM_UP:
        raise UserError(f"--device {args.device}: only cpu and cuda can be timed here.")
    given = {"engine": args.engine, "engine.precision": args.precision}
    given |= {"engine.threads": args.threads} if args.threads else {}
    typed = [f"{key}={value}" for key, value in given.items()]

    def configure(*more: str) -> DictConfig:
        return compose_config("pggan", "+".join(args.reg), *typed, *args.overrides, *more)

    grows, whole = configure(), configure("task=generation")
    stages, parts = Stages.from_settings(grows), list_parts(Stages.from_settings(grows))
    sets = random_images(grows)
    full = stages.stages[-1].resolution
    sides = {
        part.name: Ours(
            grows, shrink_sets(sets, full // part.stage.resolution), device, first=part.first
        )
        for part in parts
    }
    sides[FULL] = Ours(whole, sets, device)
    for side in sides.values():
        side.run(WARM_UP[device.type])
    steps = args.steps_per_round or STEPS[device.type]
    works = {name: partial(side.run, steps) for name, side in sides.items()}
    times = time_interleaved(works, device, args.rounds)
    images = {part.name: steps * part.stage.batch_size * stages.n_dis for part in parts}
    images[FULL] = steps * whole.batch_size * stages.n_dis

    def by(kind: str) -> Growing:
        found = {name: getattr(times[name], kind) / images[name] for name in times}
        return Growing({name: found[name] for name in images if name != FULL}, found[FULL])

    conditions = {**machine(device), "engine": args.engine, "precision": args.precision}
    conditions |= {"batch": whole.batch_size, "width": whole.architecture.width}
    conditions |= {"rounds": args.rounds, "overrides": " ".join(args.overrides)}
    rows = [[name, *cells(times[name], steps)] for name in times]
    columns = ["part", "ms a step", "min", "CPU ms"]
    print("\n".join([*heading(conditions), "", *markdown(columns, rows)]))
    print(
        f"\nGrowing takes {by('cpu').ratio:.2f} times less CPU time than full size for the same "
        f"images, {by('median').ratio:.2f} by the clock, {by('minimum').ratio:.2f} by the fastest "
        "rounds."
    )


def cells(timing: Timing, steps: int) -> list[float]:
    """Milliseconds of a step."""
    return [1e3 * each / steps for each in (timing.median, timing.minimum, timing.cpu)]


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The verb `growth`."""
    verb = verbs.add_parser("growth", help="a run that grows, beside one at full size")
    verb.set_defaults(run=run_growth)
    add = verb.add_argument
    add("--reg", type=words, default=["gp", "drift"], metavar="A,B", help="(gp,drift)")
    add("--engine", default="auto", help="(auto)")
    add("--precision", default="fp32", help="fp32, tf32 or bf16 (fp32)")
    add("--rounds", type=int, default=7, help="of which the median counts (7)")
    add("--steps-per-round", type=int, help="(1 on a CPU, 50 on CUDA)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    add("--threads", type=int, help="on a CPU; the engine's choice unless given")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="further settings, as of crgan train")

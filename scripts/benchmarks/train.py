"""How long a training step takes: crgan's engines beside the step of other programs.

A step is D's turns and G's. TFLOP/s are those that crgan's step has with plain networks
(`training.flops`), on every side: a network that is folded shows the speed that the plain one
would need to keep up. Everything is trained on random pixels, with an average of G.

The theoretical cost of a regularizer is its step's FLOPs over those without one, as each side
computes them. Seconds of the start are those of the first steps beyond what such steps take later:
trying which convolutions to fold, compiling, capturing.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from omegaconf import DictConfig

from crgan_cli.config.build import build_group
from crgan_cli.errors import UserError
from crgan_cli.gan.build import get_task_class
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.tasks.generation import Generation
from crgan_cli.runs.provenance import get_peak_memory
from crgan_cli.system.atomic import write_json, write_text
from crgan_cli.system.device import allow_tf32, best_precision, resolve_device
from crgan_cli.training import flops, peaks

from . import kernels
from .game import (
    Ours,
    build_game,
    build_peer,
    compose_config,
    find_step,
    random_images,
    require_equal_losses,
)
from .peers import Sets
from .timing import Timing, heading, machine, markdown, time_interleaved, wait

WARM_UP = {"cpu": 2, "cuda": 6}  # steps; CUDA graphs are captured in the fourth turn of a kind
STEPS = {"cpu": 1, "cuda": 50}  # in a round, unless it is said
PEER = "peer"

Row = dict[str, str | int | float | bool | None]


class Side(Protocol):
    """What is timed."""

    def run(self, steps: int) -> None:
        """So many steps."""
        ...


class Contestant(NamedTuple):
    """One side, warm, and what was seen while it became so."""

    name: str
    precision: str
    side: Side
    tf32: bool  # whether convolutions may use it on CUDA
    warm_up: float  # seconds of the first steps
    memory: int | None  # bytes on the GPU, with weights, graphs and all
    kernels: int | None  # of a step

    def steps(self, number: int) -> None:
        """So many steps, with PyTorch set as this side has it."""
        allow_tf32(self.tf32)
        self.side.run(number)


def warm_up(
    name: str,
    precision: str,
    build: Callable[[], Side],
    device: torch.device,
    *,
    tf32: bool,
    compiled: bool = False,
) -> Contestant:
    """Builds a side and takes its first steps."""
    gc.collect()
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    side = build()
    wait(device)
    start = time.perf_counter()
    cold = Contestant(name, precision, side, tf32, 0.0, None, None)
    cold.steps(WARM_UP[device.type])
    wait(device)
    return cold._replace(
        warm_up=time.perf_counter() - start,
        memory=torch.cuda.max_memory_allocated(device) - before if cuda else None,
        kernels=kernels.count_step_kernels(partial(cold.steps, 1), device, compiled=compiled),
    )


class Game:
    """One architecture with one regularizer. Each configuration is composed once."""

    def __repr__(self) -> str:
        return f"{self.architecture} with {self.regularizer}"

    def __init__(
        self, architecture: str, regularizer: str, common: Sequence[str], *, fade: bool = False
    ) -> None:
        self.architecture, self.regularizer = architecture, regularizer
        self.config = cache(partial(compose_config, architecture, regularizer, *common))
        self.first = find_step(self.config(), fade=fade)
        """The first step that is taken."""

    def gflop(self, *overrides: str, unfrozen: bool = False) -> float | None:
        """Of a step; `unfrozen` computes the gradient of D's weights in G's turn as well.

        None for a translation, whose turns `training.flops` has no formula for.
        """
        config = self.config(*overrides)
        if not issubclass(get_task_class(config), Generation):
            return None
        size = {key: config.dataset[key] for key in ("resolution", "channels")}
        networks = flops.count_networks(config.architecture, **size)
        turns = flops.flops_per_turn(
            networks, CombinedRegularizer(**build_group(config.regularizer))
        )
        turns = turns._replace(g=turns.g + unfrozen * networks.net.d)
        n_dis = config.optimizer.n_dis
        return flops.flops_per_step(turns, n_dis=n_dis, batch_size=config.batch_size) / 1e9

    def peers_gflop(self) -> float | None:
        """Of the step of other programs: penalties by double backward, D never frozen."""
        penalised = "gradient" in self.config().regularizer
        words = ("regularizer.gradient=autograd",) if penalised else ()
        return self.gflop(*words, unfrozen=True)


def contestants(
    args: argparse.Namespace, game: Game, sets: Sets, device: torch.device
) -> list[Contestant]:
    """All sides of a game, the other programs' first."""
    found = []
    for engine in args.engine:
        for precision in args.precision:
            words = (f"engine={engine}", f"engine.precision={precision}")
            config, name = game.config(*words), f"{engine} {precision}"
            found.append(ours(config, sets, device, name, first=game.first))
            if args.g_twice:
                found.append(ours(config, sets, device, f"{name}, G twice", g_twice=True))
    if args.against == PEER:  # built last: by now crgan's engine has set the threads
        found.insert(0, peer(game.config(), sets, device, first=game.first))
    return found


def ours(
    config: DictConfig,
    sets: Sets,
    device: torch.device,
    name: str,
    *,
    g_twice: bool = False,
    first: int = 0,
) -> Contestant:
    """crgan with the engine of `config`, from step `first` on."""
    asked = config.engine.precision
    precision = best_precision(device) if asked == "auto" else asked
    return warm_up(
        name,
        precision,
        lambda: Ours(config, sets, device, g_twice=g_twice, first=first),
        device,
        tf32=precision != "fp32",
        compiled=config.engine.compile,
    )


def peer(config: DictConfig, sets: Sets, device: torch.device, *, first: int = 0) -> Contestant:
    """The step of other programs, with TF32 on CUDA where PyTorch's defaults have it."""
    return warm_up(
        PEER,
        "tf32" if device.type == "cuda" else "fp32",
        lambda: build_peer(config, build_game(config, first=first), sets, device),
        device,
        tf32=True,
    )


def time_game(args: argparse.Namespace, game: Game, sets: Sets, device: torch.device) -> list[Row]:
    """Times one game. Raises UserError where the sides do not play the same one."""
    config = game.config()
    if args.against == PEER:
        require_equal_losses(config, sets, first=game.first)
    steps = args.steps_per_round or STEPS[device.type]
    sides = contestants(args, game, sets, device)
    works = {side.name: partial(side.steps, steps) for side in sides}
    times = time_interleaved(works, device, args.rounds)
    images_a_step = config.batch_size * config.optimizer.n_dis
    gflop = game.gflop()
    of_peer = game.peers_gflop() if args.against == PEER else None
    against = times.get(PEER)
    return [
        {
            "architecture": game.architecture,
            "regularizer": game.regularizer,
            "side": side.name,
            **speeds(times[side.name], steps, images_a_step, gflop, device, side.precision),
            "kernels": side.kernels,
            "memory_bytes": side.memory,
            "start_seconds": seconds_to_start(side, times[side.name], steps, device),
            **compare_timings(times[side.name], None if side.name == PEER else against),
            "step_gflop": of_peer if side.name == PEER else gflop,
        }
        for side in sides
    ]


def speeds(
    timing: Timing,
    steps: int,
    images: int,
    gflop: float | None,
    device: torch.device,
    precision: str,
) -> Row:
    """A round's timing as a step's. `images` are the real ones that D is shown in a step."""
    seconds = timing.median / steps
    tflops = gflop / seconds / 1e3 if gflop else None
    peak = peaks.peak(device, precision)
    return {
        "ms": 1e3 * seconds,
        "ms_min": 1e3 * timing.minimum / steps,
        "ms_cpu": 1e3 * timing.cpu / steps,
        "steps_per_second": 1 / seconds,
        "images_per_second": images / seconds,
        "tflops": tflops,
        "share_of_peak": tflops * 1e12 / peak if tflops and peak else None,
        "spread": timing.spread,
        "steady": timing.reliable,
    }


def seconds_to_start(side: Contestant, timing: Timing, steps: int, device: torch.device) -> float:
    """Seconds by which the first steps were longer than later ones."""
    return max(0.0, side.warm_up - WARM_UP[device.type] * timing.median / steps)


def compare_timings(timing: Timing, against: Timing | None) -> Row:
    """How many times faster than the step of other programs, and whether that can be believed."""
    if against is None:
        none = dict.fromkeys(("ratio", "ratio_of_minima", "ratio_of_cpu"))
        return {**none, "reliable": timing.reliable}
    return {
        "ratio": against.median / timing.median,
        "ratio_of_minima": against.minimum / timing.minimum,
        "ratio_of_cpu": against.cpu / timing.cpu,
        "reliable": timing.reliable and against.reliable,
    }


def add_costs(rows: Sequence[Row]) -> None:
    """Beside each row: its cost over the same side without a regularizer, counted and measured."""
    bare = {(r["architecture"], r["side"]): r for r in rows if r["regularizer"] == "none"}
    for row in rows:
        base = bare.get((row["architecture"], row["side"]))
        for cost, key in (("cost_in_theory", "step_gflop"), ("cost_measured", "ms")):
            mine, of_base = row[key], base[key] if base else None
            row[cost] = float(mine) / float(of_base) if mine and of_base else None
        row["cost_reliable"] = bool(base and base["steady"] and row["steady"])


COLUMNS = {
    "architecture": "architecture",
    "regularizer": "regularizer",
    "side": "side",
    "ms": "ms a step",
    "ms_min": "min",
    "ms_cpu": "CPU ms",
    "steps_per_second": "steps/s",
    "images_per_second": "images/s",
    "tflops": "TFLOP/s",
    "share_of_peak": "of peak",
    "kernels": "kernels",
    "memory_bytes": "GB",
    "start_seconds": "start, s",
    "cost_in_theory": "cost in theory",
    "cost_measured": "cost measured",
    "ratio": "times faster than peer",
    "ratio_of_cpu": "by CPU time",
}


def cell(key: str, row: Row) -> object:
    """A value as the table shows it."""
    value = row[key]
    if value is None or isinstance(value, str):
        return value
    if key == "share_of_peak":
        return f"{value:.1%}"
    if key == "memory_bytes":
        return value / 1e9
    if key in ("ratio", "ratio_of_cpu", "cost_measured", "cost_in_theory"):
        trusted = row[{"ratio": "reliable", "cost_measured": "cost_reliable"}.get(key, "steady")]
        doubt = "" if trusted or key in ("cost_in_theory", "ratio_of_cpu") else " (unreliable)"
        return f"{value:.2f}{doubt}"
    return value


def table(rows: Sequence[Row]) -> list[str]:
    """The rows in Markdown, without columns in which nothing stands."""
    shown = [key for key in COLUMNS if any(row[key] is not None for row in rows)]
    names = [COLUMNS[key] for key in shown]
    return markdown(names, [[cell(key, row) for key in shown] for row in rows])


def run_train(args: argparse.Namespace) -> None:
    """Times all games, prints, and writes."""
    if min(args.rounds, args.batch or 1, args.steps_per_round or 1) < 1:
        raise UserError("--rounds, --batch and --steps-per-round are whole numbers of at least 1.")
    device = resolve_device(args.device)
    if device.type not in WARM_UP:
        raise UserError(f"--device {args.device}: only cpu and cuda can be timed here.")
    given = {
        "batch_size": args.batch,
        "architecture.width": args.width,
        "engine.threads": args.threads,
    }
    common = [f"{key}={value}" for key, value in given.items() if value is not None]
    overrides = (*common, *args.overrides)
    games = [Game(a, r, overrides, fade=args.fade) for a in args.arch for r in args.reg]
    rows: list[Row] = []
    load = os.getloadavg()[0]
    for game in games:
        rows += time_game(args, game, random_images(game.config()), device)
        print(f"{game} is done", file=sys.stderr)
    add_costs(rows)
    conditions = {
        **machine(device),
        "load_average_before": round(load, 2),
        "process_memory_gb": round(get_peak_memory(torch.device("cpu")) / 1e9, 2),
        "batch": distinct(game.config().batch_size for game in games),
        "width": distinct(game.config().architecture.width for game in games),
        "rounds": args.rounds,
        "steps_per_round": args.steps_per_round or STEPS[device.type],
        "fading in": args.fade,
        "overrides": " ".join(args.overrides),
    }
    text = "\n".join([*heading(conditions), "", *table(rows)])
    print(text)
    if args.json:
        write_json(args.json, {"conditions": conditions, "rows": rows}, indent=2)
    if args.markdown:
        write_text(args.markdown, text + "\n")


def distinct(values: Iterable[object]) -> str:
    """The different ones, in order."""
    return ", ".join(dict.fromkeys(map(str, values)))


def words(text: str) -> list[str]:
    """a,b,c"""
    return [word for word in text.split(",") if word]


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The verb `train`."""
    verb = verbs.add_parser("train", help="a training step, beside that of other programs")
    verb.set_defaults(run=run_train)
    add = verb.add_argument
    add("--arch", type=words, default=["sndcgan"], metavar="A,B", help="architectures (sndcgan)")
    add("--reg", type=words, default=["none", "cr"], metavar="A,B", help="regularizers (none,cr)")
    add("--engine", type=words, default=["auto"], metavar="A,B", help="engines (auto)")
    add("--precision", type=words, default=["fp32"], metavar="A,B", help="fp32, tf32, bf16 (fp32)")
    add("--batch", type=int, help="images a turn (64; pggan 16; unet, translator, stargan 4)")
    add("--width", type=float, help="of the networks (1.0; pggan, unet, translator, stargan 0.25)")
    add("--rounds", type=int, default=7, help="of which the median counts (7)")
    add("--steps-per-round", type=int, help="(1 on a CPU, 50 on CUDA)")
    add("--against", choices=(PEER, "none"), default=PEER, help="whose step is timed as well")
    add("--fade", action="store_true", help="networks that grow in the middle of the last fade")
    add("--g-twice", action="store_true", help="crgan as well with pix2pix's G run in both turns")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    add("--threads", type=int, help="on a CPU; the engine's choice unless given")
    add("--json", type=Path, metavar="FILE", help="where all numbers go as well")
    add("--markdown", type=Path, metavar="FILE", help="where the table goes as well")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="further settings, as of crgan train")

"""`crgan sample`: images from a checkpoint: a grid, a folder or a zip of PNGs, a movie."""

import argparse
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from crgan_cli.errors import UserError
from crgan_cli.report.latest import resolve_run
from crgan_cli.system.paths import expand_home

Number = TypeVar("Number", int, float)

help = "Draw images from a checkpoint: a grid, a folder or a zip of PNGs, a movie."


def number_parser(
    kind: type[Number], is_valid: Callable[[Number], bool], expected: str
) -> Callable[[str], Number]:
    """Return a parser of numbers that raises argparse's error for an invalid one."""

    def parse(text: str) -> Number:
        with suppress(ValueError):
            value = kind(text)
            if is_valid(value):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")

    return parse


def path_parser(resolve: Callable[[str], Path]) -> Callable[[str], Path]:
    """Return a parser of paths that raises argparse's error for one that stands for nothing."""

    def parse(text: str) -> Path:
        try:
            return resolve(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


parse_path = path_parser(expand_home)
"""Parses a path, which may begin with `~`. Every argument that is a path has this type."""

parse_run = path_parser(resolve_run)
"""Parses the path of a run or a checkpoint, which may begin with `latest`. Every argument that
names one has this type."""

parse_positive_int = number_parser(int, lambda n: n >= 1, "a whole number of at least 1")
parse_positive_float = number_parser(float, lambda x: x > 0, "a number above 0")
# a GIF counts hundredths of a second, and a player shows no more frames
parse_fps = number_parser(float, lambda x: 0.1 <= x <= 100, "a number of frames from 0.1 to 100")
parse_seed = number_parser(int, lambda n: 0 <= n < 2**63, "a whole number from 0 on")


def parse_classes(text: str) -> list[str]:
    """Parse numbers or names of classes, separated by commas."""
    words = [word.strip() for word in text.split(",")]
    if "" in words:
        raise argparse.ArgumentTypeError("'' is not a class: give numbers or names, as in 0,dog")
    return words


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    parser.description = "Draw images from a checkpoint. The same seed gives the same images."
    add("checkpoint", metavar="CHECKPOINT_OR_RUN", type=parse_run)
    add("--n", type=parse_positive_int, default=64, help="how many images, or frames (64)")
    add(
        "--out",
        type=parse_path,
        default=Path("samples.png"),
        metavar="PATH",
        help="FILE.png: one grid; FILE.zip or a folder: one PNG per image; with --interpolate "
        "FILE.gif, FILE.webp or FILE.mp4: a movie (samples.png)",
    )
    help = "which classes, by number or name, one per row"
    add("--classes", type=parse_classes, metavar="0,dog", help=help)
    add(
        "--truncation",
        type=parse_positive_float,
        metavar="T",
        help="normal prior: |z| <= T; uniform: T z",
    )
    add(
        "--interpolate",
        type=parse_positive_int,
        metavar="STEPS",
        help="rows from one latent to another; of a movie: a loop through --n / STEPS latents",
    )
    add(
        "--loops",
        type=parse_positive_int,
        default=1,
        metavar="K",
        help="of a movie: loops side by side, each of one class (1)",
    )
    add("--fps", type=parse_fps, default=12.0, help="of a movie: frames a second (12)")
    add("--seed", type=parse_seed, default=0, help="of the latents (0)")
    add("--weights", choices=("ema", "raw"), help="which generator (ema if there is one)")
    add("--best", action="store_true", help="of a run: its best checkpoint, not its newest")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (auto)")
    add(
        "--batch-size",
        type=parse_positive_int,
        default=100,
        metavar="B",
        help="images drawn at once (100)",
    )


def run(args: argparse.Namespace) -> int:
    """Draw and write."""
    from crgan_cli.evaluation import load
    from crgan_cli.evaluation.pictures import (
        PICTURES,
        MovieWriter,
        discarded_on_failure,
        make_image_writer,
    )
    from crgan_cli.evaluation.samples import Request, draw_request
    from crgan_cli.system.atomic import explain_write_failure
    from crgan_cli.system.console import log_to_stderr
    from crgan_cli.system.device import resolve_device
    from crgan_cli.system.memory import explained_shortage

    with log_to_stderr(), explained_shortage("Lower --n, or --batch-size."):
        require_right_file(args)
        device = resolve_device(args.device)
        checkpoint = load.find_checkpoint(args.checkpoint, best=args.best)
        model = load.load_generator(checkpoint, device, args.weights)
        args.movie = is_movie(args)
        request = Request(**{name: getattr(args, name) for name in Request._fields})
        grid = args.out.suffix.lower() in PICTURES
        drawing = draw_request(model, request, device, whole=grid or args.movie)
        writer = MovieWriter(args.out, args.fps) if args.movie else make_image_writer(args.out)
        with explain_write_failure(args.out), discarded_on_failure(writer):
            for images in drawing.batches:
                writer.add(images)
            writer.finish(drawing.columns)
    print(f"{drawing.total} images of step {model.step}, {model.weights} weights: {args.out}")
    return 0


def is_movie(args: argparse.Namespace) -> bool:
    """Return whether --out is a movie: without --interpolate a .webp is a grid."""
    from crgan_cli.evaluation.movies import MOVIES

    return bool(args.interpolate) and args.out.suffix.lower() in MOVIES


def require_right_file(args: argparse.Namespace) -> None:
    """Raise UserError if --out is a movie without motion, or motion is asked of a picture."""
    from crgan_cli.evaluation.movies import require_movie

    if is_movie(args):
        return require_movie(args.out)
    if args.out.suffix.lower() in (".gif", ".mp4"):
        raise UserError(
            f"--out {args.out} is a movie: add --interpolate STEPS, the frames from one latent to "
            "the next. Give FILE.png for one grid."
        )
    if args.loops > 1:
        raise UserError(
            f"--loops {args.loops} is about a movie: give --interpolate STEPS --out FILE.gif, "
            "FILE.webp or FILE.mp4 with it."
        )

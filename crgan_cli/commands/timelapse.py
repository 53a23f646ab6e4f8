"""`crgan timelapse`: a run's sample grids, one after the other, as a movie."""

import argparse
from pathlib import Path

from crgan_cli.commands.sample import parse_fps, parse_path, parse_run
from crgan_cli.errors import UserError

help = "Show a run's training: its sample grids as a GIF, WebP or MP4."

HOLD = 2.0  # seconds that the last picture stays


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    parser.description = (
        "Show a run's training: the grids that it drew every samples.every steps, as a movie. The "
        "step stands below each."
    )
    add("run", metavar="RUN", type=parse_run)
    add(
        "--out",
        type=parse_path,
        default=Path("timelapse.gif"),
        metavar="FILE",
        help="FILE.gif, FILE.webp or FILE.mp4 (timelapse.gif)",
    )
    add(
        "--fps",
        type=parse_fps,
        default=4.0,
        help="grids a second (4); the last one stays for 2 s",
    )


def run(args: argparse.Namespace) -> int:
    """Read the grids and write the movie."""
    from PIL import Image

    from crgan_cli.evaluation.movies import CAPTION, caption, require_movie, save_movie
    from crgan_cli.runs.folder import RunDir, find_step
    from crgan_cli.system.atomic import explain_write_failure

    require_movie(args.out)
    run = RunDir(args.run)
    if not run.is_run():
        raise UserError(
            f"{args.run} is not the folder of a run: it holds no config.yaml. Give the folder that "
            "crgan train printed."
        )
    paths = run.list_samples()[::-1]
    if len(paths) < 2:
        raise UserError(
            f"{args.run} has {len(paths)} of the 2 sample grids (samples/step_*.png) that a movie "
            "needs. Give a run that was trained with samples.every below its steps."
        )
    pictures = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
        except OSError as error:
            raise UserError(f"{path} cannot be read as an image ({error}). Delete it.") from None
    # grids of one run differ where another number of samples was typed on the way
    size = max(each.width for each in pictures), max(each.height for each in pictures) + CAPTION
    frames = [
        caption(picture, f"step {find_step(path):,}", size)
        for path, picture in zip(paths, pictures, strict=True)
    ]
    with explain_write_failure(args.out):
        save_movie(frames, args.out, args.fps, HOLD)
    print(f"{len(frames)} grids of {args.run}: {args.out}")
    return 0

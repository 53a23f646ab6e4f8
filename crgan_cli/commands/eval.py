"""`crgan eval`: the metrics of checkpoints and of folders of images, by a stated protocol."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.commands.sample import parse_path, parse_run
from crgan_cli.evaluation.overrides import CHANGEABLE, require_fitting
from crgan_cli.report.latest import resolve_run
from crgan_cli.system.streams import require_printed

if TYPE_CHECKING:
    from crgan_cli.evaluation.records import Evaluation
    from crgan_cli.evaluation.sources import Accept
    from crgan_cli.runs.protocol import Record

help = "Score a run, a checkpoint or a folder of images: FID, IS, KID by a stated protocol."

EXAMPLES = """examples:
  crgan eval outputs/demo/RUN                                 its newest checkpoint, by its protocol
  crgan eval outputs/demo/RUN --all                           every checkpoint, with a curve
  crgan eval checkpoint.pt metrics=fid50k_train               by another protocol
  crgan eval RUN 'metrics.measures=[fid,precision_recall]'    other numbers
  crgan eval RUN extractor=dinov2 'metrics.measures=[fid]'    other features
  crgan eval RUN --export scored.zip                          and keep the scored images
  crgan eval --samples images.zip dataset=cifar10             images that another program made
  crgan eval generated/ real/                                 two folders against each other
  crgan eval RUN --against OTHER_RUN                          next to the numbers of another run

Numbers of a run also go into evaluations.jsonl in its folder."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    parser.description = (
        "Score a checkpoint by the protocol it was trained with, or by another one. Every number "
        "comes with its protocol: the real images, the counts, the extractor and its weights."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add(
        "what",
        nargs="*",
        metavar="CHECKPOINT_OR_RUN",
        help=f"or two folders of images; then KEY=VALUE, of {', '.join(CHANGEABLE)}",
    )
    add("--all", action="store_true", help="of a run: all checkpoints, not only the newest")
    add("--best", action="store_true", help="of a run: its best checkpoint, not its newest")
    add("--weights", choices=("ema", "raw"), help="which generator: short for metrics.weights=")
    add("--samples", type=parse_path, metavar="PATH", help="score the images in a folder or a zip")
    add(
        "--export",
        type=parse_path,
        metavar="PATH",
        help="write all scored images to a folder or a zip",
    )
    add(
        "--against",
        type=parse_run,
        metavar="PATH",
        help="show the last numbers of another run as well",
    )
    add("--force", action="store_true", help="with --against: also if the protocols differ")
    add("--json", type=parse_path, metavar="FILE", help="also add the numbers, one JSON line each")


def run(args: argparse.Namespace) -> int:
    """Score, print and write."""
    from crgan_cli.evaluation.printing import print_comparison, print_protocol
    from crgan_cli.evaluation.records import load_last_record
    from crgan_cli.runs.protocol import require_comparable
    from crgan_cli.system.console import log_to_stderr
    from crgan_cli.system.memory import explained_shortage

    paths, overrides = split_paths_and_overrides(args.what)
    check_arguments(args, paths)
    other = load_last_record(args.against) if args.against else None

    def accept(record: "Record") -> None:
        """Refuse another protocol before anything is scored by it."""
        if other and not args.force:
            theirs = (str(args.against), other.protocol)
            require_comparable([("this", record), theirs], force="--force")

    remedy = "Free what other programs use, or lower metrics.batch_size or metrics.num_samples."
    with log_to_stderr(), explained_shortage(remedy):
        evaluations = list(evaluate_and_record(args, paths, overrides, accept))
    print_protocol(evaluations[-1])
    if other:
        print_comparison(evaluations[-1], other, str(args.against))
    if not args.json and (args.samples or len(paths) == 2):  # there is no run to keep them
        require_printed()
    return 0


def split_paths_and_overrides(words: list[str]) -> tuple[list[Path], list[str]]:
    """Return paths, and overrides: every KEY=VALUE that is not an existing file."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    return [resolve_run(word) for word in words if word not in overrides], overrides


def check_arguments(args: argparse.Namespace, paths: list[Path]) -> None:
    """Raise UserError for arguments that cannot be combined."""
    from crgan_cli.errors import UserError

    if not paths and not args.samples:
        raise UserError(
            "there is nothing to score: give a CHECKPOINT_OR_RUN, two folders of images, or "
            "--samples PATH. Type 'crgan eval --help'."
        )
    if len(paths) > (1 if args.samples else 2):
        raise UserError(
            f"{len(paths)} paths are too many: {' '.join(map(str, paths))}. Give one run or "
            "checkpoint, or two folders of images."
        )
    require_fitting(
        "images" if args.samples or len(paths) == 2 else "a run",
        all=args.all,
        best=args.best,
        weights=args.weights,
        export=args.export,
    )
    for first, second in (("all", "best"), ("all", "export"), ("all", "against")):
        if getattr(args, first) and getattr(args, second):
            raise UserError(f"--{first} and --{second} do not go together. Leave one out.")
    if args.force and not args.against:
        raise UserError("--force only works with --against. Leave it out.")
    if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise UserError(
            f"--json {args.json} cannot be written: it is a folder, or its folder does not exist. "
            "Give a file's name."
        )


def evaluate_and_record(
    args: argparse.Namespace, paths: list[Path], overrides: list[str], accept: "Accept"
) -> "Iterator[Evaluation]":
    """Yield each evaluation. Print and write it as soon as it is there."""
    from crgan_cli.evaluation import sources
    from crgan_cli.evaluation.printing import print_evaluation
    from crgan_cli.evaluation.records import append_record
    from crgan_cli.runs.folder import RunDir

    if args.samples:
        run = paths[0] if paths else None
        results = sources.evaluate_samples(args.samples, run, overrides, accept)
    elif len(paths) == 2:
        results = sources.evaluate_two_folders(paths[0], paths[1], overrides, accept)
    else:
        results = sources.evaluate_checkpoints(
            paths[0],
            overrides,
            accept,
            which="all" if args.all else "best" if args.best else "newest",
            weights=args.weights,
            export=args.export,
        )
    for evaluation, folder in results:
        print_evaluation(evaluation)
        for file in (RunDir(folder).evaluations if folder else None, args.json):
            if file:
                append_record(evaluation, file)
        yield evaluation

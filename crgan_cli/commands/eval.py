"""`crgan eval`: the metrics of checkpoints and of folders of images, by a stated protocol."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from omegaconf import DictConfig

    from crgan_cli.evaluation.checkpoints import Evaluation, Scorer
    from crgan_cli.runs.checkpoint import LoadedCheckpoint
    from crgan_cli.runs.protocol import Record

    Accept = Callable[[Record], None]

help = "Score a run, a checkpoint or a folder of images: FID, IS, KID by a stated protocol."

CHANGEABLE = ("metrics", "extractor", "device", "data_root", "dataset.root")
"""What may be set anew for a checkpoint; all else is the run's."""

CHANGEABLE_WITHOUT_RUN = ("metrics", "extractor", "device", "data_root", "dataset")
"""What may be set where there is no run to take it from."""

UNUSED_FOR_FOLDERS = (
    "dataset",
    "data_root",
    "metrics.reference=",
    "metrics.reference_file=",
    "metrics.num_real=",
    "metrics.floor=",
)
"""Choices of real images, of which two folders leave none."""

EXAMPLES = """examples:
  crgan eval outputs/demo/RUN                                 its newest checkpoint, by its protocol
  crgan eval outputs/demo/RUN --all                           every checkpoint, with a curve
  crgan eval checkpoint.pt metrics=fid50k_train               by another protocol
  crgan eval RUN 'metrics.measures=[fid,precision_recall]'    other numbers
  crgan eval RUN extractor=dinov2 'metrics.measures=[fid]'    other features
  crgan eval RUN --export scored.zip                          and keep the very images
  crgan eval --samples images.zip dataset=cifar10             images that another program made
  crgan eval generated/ real/                                 two folders against each other
  crgan eval RUN --against OTHER_RUN                          beside the numbers of another run

Numbers of a run also go into evaluations.jsonl in its folder."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
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
    add("--all", action="store_true", help="of a run: all checkpoints, not the newest alone")
    add("--best", action="store_true", help="of a run: its best checkpoint, not its newest")
    add("--weights", choices=("ema", "raw"), help="which generator: short for metrics.weights=")
    add("--samples", type=Path, metavar="PATH", help="score the images in a folder or a zip")
    add("--export", type=Path, metavar="PATH", help="write all scored images to a folder or a zip")
    add("--against", type=Path, metavar="PATH", help="show the last numbers of another run beside")
    add("--force", action="store_true", help="with --against: also if the protocols differ")
    add("--json", type=Path, metavar="FILE", help="also add the numbers, one JSON line each")


def run(args: argparse.Namespace) -> int:
    """Scores, prints, and writes down."""
    from crgan_cli.evaluation.checkpoints import last_record
    from crgan_cli.runs.protocol import Record, require_comparable
    from crgan_cli.system.console import log_to_stderr

    paths, overrides = split_paths_and_overrides(args.what)
    check_arguments(args, paths)
    other = last_record(args.against) if args.against else None

    def accept(record: Record) -> None:
        """Refuses another protocol before anything is scored by it."""
        if other and not args.force:
            theirs = (str(args.against), other.protocol)
            require_comparable([("this", record), theirs], force="--force")

    with log_to_stderr():
        evaluations = list(evaluate_and_record(args, paths, overrides, accept))
    print_protocol(evaluations[-1])
    if other:
        print_comparison(evaluations[-1], other, str(args.against))
    return 0


def split_paths_and_overrides(words: list[str]) -> tuple[list[Path], list[str]]:
    """Paths, and overrides: KEY=VALUE that is not the name of something there."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    return [Path(word) for word in words if word not in overrides], overrides


def check_arguments(args: argparse.Namespace, paths: list[Path]) -> None:
    """Raises UserError for arguments that do not go together."""
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
    of_images = args.samples or len(paths) == 2
    for option in ("all", "best", "weights", "export"):
        if of_images and getattr(args, option):
            raise UserError(f"--{option} goes with a run, and images are given. Leave it out.")
    for first, second in (("all", "best"), ("all", "export"), ("all", "against")):
        if getattr(args, first) and getattr(args, second):
            raise UserError(f"--{first} and --{second} do not go together. Leave one out.")
    if args.force and not args.against:
        raise UserError("--force goes with --against alone. Leave it out.")
    if args.json and (args.json.is_dir() or not args.json.absolute().parent.is_dir()):
        raise UserError(
            f"--json {args.json} is a folder, or lies in none that is there. Give a file's name."
        )


def evaluate_and_record(
    args: argparse.Namespace, paths: list[Path], overrides: list[str], accept: "Accept"
) -> "Iterator[Evaluation]":
    """Each evaluation that was asked for, printed and written down as soon as it is there."""
    from crgan_cli.evaluation.checkpoints import RECORDS, append_record

    if args.samples:
        made = evaluate_samples(args.samples, paths, overrides, accept)
    elif len(paths) == 2:
        made = evaluate_two_folders(paths[0], paths[1], overrides, accept)
    else:
        made = evaluate_checkpoints(args, paths[0], overrides, accept)
    for evaluation, folder in made:
        print_evaluation(evaluation)
        for file in [*([folder / RECORDS] if folder else []), *([args.json] if args.json else [])]:
            append_record(evaluation, file)
        yield evaluation


def evaluate_checkpoints(
    args: argparse.Namespace, path: Path, overrides: list[str], accept: "Accept"
) -> "Iterator[tuple[Evaluation, Path | None]]":
    """Of a checkpoint or a run; with the folder of the run that it lies in."""
    from crgan_cli.evaluation import load
    from crgan_cli.evaluation.checkpoints import require_exportable, save_curve

    require_no_images(path)
    newest = load.find_checkpoint(path, best=args.best)
    files = load.all_checkpoints(path) if args.all else [newest.path]
    config = config_with_overrides(newest, overrides)
    if args.weights and "weights" in config.metrics:  # not so for metrics=none
        config.metrics.weights = args.weights
    evaluations = []
    with make_scorer(config, accept) as scorer:
        if args.export:
            require_exportable(scorer.evaluator)
        for file in files:  # one at a time in memory
            lies_in = load.find_run(file)
            evaluation = evaluate_with_export(scorer, load.find_checkpoint(file), args.export)
            evaluations.append(evaluation)
            yield evaluation, lies_in.path if lies_in else None
    if args.all:
        print(f"curve: {save_curve(evaluations, path)}")


def require_no_images(path: Path) -> None:
    """Raises UserError for a folder or a zip of images where a run is expected."""
    from crgan_cli.data.files import EXTENSIONS
    from crgan_cli.errors import UserError
    from crgan_cli.runs.folder import RunDir

    images = path.is_dir() and any(each.suffix.lower() in EXTENSIONS for each in path.iterdir())
    if path.suffix.lower() == ".zip" or (images and not RunDir(path).checkpoints.is_dir()):
        raise UserError(
            f"{path} holds images, and no run. Say with what they are to be compared: "
            f"crgan eval --samples {path} RUN (or dataset=NAME), or crgan eval {path} OTHER_FOLDER."
        )


def evaluate_with_export(
    scorer: "Scorer", found: "LoadedCheckpoint", export: Path | None
) -> "Evaluation":
    """The numbers of one checkpoint, with its images written to `export` if that is given."""
    from crgan_cli.evaluation.pictures import Export

    if export is None:
        return scorer.score_checkpoint(found)
    with Export(export) as files:
        evaluation = scorer.score_checkpoint(found, files)
    print(f"scored images: {export} (generated/ and real/)")
    return evaluation


def evaluate_samples(
    samples: Path, paths: list[Path], overrides: list[str], accept: "Accept"
) -> "Iterator[tuple[Evaluation, None]]":
    """Of a folder or a zip, by the protocol and the data of a run, or of what is typed."""
    from crgan_cli.data.collection import read_collection
    from crgan_cli.evaluation import load

    images = read_collection(samples)
    config = (
        config_with_overrides(load.find_checkpoint(paths[0]), overrides)
        if paths
        else metrics_config(overrides)
    )
    with make_scorer(config, accept) as scorer:
        yield scorer.score_images(samples, images), None


def evaluate_two_folders(
    first: Path, second: Path, overrides: list[str], accept: "Accept"
) -> "Iterator[tuple[Evaluation, None]]":
    """Of the images in one against those in the other."""
    from crgan_cli.data.collection import read_collection
    from crgan_cli.errors import UserError
    from crgan_cli.runs.folder import RunDir

    for path in (first, second):
        if not path.exists():
            raise UserError(
                f"there is nothing at {path}. Give two folders or zips of images, or one run or "
                "checkpoint and settings as KEY=VALUE."
            )
    for path in (first, second):
        if path.suffix == ".pt" or RunDir(path).is_run():
            raise UserError(
                f"two paths are two folders or zips of images, and {path} is a run's. Evaluate "
                "runs one by one, with --against for the other one's numbers; images against a "
                f"run's data: crgan eval {path} --samples PATH."
            )
    for word in overrides:
        if word.startswith(UNUSED_FOR_FOLDERS):
            raise UserError(
                f"'{word}' is of no use with two folders: the real images are all those in "
                f"{second}. Leave it out."
            )
    generated, real = (
        read_collection(first, "the first path"),
        read_collection(second, "the second path"),
    )
    sizes = [
        f"metrics.num_samples={len(generated.images.x)}",
        f"metrics.num_real={len(real.images.x)}",
    ]
    config = metrics_config(["metrics=fid10k_test", "metrics.reference=all", *sizes, *overrides])
    with make_scorer(config, accept) as scorer:
        yield scorer.score_folders((first, second), generated, real), None


def config_with_overrides(found: "LoadedCheckpoint", overrides: list[str]) -> "DictConfig":
    """A checkpoint's configuration with what is typed."""
    from crgan_cli.config import stored

    before = stored.from_text(found.content["config"], str(found.path))
    return stored.with_overrides(before, overrides, CHANGEABLE, "crgan eval")


def metrics_config(overrides: list[str]) -> "DictConfig":
    """A configuration of metrics alone."""
    from crgan_cli.config import stored

    return stored.compose_partial(overrides, CHANGEABLE_WITHOUT_RUN, "crgan eval without a run")


@contextmanager
def make_scorer(config: "DictConfig", accept: "Accept") -> "Iterator[Scorer]":
    """What scores by the configuration, with its progress shown."""
    from crgan_cli.evaluation.checkpoints import Scorer
    from crgan_cli.system.device import resolve_device
    from crgan_cli.system.progress import EvalProgress

    with EvalProgress() as scoring:
        yield Scorer(config, resolve_device(config.device), scoring.show, accept)


def print_evaluation(evaluation: "Evaluation") -> None:
    """The numbers, with the name of their protocol."""
    of, protocol = evaluation.source, evaluation.protocol
    step = f" at step {of['step']}, {protocol['generator_weights']} weights" if "step" in of else ""
    print(f"{of.get('checkpoint', of.get('samples'))}{step}")
    for name, value in evaluation.values.items():
        print(f"  {name:32s} {round(value, 4) + 0.0:.4f}")  # + 0.0: never "-0.0000"


def print_protocol(evaluation: "Evaluation") -> None:
    """Everything that the numbers depend on."""
    print("by the protocol")
    for key, value in evaluation.protocol.items():
        if key == "measures":
            assert isinstance(value, dict)
            for name, setting in value.items():
                print(f"  {name:32s} {setting}")
        else:
            print(f"  {key:32s} {value}")


def print_comparison(ours: "Evaluation", theirs: "Evaluation", name: str) -> None:
    """The numbers of both, and the difference of what both have."""
    from crgan_cli.runs.protocol import differences

    if found := differences(ours.protocol, theirs.protocol):
        print(f"DIFFERENT PROTOCOLS, not comparable with {name}:")
        for line in found:
            print(f"  {line}")
    print(f"{'beside ' + name:34s} {'this':>12s} {'that':>12s} {'difference':>12s}")
    # names carry the extractor and the count: numbers of different protocols may share none
    for key in dict.fromkeys([*ours.values, *theirs.values]):
        here, there = ours.values.get(key), theirs.values.get(key)
        both = "-" if here is None or there is None else f"{here - there:+.4f}"
        print(f"  {key:32s} {format_number(here):>12s} {format_number(there):>12s} {both:>12s}")


def format_number(value: float | None) -> str:
    """One of a table."""
    return "-" if value is None else f"{value:.4f}"

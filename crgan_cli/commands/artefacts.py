"""`crgan artefacts`: what consistency regularization did to a model, beyond its FID."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.commands.sample import parse_path, parse_positive_int, parse_run, parse_seed

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from crgan_cli.evaluation.metrics.extractors import Extractor

help = "Measure what a checkpoint has learned: leaked T, consistency, diversity, memorisation."

CHANGEABLE = ("augment", "extractor", "device", "data_root", "dataset.root")
"""Settings that may be changed for a checkpoint. All others are the run's."""

NAMES = ("leakage", "consistency", "diversity", "memorisation")

DESCRIPTION = """Measure what a checkpoint has learned, beyond its FID:

  leakage       the share of generated images that look as if T had been applied to them
                (Zhao et al. 2021, arXiv:2002.04724: CR with a strong T leaks it, bCR does not)
  consistency   how far D moves with the strength of a change to an image, or to the latents
  diversity     how far G moves with its latents, and how far apart its images are
  memorisation  whether generated images are nearer to the training set than held-out ones are"""

EXAMPLES = """examples:
  crgan artefacts outputs/demo/RUN
  crgan artefacts RUN leakage augment=cutout augment.size=16    for a T that the run did not use
  crgan artefacts RUN memorisation extractor=dinov2

Each measurement writes a JSON file and plots to RUN/artefacts/step_N_WEIGHTS/, or into --out."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add("checkpoint", metavar="CHECKPOINT_OR_RUN", type=parse_run)
    add(
        "words",
        nargs="*",
        default=[],
        metavar="MEASUREMENT",
        help=f"which measurements (all); then KEY=VALUE for {', '.join(CHANGEABLE)}",
    )
    add("--n", type=parse_positive_int, default=1000, help="images of each kind (1000)")
    add("--best", action="store_true", help="the best checkpoint of a run, not the newest")
    add("--weights", choices=("ema", "raw"), help="of the generator (ema if there is one)")
    add("--out", type=parse_path, metavar="FOLDER", help="output folder (the run's artefacts/)")
    add("--seed", type=parse_seed, default=0, help="of latents, images and detectors (0)")
    add(
        "--batch-size",
        type=parse_positive_int,
        default=100,
        metavar="B",
        help="images at once (100)",
    )
    add("--pixels-only", action="store_true", help="no features: faster, needs no extractor")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write files."""
    names, overrides = split_arguments(args.words)
    from crgan_cli.config import stored
    from crgan_cli.data.dataset import build_dataset
    from crgan_cli.evaluation import load
    from crgan_cli.evaluation.artefacts.inputs import MeasureOptions
    from crgan_cli.evaluation.artefacts.measure import load_subject, measure_one
    from crgan_cli.evaluation.artefacts.requirements import (
        Counts,
        choose_measurable,
        count_known,
        require_room,
    )
    from crgan_cli.system.console import log_to_stderr
    from crgan_cli.system.device import resolve_device, watch_crowding
    from crgan_cli.system.memory import explained_shortage
    from crgan_cli.system.progress import EvalProgress

    with log_to_stderr(), explained_shortage("Lower --n, or --batch-size."):
        checkpoint = load.find_checkpoint(args.checkpoint, best=args.best)
        with_features = not args.pixels_only and bool({"diversity", "memorisation"} & set(names))
        settings = stored.from_text(
            checkpoint.content["config"],
            str(checkpoint.path),
            builds=("augment", "dataset", *(["extractor"] if with_features else [])),
            typed=stored.Typed(overrides, CHANGEABLE, "crgan artefacts"),
        )
        device = resolve_device(settings.device)
        dataset = build_dataset(settings)
        require_room(args.n, dataset)
        named = any("=" not in word for word in args.words)
        names = choose_measurable(names, args.n, count_known(dataset), named=named)
        subject = load_subject(checkpoint, settings, device, args.weights)
        folder = args.out or output_folder(checkpoint.path, subject.step, subject.weights)
        require_folder(folder)
        counts: Counts = {
            "train": len(subject.model.train.x),
            "test": len(subject.model.held_out.x),
        }
        names = choose_measurable(names, args.n, counts, named=named)
        extractor = None
        if with_features:
            extractor = build_extractor(settings, device)
        print(f"{checkpoint.path} at step {subject.step}, {subject.weights} weights")
        for name in names:
            with EvalProgress(watch_crowding(device), name) as live:
                options = MeasureOptions(args.n, args.seed, args.batch_size, extractor, live.show)
                measurement = measure_one(subject, name, options, folder)
            print(name)
            for line in measurement.lines:
                print(f"  {line}")
    print(f"numbers and plots: {folder}")
    return 0


def split_arguments(words: list[str]) -> tuple[list[str], list[str]]:
    """The names of measurements (all if none is given), and the overrides.

    Raise UserError for an unknown name.
    """
    from crgan_cli.errors import UserError, unknown_name

    names = [word for word in words if "=" not in word]
    for name in names:
        if name not in NAMES:
            raise UserError(unknown_name("measurement", name, NAMES))
    chosen = [name for name in NAMES if name in names] or list(NAMES)
    return chosen, [word for word in words if "=" in word]


def build_extractor(settings: "DictConfig", device: "torch.device") -> "Extractor":
    """Build the extractor of `settings`. Raise UserError without weights, or without features."""
    from crgan_cli.config.build import build_group
    from crgan_cli.errors import UserError

    try:
        extractor = build_group(settings.extractor)
    except UserError as error:
        raise UserError(f"{error} Or measure pixels only, with --pixels-only.") from error
    if not extractor.dims:
        raise UserError(
            f"extractor={extractor.name} has no features to compare. Type another one, for example "
            "extractor=efficientnet_lite0, or measure pixels only, with --pixels-only."
        )
    extractor.to(device)
    return extractor


def output_folder(checkpoint: Path, step: int, weights: str) -> Path:
    """A folder in the run of the checkpoint. Raise UserError for no run, or links in it."""
    from crgan_cli.errors import UserError
    from crgan_cli.evaluation import load

    run = load.find_run(checkpoint)
    if run is None:
        raise UserError(
            f"{checkpoint} is not in a run's folder. Give an output folder: --out FOLDER."
        )
    run.require_no_links()
    return run.path / "artefacts" / f"step_{step:08d}_{weights}"


def require_folder(path: Path) -> None:
    """Raise UserError, before anything is measured, if a file is in the way of the folder."""
    from crgan_cli.errors import UserError

    existing = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, so {path} cannot be a folder. Give another --out.")

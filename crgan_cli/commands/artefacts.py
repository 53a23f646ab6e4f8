"""`crgan artefacts`: what consistency regularisation did to a model, beyond its FID."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from crgan_cli.commands.sample import parse_positive_int, parse_seed
from crgan_cli.config import stored

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from crgan_cli.evaluation.metrics.extractors import Extractor

help = "Measure what a checkpoint has learned: leaked T, consistency, diversity, memorisation."

CHANGEABLE = ("augment", "extractor", "device", "data_root", "dataset.root")
"""What may be set anew for a checkpoint; all else is the run's."""

NAMES = ("leakage", "consistency", "diversity", "memorisation")

DESCRIPTION = """Measure what a checkpoint has learned, beyond a distance:

  leakage       the share of generated images that look as if T had been applied to them
                (Zhao et al. 2021, arXiv:2002.04724: CR with a strong T leaks it, bCR does not)
  consistency   how far D moves when an image is transformed, or a code moved, as the strength grows
  diversity     how far G moves with its code, and how far apart its images are
  memorisation  whether generated images are nearer to the training set than held-out ones are"""

EXAMPLES = """examples:
  crgan artefacts outputs/demo/RUN
  crgan artefacts RUN leakage augment=cutout augment.size=16    of a T that the run did not use
  crgan artefacts RUN memorisation extractor=dinov2

Each writes a JSON file and plots into RUN/artefacts/step_N_WEIGHTS/, or into --out."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add = parser.add_argument
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add("checkpoint", metavar="CHECKPOINT_OR_RUN", type=Path)
    add(
        "words",
        nargs="*",
        default=[],
        metavar="MEASUREMENT",
        help=f"some of them (all); then KEY=VALUE, of {', '.join(CHANGEABLE)}",
    )
    add("--n", type=parse_positive_int, default=1000, help="images of each kind (1000)")
    add("--best", action="store_true", help="of a run: its best checkpoint, not its newest")
    add("--weights", choices=("ema", "raw"), help="which generator (ema where there is one)")
    add("--out", type=Path, metavar="FOLDER", help="where to write (the run's artefacts/)")
    add("--seed", type=parse_seed, default=0, help="of codes, images and detectors (0)")
    add(
        "--batch-size",
        type=parse_positive_int,
        default=100,
        metavar="B",
        help="images at once (100)",
    )
    add("--pixels-only", action="store_true", help="no features: quick, needs no extractor")


def run(args: argparse.Namespace) -> int:
    """Measures, prints, and writes."""
    names, overrides = split_arguments(args.words)
    from crgan_cli.evaluation import load
    from crgan_cli.evaluation.artefacts.measure import MeasureOptions, load_model, measure_one
    from crgan_cli.system.console import log_to_stderr
    from crgan_cli.system.device import resolve_device
    from crgan_cli.system.progress import EvalProgress

    with log_to_stderr():
        found = load.find_checkpoint(args.checkpoint, best=args.best)
        before = stored.from_text(found.content["config"], str(found.path))
        settings = stored.with_overrides(before, overrides, CHANGEABLE, "crgan artefacts")
        device = resolve_device(settings.device)
        subject = load_model(found, settings, device, args.weights)
        folder = args.out or output_folder(
            found.path, subject.trained.step, subject.trained.weights
        )
        require_folder(folder)
        extractor = None
        if not args.pixels_only and {"diversity", "memorisation"} & set(names):
            extractor = build_extractor(settings, device)
        print(f"{found.path} at step {subject.trained.step}, {subject.trained.weights} weights")
        for name in names:
            with EvalProgress(name) as scoring:
                extent = MeasureOptions(args.n, args.seed, args.batch_size, extractor, scoring.show)
                outcome = measure_one(subject, name, extent, folder)
            print(name)
            for line in outcome.lines:
                print(f"  {line}")
    print(f"numbers and plots: {folder}")
    return 0


def split_arguments(words: list[str]) -> tuple[list[str], list[str]]:
    """Names of measurements, all where none is given, and overrides."""
    from crgan_cli.errors import UserError, unknown_name

    names = [word for word in words if "=" not in word]
    for name in names:
        if name not in NAMES:
            raise UserError(unknown_name("measurement", name, NAMES))
    return [name for name in NAMES if name in names] or list(NAMES), [
        word for word in words if "=" in word
    ]


def build_extractor(settings: "DictConfig", device: "torch.device") -> "Extractor":
    """The run's extractor, or the one that is typed. UserError where its weights are not here."""
    from crgan_cli.config.build import build_group
    from crgan_cli.errors import UserError

    try:
        extractor = build_group(settings.extractor)
    except UserError as error:
        raise UserError(f"{error} Or measure pixels alone, with --pixels-only.") from error
    extractor.to(device)
    return extractor


def output_folder(checkpoint: Path, step: int, weights: str) -> Path:
    """In the run of the checkpoint. Raises UserError where it lies in none."""
    from crgan_cli.errors import UserError
    from crgan_cli.evaluation import load

    run = load.find_run(checkpoint)
    if run is None:
        raise UserError(f"{checkpoint} lies in no run's folder: say where to write, --out FOLDER.")
    return run.path / "artefacts" / f"step_{step:08d}_{weights}"


def require_folder(path: Path) -> None:
    """Raises UserError, before anything is measured, where there is a file in place of a folder."""
    from crgan_cli.errors import UserError

    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file: no folder can be at {path}. Give another --out.")

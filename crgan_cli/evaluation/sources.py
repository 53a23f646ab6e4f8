"""What `crgan eval` can score: checkpoints of a run, images of another program, two folders.

Each function yields evaluations one by one. `accept` gets the record of the protocol before
anything is scored, and may raise.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from crgan_cli.data.collection import read_collection
from crgan_cli.data.dataset import build_dataset
from crgan_cli.data.files import EXTENSIONS
from crgan_cli.errors import UserError
from crgan_cli.evaluation import load
from crgan_cli.evaluation.checkpoints import Scorer, require_exportable
from crgan_cli.evaluation.model import Model
from crgan_cli.evaluation.overrides import (
    change_settings,
    config_with_overrides,
    metrics_config,
    require_agreement,
)
from crgan_cli.evaluation.pictures import Export
from crgan_cli.evaluation.printing import save_curve
from crgan_cli.evaluation.records import Evaluation
from crgan_cli.evaluation.requirements import require_enough_real
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.protocol import Record
from crgan_cli.system.device import resolve_device, watch_crowding
from crgan_cli.system.paths import shell_quoted
from crgan_cli.system.progress import EvalProgress

Accept = Callable[[Record], None]

UNUSED_FOR_FOLDERS = (
    "dataset",
    "data_root",
    "metrics.reference=",
    "metrics.reference_file=",
    "metrics.num_real=",
    "metrics.floor=",
)
"""Settings that choose real images. With two folders there is no choice."""


def evaluate_checkpoints(
    path: Path,
    overrides: list[str],
    accept: Accept,
    *,
    which: Literal["newest", "best", "all"] = "newest",
    weights: str | None = None,
    export: Path | None = None,
) -> Iterator[tuple[Evaluation, Path | None]]:
    """Score checkpoints. Yield each evaluation with the folder of the run, if there is one."""
    require_no_images(path)
    first = load.find_checkpoint(path, best=which == "best")
    if recorded := load.find_run(first.path):
        recorded.require_no_links()
    files = load.all_checkpoints(path) if which == "all" else [first.path]
    config = config_with_overrides(first, overrides)
    if weights and "weights" in config.metrics:  # metrics=none has none
        other = (f"--weights {weights}", "both say which generator is scored", "Leave one out.")
        require_agreement(config, overrides, "metrics.weights", (weights,), other=other)
        config.metrics.weights = weights
    require_enough_real(config.metrics, build_dataset(config))
    evaluations = []
    with make_scorer(config, accept) as scorer:
        if export:
            require_exportable(scorer.evaluator)
        for file in files:  # one at a time in memory
            run = load.find_run(file)
            evaluation = evaluate_with_export(scorer, load.find_checkpoint(file), export)
            evaluations.append(evaluation)
            yield evaluation, run.path if run else None
    if which == "all":
        print(f"curve: {save_curve(evaluations, path)}")


def evaluate_model(model: Model, overrides: list[str], accept: Accept) -> Evaluation:
    """Score a model as it is in memory."""
    config = change_settings(model.settings, str(model.path), overrides)
    use_model_settings(config, overrides, model)
    require_enough_real(config.metrics, build_dataset(config))
    with make_scorer(config, accept) as scorer:
        return scorer.score_generator(model.generator)


def use_model_settings(config: DictConfig, overrides: list[str], model: Model) -> None:
    """Let the configuration say where a model is and which weights it has. Raise UserError if
    others are typed."""
    device, weights = model.device, model.weights
    where = {"auto", str(device), f"{device.type}:{device.index or 0}"}
    where |= set() if device.index else {device.type}
    agreeing = {"device": (where, f"a model on {device}")}
    if "weights" in config.metrics:  # metrics=none has none
        agreeing["metrics.weights"] = ({"auto", weights}, f"a model with {weights} weights")
    for key, (values, said) in agreeing.items():
        remedy = f"Leave the first out, or give {key.rpartition('.')[2]}= to crgan.load."
        other = (said, "it is scored as it is in memory", remedy)
        require_agreement(config, overrides, key, values, other=other)
    config.device = str(device)
    if "weights" in config.metrics and (config.metrics.weights, weights) != ("auto", "ema"):
        config.metrics.weights = weights  # auto would be the average


def is_of_images(path: Path) -> bool:
    """Whether a path is a zip, or a folder of images and no run."""
    images = path.is_dir() and any(each.suffix.lower() in EXTENSIONS for each in path.iterdir())
    return path.suffix.lower() == ".zip" or (images and not RunDir(path).checkpoints.is_dir())


def require_no_images(path: Path) -> None:
    """Raise UserError for a folder or a zip of images where a run is expected."""
    if is_of_images(path):
        typed = shell_quoted(path)
        raise UserError(
            f"{path} holds images, and no run. Say what to compare them with: "
            f"crgan eval --samples {typed} RUN (or dataset=NAME), or "
            f"crgan eval {typed} OTHER_FOLDER."
        )


def evaluate_with_export(
    scorer: Scorer, checkpoint: LoadedCheckpoint, export: Path | None
) -> Evaluation:
    """Score one checkpoint, and write its images to `export` if given."""
    if export is None:
        return scorer.score_checkpoint(checkpoint)
    with Export(export) as files:
        evaluation = scorer.score_checkpoint(checkpoint, files)
    print(f"scored images: {export} (generated/ and real/)")
    return evaluation


def evaluate_samples(
    samples: Path, run: Path | None, overrides: list[str], accept: Accept
) -> Iterator[tuple[Evaluation, None]]:
    """Score a folder or a zip by the protocol and data of a run, or of the overrides alone."""
    config = (
        config_with_overrides(load.find_checkpoint(run), overrides)
        if run
        else metrics_config(overrides)
    )
    require_enough_real(config.metrics, build_dataset(config))
    images = read_collection(samples)
    with make_scorer(config, accept) as scorer:
        yield scorer.score_images(samples, images), None


def evaluate_two_folders(
    first: Path, second: Path, overrides: list[str], accept: Accept
) -> Iterator[tuple[Evaluation, None]]:
    """Score the images in the first against those in the second."""
    for path in (first, second):
        if not path.exists():
            raise UserError(
                f"there is nothing at {path}. Give two folders or zips of images, or one run or "
                "checkpoint and settings as KEY=VALUE."
            )
    for path in (first, second):
        if path.suffix == ".pt" or RunDir(path).is_run():
            raise UserError(
                f"two paths mean two folders or zips of images, but {path} is a run's. Evaluate "
                "runs one by one, with --against for the other one's numbers; images against a "
                f"run's data: crgan eval {shell_quoted(path)} --samples PATH."
            )
    for word in overrides:
        if word.startswith(UNUSED_FOR_FOLDERS):
            raise UserError(
                f"'{word}' has no effect with two folders: the real images are all those in "
                f"{second}. Leave it out."
            )
    generated = read_collection(first, "the first path")
    real = read_collection(second, "the second path")
    sizes = [
        f"metrics.num_samples={len(generated.images.x)}",
        f"metrics.num_real={len(real.images.x)}",
    ]
    config = metrics_config(["metrics=fid10k_test", "metrics.reference=all", *sizes, *overrides])
    with make_scorer(config, accept) as scorer:
        yield scorer.score_folders((first, second), generated, real), None


@contextmanager
def make_scorer(config: DictConfig, accept: Accept) -> Iterator[Scorer]:
    """Build a scorer that shows its progress."""
    device = resolve_device(config.device)
    with EvalProgress(watch_crowding(device)) as progress:
        yield Scorer(config, device, progress.show, accept)

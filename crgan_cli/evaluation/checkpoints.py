"""Score checkpoints, images that another program made, and two folders.

`evaluator.py` turns images into numbers; here is where the images come from.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from crgan_cli.config.resolve import flatten
from crgan_cli.data.collection import ImageCollection
from crgan_cli.data.dataset import build_dataset
from crgan_cli.data.folder import make_safe_name
from crgan_cli.data.images import format_shape, to_float, to_uint8
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation import load
from crgan_cli.evaluation.drawing import Draws, get_draws, get_labels, make_eval_sampler
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.load import LoadedGenerator
from crgan_cli.evaluation.metrics.features import Draw, Progress
from crgan_cli.evaluation.pairs import PairsEvaluator
from crgan_cli.evaluation.pictures import Export
from crgan_cli.evaluation.records import Evaluation
from crgan_cli.evaluation.reference_images import random_subset
from crgan_cli.evaluation.requirements import require_steps
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.runs.next_commands import suggest_metrics
from crgan_cli.runs.protocol import UNKNOWN, Record, describe_generator

log = logging.getLogger(__name__)


class Scorer:
    """Scores any number of models by one protocol against one set of real images."""

    def __init__(
        self,
        config: DictConfig,
        device: torch.device,
        show: Progress,
        accept: Callable[[Record], None] = lambda record: None,
    ) -> None:
        """`show` gets (images done, images in total). `accept` gets the record of the protocol as
        soon as it is known, and may raise. Raises UserError for metrics=none.
        """
        evaluator = load.build_evaluator(config)
        if evaluator is None:
            raise UserError(
                "this run has metrics=none. Add a protocol, for example "
                + " or ".join(suggest_metrics(flatten(config)))
            )
        self.config = config
        self.evaluator: Evaluator = evaluator
        self.evaluator.to(device)
        self.device = device
        self.show = show
        self.accept = accept
        self.prepared = False

    def prepare(self, draws: Draws, class_names: Sequence[str]) -> None:
        """Prepare the real images of the configuration's data set, once, for what models draw."""
        if not self.prepared:
            labels = get_labels(self.config, draws, class_names)
            self.evaluator.prepare_draws(
                build_dataset(self.config, class_names), draws, labels, progress=self.show
            )
            self.accept(self.evaluator.describe())
        self.prepared = True

    def score_checkpoint(
        self, checkpoint: LoadedCheckpoint, export: Export | None = None
    ) -> Evaluation:
        """Score a checkpoint's generator. `export` gets all images that are scored."""
        weights = self.evaluator.protocol.weights
        weights = None if weights == "auto" else weights
        return self.score_generator(load.load_generator(checkpoint, self.device, weights), export)

    def score_generator(self, model: LoadedGenerator, export: Export | None = None) -> Evaluation:
        """Score a generator that was loaded, as it is now."""
        draws = get_draws(model.config, model.class_names)
        self.prepare(draws, model.class_names)
        dataset = build_dataset(self.config, model.class_names)
        sampler = make_eval_sampler(
            draws,
            dataset,
            self.evaluator,
            lambda: model.prior,
            model.seed,
            self.device,
        )
        try:
            with sampler.images(model.G) as drawn:
                if export:
                    drawn = {
                        name: fakes._replace(draw=export_drawn(fakes, export, name))
                        for name, fakes in drawn.items()
                    }
                values = self.evaluator.score_draws(drawn, progress=self.show)
        except RunFailed as error:  # images that are not finite
            raise RunFailed(f"{model.path} at step {model.step}: {error}") from None
        if export:
            for name, images in self.evaluator.real_images(dataset).items():
                export.add("real", images.x, name)
        return Evaluation(
            {"checkpoint": str(model.path), "step": model.step},
            values,
            {**self.evaluator.describe(), **describe_generator(model.weights, model.side)},
        )

    def score_images(self, path: Path, generated: ImageCollection) -> Evaluation:
        """Score images that exist already; if the data are pairs, against their targets."""
        self._use_files_unchanged()
        self.evaluator.require_images_of_one_kind()
        dataset = build_dataset(self.config)
        targets = self.config.dataset.get("channels_out")
        shape = (targets or dataset.channels, *dataset.sides)
        real_name = f"dataset={dataset.name}"
        self.evaluator.count_samples(dataset)
        self._require_match(path, generated, shape, real_name)
        y = None
        if self.evaluator.compares_classes and generated.class_names:
            dataset.load("train")  # a folder's class names are known once it was read
            y = class_labels(path, generated, dataset.class_names, real_name)
        target = "target" if targets else "real"
        self.evaluator.prepare(dataset, target, progress=self.show)
        self.accept(self.evaluator.describe())
        return self._score(path, generated, y)

    def score_folders(
        self, paths: tuple[Path, Path], generated: ImageCollection, real: ImageCollection
    ) -> Evaluation:
        """Score images against all of `real`, which is at the second path."""
        path, real_path = paths
        self._use_files_unchanged()
        self.evaluator.set_count(len(generated.images.x))
        self._require_match(path, generated, tuple(real.images.x.shape[1:]), str(real_path))
        y = None
        if self.evaluator.compares_classes and generated.class_names:
            y = class_labels(path, generated, real.class_names, str(real_path))
        self.evaluator.prepare_images(
            make_safe_name(real_path),
            real.images,
            labelled=bool(real.class_names),
            progress=self.show,
        )
        self.accept(self.evaluator.describe())
        return self._score(path, generated, y)

    def _use_files_unchanged(self) -> None:
        """Set the protocol for files: they are rounded, and how they were drawn is not known."""
        require_steps(self.evaluator.required, False)
        if isinstance(self.evaluator, PairsEvaluator):
            log.info("files have no inputs: they are compared as a set, without l1, psnr and ssim")
            self.evaluator.compares_pairs = False
        protocol = self.evaluator.protocol
        self.evaluator.protocol = protocol._replace(
            rounding="uint8", weights="auto", batch_norm="running", truncation=None, dropout="off"
        )

    def _require_match(
        self, path: Path, generated: ImageCollection, shape: tuple[int, ...], real_name: str
    ) -> None:
        """Raise UserError, before the real images are read, for too few or different images."""
        images, protocol = generated.images, self.evaluator.protocol
        if tuple(images.x.shape[1:]) != shape:
            raise UserError(
                f"the images in {path} are {format_shape(tuple(images.x.shape[1:]))} (channels x "
                f"height x width), and those of {real_name} {format_shape(shape)}. Give images of "
                "one kind: a score depends on how they are converted, so crgan leaves that to you."
            )
        count, wanted = len(images.x), protocol.num_samples * protocol.repeats
        if count < wanted:
            raise UserError(
                f"{path} holds {count} images, and the protocol scores {wanted} "
                f"(metrics.num_samples={protocol.num_samples}, "
                f"metrics.repeats={protocol.repeats}). Give metrics.num_samples={count} "
                "metrics.repeats=1: the numbers then belong to another protocol."
            )

    def _score(self, path: Path, generated: ImageCollection, y: Tensor | None) -> Evaluation:
        images, protocol = generated.images, self.evaluator.protocol
        wanted = protocol.num_samples * protocol.repeats
        rows = random_subset(wanted, torch.arange(len(images.x)))
        fakes = Fakes(
            lambda start, n: to_float(images.x[rows[start : start + n]]),
            None if y is None else y[rows],
        )
        values = self.evaluator(fakes, progress=self.show)
        drawn = dict.fromkeys(
            ("weights", "batch_norm", "batch_size", "truncation", "dropout", "generator_weights"),
            UNKNOWN,
        )
        record = {**self.evaluator.describe(), **drawn}
        return Evaluation(
            {"samples": str(path), "samples_sha256": generated.sha256}, values, record
        )


def class_labels(
    path: Path, generated: ImageCollection, names: Sequence[str], real_name: str
) -> Tensor:
    """Return the classes of images in sub-folders, (N,), numbered like `names`.

    A sub-folder is named as a class or by its number: its place in the alphabet means nothing.
    Raises UserError for any other name.
    """
    numbers = {str(number): number for number in range(len(names))}
    numbers |= {name: number for number, name in enumerate(names)}
    if unknown := [name for name in generated.class_names if name not in numbers]:
        known = ", ".join(list(names)[:10]) or "none"
        raise UserError(
            f"metrics.measures compares class by class, and the sub-folder {unknown[0]} of {path} "
            f"is no class of {real_name}, which has {known}. Name sub-folders as classes or by "
            "their numbers from 0, or remove class_fid and class_accuracy from metrics.measures."
        )
    return torch.tensor([numbers[name] for name in generated.class_names])[generated.images.y]


def export_drawn(fakes: Fakes, export: Export, name: str) -> Draw:
    """Return `fakes.draw`, with each image also written to `export`."""

    def draw(start: int, n: int) -> Tensor:
        images = fakes.draw(start, n)
        export.add("generated", to_uint8(images), name)
        return images

    return draw


def require_exportable(evaluator: Evaluator) -> None:
    """Raise UserError if PNGs cannot hold what is scored."""
    if evaluator.protocol.repeats > 1 or evaluator.protocol.rounding == "none":
        raise UserError(
            "--export writes one set of images as PNGs, and the protocol "
            f"scores metrics.repeats={evaluator.protocol.repeats} with "
            f"metrics.rounding={evaluator.protocol.rounding}: "
            "add metrics.repeats=1 metrics.rounding=uint8, or take metrics=fid10k_test."
        )

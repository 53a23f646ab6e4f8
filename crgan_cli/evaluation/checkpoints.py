"""Numbers with their protocol: of checkpoints, of images that others have made, and of two folders.

`evaluator.py` turns images into numbers; here are the images, and what is written down.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from crgan_cli.data.collection import ImageCollection
from crgan_cli.data.folder import make_safe_name
from crgan_cli.data.images import build_dataset, format_shape, to_float, to_uint8
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.evaluation import load
from crgan_cli.evaluation.evaluator import Evaluator, Fakes
from crgan_cli.evaluation.metrics.features import Progress
from crgan_cli.evaluation.pictures import Export
from crgan_cli.evaluation.reference_images import random_subset
from crgan_cli.evaluation.sampler import EvalSampler
from crgan_cli.report.plots import BLUE, GREY, panels, save
from crgan_cli.runs.checkpoint import LoadedCheckpoint
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.protocol import UNKNOWN, Record

RECORDS = "evaluations.jsonl"
"""In a run's folder: a line for every evaluation of it by `crgan eval`."""


class Evaluation(NamedTuple):
    """What was scored, the numbers, and how they were measured."""

    of: dict[str, object]
    values: dict[str, float]
    protocol: Record

    def as_json(self) -> dict[str, object]:
        """One flat record but for the protocol, as `evaluations.jsonl` has them."""
        return {**self.of, **self.values, "protocol": self.protocol}


class Scorer:
    """Scores any number of models by one protocol against one set of real images."""

    def __init__(
        self,
        config: DictConfig,
        device: torch.device,
        show: Progress,
        accept: Callable[[Record], None] = lambda record: None,
    ) -> None:
        """`show` gets (images done, images in all); `accept` the protocol's record as soon as it is
        known, and may raise. Raises UserError for metrics=none.
        """
        evaluator = load.build_evaluator(config)
        if evaluator is None:
            raise UserError(
                "this run has metrics=none. Add a protocol, for example metrics=fid10k_test, or "
                "metrics=demo, which needs no download."
            )
        self.config = config
        self.evaluator: Evaluator = evaluator
        self.evaluator.to(device)
        self.device = device
        self.show = show
        self.accept = accept
        self.prepared = False

    def prepare(self) -> None:
        """Measures the real images of the configuration's data set, once."""
        if not self.prepared:
            self.evaluator.prepare(build_dataset(self.config), progress=self.show)
            self.accept(self.evaluator.describe())
        self.prepared = True

    def checkpoint(self, found: LoadedCheckpoint, export: Export | None = None) -> Evaluation:
        """The numbers of a checkpoint's generator; `export` gets all images that are scored."""
        asked = self.evaluator.protocol.weights
        model = load.load_generator(found, self.device, None if asked == "auto" else asked)
        self.prepare()
        scored = EvalSampler(self.evaluator.protocol, model.prior, model.seed, self.device)
        try:
            with scored.images(model.G) as fakes:
                values = self.evaluator(exported_class_names(fakes, export), progress=self.show)
        except RunFailed as error:  # images that are not finite
            raise RunFailed(f"{found.path} at step {model.step}: {error}") from None
        if export:
            export.add("real", self.evaluator.reference_images(build_dataset(self.config)).images.x)
        return Evaluation(
            {"checkpoint": str(found.path), "step": model.step},
            values,
            {**self.evaluator.describe(), "generator_weights": model.weights},
        )

    def images(self, path: Path, found: ImageCollection) -> Evaluation:
        """The numbers of images that are there already."""
        self._take_as_they_are()
        dataset = build_dataset(self.config)
        shape = (dataset.channels, dataset.resolution, dataset.resolution)
        self._require_fitting(path, found, shape, f"dataset={dataset.name}")
        y = None
        if self.compares_classes and found.class_names:
            dataset.load("train")  # a folder's class names are known when it was read
            y = class_labels(path, found, dataset.class_names, f"dataset={dataset.name}")
        self.prepare()
        return self._score(path, found, y)

    def two_folders(
        self, paths: tuple[Path, Path], found: ImageCollection, real: ImageCollection
    ) -> Evaluation:
        """The numbers of the images `found` against all of `real`, at the second path."""
        path, other = paths
        self._take_as_they_are()
        self._require_fitting(path, found, tuple(real.images.x.shape[1:]), str(other))
        y = None
        if self.compares_classes and found.class_names:
            y = class_labels(path, found, real.class_names, str(other))
        self.evaluator.prepare_images(
            make_safe_name(other), real.images, labelled=bool(real.class_names), progress=self.show
        )
        self.accept(self.evaluator.describe())
        return self._score(path, found, y)

    def _take_as_they_are(self) -> None:
        """Files are rounded, and nothing is known of how a generator drew them."""
        protocol = self.evaluator.protocol
        self.evaluator.protocol = protocol._replace(
            rounding="uint8", weights="auto", batch_norm="running", truncation=None
        )

    @property
    def compares_classes(self) -> bool:
        """Whether a measure asks which class an image is of."""
        return any(measure.needs_labels for measure in self.evaluator.measures.values())

    def _require_fitting(
        self, path: Path, found: ImageCollection, shape: tuple[int, ...], whose: str
    ) -> None:
        """Raises UserError, before the real images are measured, for too few or other images."""
        images, protocol = found.images, self.evaluator.protocol
        if tuple(images.x.shape[1:]) != shape:
            raise UserError(
                f"the images in {path} are {format_shape(tuple(images.x.shape[1:]))} (channels x "
                f"height x width), and those of {whose} {format_shape(shape)}. Give images of one "
                "kind: a score depends on how they are converted, so crgan leaves that to you."
            )
        wanted = protocol.num_samples * protocol.repeats
        if len(images.x) < wanted:
            at_most = f"metrics.num_samples={len(images.x)}"
            raise UserError(
                f"{path} holds {len(images.x)} images, and the protocol scores {wanted} "
                f"(metrics.num_samples={protocol.num_samples}, "
                f"metrics.repeats={protocol.repeats}). "
                f"Give {at_most} metrics.repeats=1: the numbers are then of another protocol."
            )

    def _score(self, path: Path, found: ImageCollection, y: Tensor | None) -> Evaluation:
        images, protocol = found.images, self.evaluator.protocol
        wanted = protocol.num_samples * protocol.repeats
        rows = random_subset(wanted, torch.arange(len(images.x)))
        fakes = Fakes(
            lambda start, n: to_float(images.x[rows[start : start + n]]),
            None if y is None else y[rows],
        )
        values = self.evaluator(fakes, progress=self.show)
        drawn = dict.fromkeys(("weights", "batch_norm", "truncation", "generator_weights"), UNKNOWN)
        record = {**self.evaluator.describe(), **drawn}
        return Evaluation({"samples": str(path), "samples_sha256": found.sha256}, values, record)


def class_labels(path: Path, found: ImageCollection, names: Sequence[str], whose: str) -> Tensor:
    """(N,) the classes of images in sub-folders, numbered as `names` are.

    A sub-folder is called as a class or by its number: its own place in the alphabet means nothing.
    Raises UserError for any other.
    """
    numbers = {name: number for number, name in enumerate(names)}
    numbers = {str(number): number for number in range(len(names))} | numbers
    if strange := [name for name in found.class_names if name not in numbers]:
        shown = ", ".join(list(names)[:10]) or "none"
        raise UserError(
            f"class_fid compares class by class, and the sub-folder {strange[0]} of {path} is "
            f"no class of {whose}, which has {shown}. Name sub-folders as classes or by "
            "their numbers from 0, or leave class_fid out of metrics.measures."
        )
    return torch.tensor([numbers[name] for name in found.class_names])[found.images.y]


def exported_class_names(fakes: Fakes, export: Export | None) -> Fakes:
    """The same images, each put down as it is drawn."""
    if export is None:
        return fakes

    def draw(start: int, n: int) -> Tensor:
        images = fakes.draw(start, n)
        export.add("generated", to_uint8(images))
        return images

    return fakes._replace(draw=draw)


def require_exportable(evaluator: Evaluator) -> None:
    """Raises UserError where PNGs cannot be what is scored."""
    if evaluator.protocol.repeats > 1 or evaluator.protocol.rounding == "none":
        raise UserError(
            "--export writes one set of images as PNGs, and the protocol "
            f"scores metrics.repeats={evaluator.protocol.repeats} with "
            f"metrics.rounding={evaluator.protocol.rounding}: "
            "add metrics.repeats=1 metrics.rounding=uint8, or take metrics=fid10k_test."
        )


def last_record(path: Path) -> Evaluation:
    """The last evaluation of a run or in a file. Raises UserError where there is none."""
    file = path / RECORDS if path.is_dir() else path
    if not path.exists():
        raise UserError(f"--against {path}: there is nothing. Give a run's folder.")
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
        if not lines and path.is_dir():
            return record_from_result(RunDir(path))
        return parse_records(lines[-1])
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"--against {path}: there is no evaluation that can be read. Give the folder of a run "
            f"with metrics, evaluate that run first (crgan eval RUN metrics=...), or give the "
            f"{RECORDS} or --json file that crgan eval has written."
        ) from error


def record_from_result(run: RunDir) -> Evaluation:
    """The last metrics of the training itself."""
    result = json.loads((run.path / "result.json").read_text(encoding="utf-8"))
    return parse_records(
        {"checkpoint": str(run.path), **result["last"], "protocol": result["protocol"]}
    )


def parse_records(record: dict) -> Evaluation:
    """`Evaluation.as_json`, read back."""
    protocol = dict(record["protocol"])
    of = {key: record[key] for key in ("checkpoint", "step", "samples") if key in record}
    numbers = {
        key: float(value)
        for key, value in record.items()
        if key not in of and isinstance(value, int | float)
    }
    return Evaluation(of, numbers, protocol)


def save_curve(evaluations: Sequence[Evaluation], run: Path) -> Path:
    """Draws the headline of each checkpoint over its step; returns the picture's path."""
    last = evaluations[-1].protocol
    name = str(last["headline"])
    figure, (axes,) = panels(1, f"{last['protocol']}, {last['extractor']}")
    steps = [float(str(evaluation.of["step"])) for evaluation in evaluations]
    axes.plot(steps, [each.values[name] for each in evaluations], color=BLUE, marker="o")
    if (floor := evaluations[-1].values.get(f"{name}_floor")) is not None:
        axes.axhline(floor, color=GREY, linestyle="--", label="real against real")
        axes.legend()
    axes.set(xlabel="step", ylabel=f"{name} (lower is better)")
    path = run / f"curve_{name}_{last['protocol']}.png"
    try:
        save(figure, path)
    except OSError as error:
        raise RunFailed(f"the curve could not be written to {path} ({error.strerror}).") from error
    return path


def append_record(evaluation: Evaluation, path: Path) -> None:
    """Adds a line to a file. Raises RunFailed where it cannot be written."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(evaluation.as_json()) + "\n")
    except OSError as error:
        raise RunFailed(
            f"the metrics above could not be added to {path} ({error.strerror})."
        ) from error

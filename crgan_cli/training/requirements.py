"""What a run needs at least, checked before images are decoded and anything is downloaded."""

from collections.abc import Mapping, Sequence

import torch
from omegaconf import DictConfig

from crgan_cli.config.build import build_group
from crgan_cli.config.resolve import format_typed
from crgan_cli.config.sides import Sides
from crgan_cli.data.batches import require_valid_batch_size
from crgan_cli.data.dataset import Dataset
from crgan_cli.data.samplers import ImageSampler, Shuffle
from crgan_cli.errors import UserError, conflict
from crgan_cli.evaluation.drawing import get_draws
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.requirements import require_classes, require_enough_real
from crgan_cli.gan.build import get_task_class
from crgan_cli.gan.stages import Stages
from crgan_cli.gan.tasks.base import Task
from crgan_cli.gan.tasks.generation import Generation
from crgan_cli.networks.pggan import require_groups
from crgan_cli.system.distributed.world import world
from crgan_cli.system.memory import is_shortage, require_memory
from crgan_cli.training.costs import count_weights
from crgan_cli.training.optimizers import Optimization

NUMBER = 4
"""Bytes of a weight, or of one channel of a pixel in a network."""

SIZES = ("width", "ch", "fmap_base", "fmap_max", "g_units", "d_units", "z_dim", "embed_dim")
"""Keys of architectures that decide how many weights there are, the most important first."""


def require_possible_end(config: DictConfig, optimization: Optimization) -> None:
    """Raise UserError for a schedule longer than the run, or an early stop without metrics."""
    optimization.require_steps(config.steps)
    patience = config.early_stop.patience
    if patience is not None and not config.metrics._target_:
        raise UserError(
            f"early_stop.patience={patience} waits for better metrics, and metrics=none "
            "measures nothing: type early_stop.patience=null, or choose metrics."
        )


def require_enough_memory(
    config: DictConfig, stages: Stages, device: torch.device, moments: int
) -> None:
    """Raise UserError if the networks cannot be built, or if a run needs more memory than there is.

    Counted are the weights with their gradients and `moments`, and next to them the images of a
    batch, those of a grid, and the latents of the metrics. All else comes on top.
    """
    state = count_state_bytes(config, device, moments)
    sides, channels = Sides.read(config.dataset.resolution), int(config.dataset.channels)
    image, latent = NUMBER * channels * sides.pixels, NUMBER * config.architecture.get("z_dim", 0)

    largest = max(stages, key=lambda stage: stage.batch_size * stage.sides.pixels)
    batch = largest.batch_size // world().world_size
    images = 2 * NUMBER * channels * largest.sides.pixels  # real and generated
    key = "task.batch_sizes" if config.task.get("batch_sizes") else "batch_size"
    parts = {"images": batch * (images + latent), **state}
    require_memory(
        f"{key}={largest.batch_size}", parts, device, f"Lower {key} or dataset.resolution."
    )
    if not get_task_class(config).has_latents:
        return  # of images there are no more than in the data set

    num = int(config.samples.num)
    parts = {"images": num * (image + latent), **state}
    require_memory(f"samples.num={num}", parts, device, "Lower samples.num.")
    scored = (config.metrics.get("num_samples") or 0) * config.metrics.get("repeats", 1)
    keys = "metrics.num_samples or metrics.repeats"
    parts = {"latents": scored * latent}
    require_memory("an evaluation", parts, torch.device("cpu"), f"Lower {keys}.")


def count_state_bytes(config: DictConfig, device: torch.device, moments: int) -> dict[str, int]:
    """Return the bytes of the weights, and of the gradients and moments of training, by name.

    Raise UserError if they are more than the device has.
    """
    typed = [f"architecture.{key}" for key in SIZES if config.architecture.get(key) is not None]
    *most, last = [*typed[:3], "dataset.resolution"]
    remedy = f"Lower {', '.join(most)} or {last}." if most else f"Lower {last}."
    try:
        g, d = count_weights(config)
    except RuntimeError as error:
        if not is_shortage(error):
            return {}  # of a plug-in that needs numbers to be built
        raise UserError(f"the networks have more weights than can be counted. {remedy}") from error
    averaged = g if config.ema.decay is not None else 0
    parts = {
        "weights": NUMBER * (g + d + averaged),
        "gradients and moments": NUMBER * (max(g, d) + moments * (g + d)),
    }
    require_memory("training these networks", parts, device, remedy)
    return parts


def require_images(config: DictConfig, task: Task, dataset: Dataset, stages: Stages) -> None:
    """Raise UserError for a batch size of any stage that D does not allow, or for more images than
    the data set has, as far as is known before it is read."""
    for stage in stages:
        require_groups(task, max(1, stage.batch_size // world().world_size))
    dataset.require_facts()
    counts = dataset.known_counts("train")
    require_batches(config, stages, {name: (count,) for name, count in counts.items()})
    require_enough_real(config.metrics, dataset)


def build_sampler(config: DictConfig, dataset: Dataset) -> ImageSampler:
    """Build the sampler. Raises UserError for another class, or data that it is not for, as far as
    is known before they are read."""
    sampler = build_group(config.sampler)
    name = f"sampler {type(sampler).__name__}"
    if not isinstance(sampler, ImageSampler):
        raise UserError(
            f"sampler._target_ must name one class, a crgan_cli.data.ImageSampler, not "
            f"{format_typed(config.sampler._target_)}. docs/extending.md shows one."
        )
    if dataset.block_shuffle is not None and type(sampler) is not Shuffle:
        reason = "its images are read from a large file nearly in sequence, in an order of its own"
        raise UserError(conflict(dataset.title, f"the {name}", reason, "Type sampler=shuffle."))
    if sampler.needs_classes and not dataset.classes:
        facts = dataset.get_facts()
        count = facts.classes if facts else 0
        remedy = (
            f"Type dataset.classes={count}, or sampler=shuffle."
            if count
            else "Type sampler=shuffle, or dataset.classes=N if each image has one of N classes."
        )
        raise UserError(
            f"{dataset.title} has no classes with dataset.classes=0, and the {name} draws by "
            f"class. {remedy}"
        )
    return sampler


def require_batches(config: DictConfig, stages: Stages, sizes: Mapping[str, Sequence[int]]) -> None:
    """Raise UserError if a batch of any stage cannot be drawn from one of the sets.

    `sizes` are those of the parts of each set; a batch is of one part.
    """
    remedy = ", or less in task.batch_sizes" if config.task.get("batch_sizes") else ""
    remedy += ", or raise dataset.fraction" if config.dataset.get("fraction", 1) < 1 else ""
    for name, counts in sizes.items():
        parts = list(config.dataset.get("parts") or map(str, range(1, len(counts) + 1)))
        for part, count in zip(parts if len(counts) > 1 else [name], counts, strict=True):
            own = part if len(sizes) > 1 or len(counts) > 1 else ""
            for stage in stages:
                require_valid_batch_size(
                    stage.batch_size, count, world().world_size, name=own, remedy=remedy
                )


def require_metrics(
    config: DictConfig,
    evaluator: Evaluator,
    task: Task,
    dataset: Dataset,
    class_names: Sequence[str] = (),
) -> None:
    """Raise UserError for metrics that are not for a run. `class_names`: as far as known."""
    if evaluator.protocol.weights == "ema" and config.ema.decay is None:
        raise UserError(
            "metrics.weights=ema evaluates the averaged generator, but ema.decay=null "
            "keeps no average: set a decay, as in ema.decay=0.9999, or "
            "metrics.weights=auto."
        )
    evaluator.require_draws(get_draws(config, class_names))
    evaluator.require_dataset(dataset)
    classes = task.prior.classes if isinstance(task, Generation) else 0
    require_classes(evaluator.metrics, bool(classes), "the images of this model have")

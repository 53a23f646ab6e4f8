"""Draw what `crgan sample` and `Model.sample` ask for: the same request, the same bits."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from crgan_cli.config.sides import Sides
from crgan_cli.errors import UserError
from crgan_cli.evaluation.load import LoadedGenerator
from crgan_cli.evaluation.sampler import (
    Latents,
    Sampler,
    class_per_row,
    eval_mode,
    grid_columns,
    interpolate,
    interpolate_loops,
    sample_latents,
)
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.system.memory import require_memory


class Request(NamedTuple):
    """Which images to draw. The names are those of the options of `crgan sample`."""

    n: int = 64
    classes: Sequence[str] | None = None  # by number or name, one per row of the grid
    truncation: float | None = None  # as in `Prior.truncate`
    interpolate: int | None = None  # images of a row from one latent to another
    seed: int = 0
    batch_size: int = 100
    movie: bool = False  # loops through latents instead of rows
    loops: int = 1  # of a movie: side by side, each of one class

    def count_images(self) -> tuple[int, int]:
        """Return how many latents are drawn, and how many images: those between two too."""
        if not self.interpolate:
            return self.n, self.n
        if self.movie:
            stops = max(2, -(-self.n // self.interpolate)) * self.loops
            return stops, stops * self.interpolate
        paths = -(-self.n // self.interpolate)  # enough paths, each with two ends
        return 2 * paths, paths * self.interpolate


class DrawnRequest(NamedTuple):
    """Images that are drawn as they are asked for."""

    batches: Iterator[Tensor]  # (<= batch_size, C, H, W) each, in [-1, 1], fp32
    total: int  # images
    columns: int  # of their grid


def draw_request(
    model: LoadedGenerator, request: Request, device: torch.device, *, whole: bool
) -> DrawnRequest:
    """Check a request, and return its images. `whole`: they will be in memory all at once.

    Raise UserError, before any is drawn, for what the generator cannot do or memory cannot hold;
    RunFailed, while they are drawn, for images that are not finite.
    """
    prior = model.prior
    require_memory_for_images(request, model, device, whole=whole)
    latents, columns = make_latents(request, prior, model.class_names)
    sampler, n = Sampler(latents, device), request.batch_size

    def draw() -> Iterator[Tensor]:
        for start in range(0, len(latents.z), n):
            with eval_mode(model.G):
                images = sampler.draw(model.G, start, n)
            yield images  # outside: whoever gets them keeps their own modes

    return DrawnRequest(draw(), len(latents.z), columns)


def require_memory_for_images(
    request: Request, model: LoadedGenerator, device: torch.device, *, whole: bool
) -> None:
    """Raise UserError if the images need more memory than there is, before any is drawn.

    A grid is made of all images at once. For files there are all latents, and one batch of images.
    """
    _, images = request.count_images()
    architecture = model.config.architecture
    image = 4 * architecture.channels * Sides.read(architecture.resolution).pixels
    keys = "--n or --interpolate" if request.interpolate else "--n"
    remedy = f"Lower {keys}" + (", or write --out FILE.zip." if whole else ".")
    pictures = images * image * whole
    parts = {"latents": 4 * images * architecture.z_dim, "images of one file": pictures}
    require_memory(f"--n {request.n}", parts, torch.device("cpu"), remedy)
    batch = min(images, request.batch_size) * image
    require_memory("a batch", {"images": batch}, device, "Lower --batch-size.")


def find_classes(words: Sequence[str], count: int, names: tuple[str, ...]) -> list[int]:
    """Return the numbers of classes that are given by number or name.

    A name wins: of classes called 1, 2 and 3, "3" is the last. Raises UserError for unknown ones.
    """
    numbers = {str(number): number for number in range(count)}
    numbers |= {name: number for number, name in enumerate(names)}
    if unknown := [word for word in words if word not in numbers]:
        listed = f" ({', '.join(f'{n} {name}' for n, name in enumerate(names))})" if names else ""
        known = f"the classes 0 to {count - 1}{listed}" if count else "no classes"
        raise UserError(f"--classes {','.join(unknown)}: this generator has {known}.")
    return [numbers[word] for word in words]


def make_latents(
    request: Request, prior: Prior, names: tuple[str, ...] = ()
) -> tuple[Latents, int]:
    """Return the latents for a request, and the columns of their grid.

    `names` are those of the classes, if known.
    """
    asked = request.classes
    classes = None if asked is None else find_classes(asked, prior.classes, names)
    steps = request.interpolate
    n, _ = request.count_images()
    if request.movie and steps:
        labels = class_per_row(request.loops, 1, len(classes) if classes else prior.classes)
        labels = torch.tensor(classes)[labels] if classes and labels is not None else labels
        labels = None if labels is None else labels.repeat_interleave(n // request.loops)
        stops = sample_latents(prior, n, request.seed, labels=labels, truncation=request.truncation)
        return interpolate_loops(stops, request.loops, steps, prior.kind), request.loops
    columns = 2 if steps else grid_columns(n)
    rows = class_per_row(n, columns, len(classes) if classes else prior.classes)
    labels = torch.tensor(classes)[rows] if classes and rows is not None else rows
    latents = sample_latents(prior, n, request.seed, labels=labels, truncation=request.truncation)
    return (interpolate(latents, steps, prior.kind), steps) if steps else (latents, columns)

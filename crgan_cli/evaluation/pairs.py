"""How near translated images are to their targets, image by image and as a set."""

import logging

import torch
from torch import Tensor

from crgan_cli.data.dataset import Dataset
from crgan_cli.errors import UserError
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.fakes import Fakes
from crgan_cli.evaluation.metrics.features import Progress, Stop
from crgan_cli.evaluation.metrics.pairwise import NAMES, SSIM_RADIUS, compare_pairs
from crgan_cli.evaluation.reference_images import ReferenceImages
from crgan_cli.system.distributed.objects import all_gather_objects

log = logging.getLogger(__name__)
BATCH = 16  # images that are compared at once, in float64


class PairsEvaluator(Evaluator):
    """Scores translated images against the targets of their inputs.

    Besides the distances between sets of `Evaluator`: the means of L1, PSNR and SSIM over the
    pairs. Next to each stand those of two baselines: the input itself as the answer (`_of_input`),
    and the mean of all training targets (`_of_mean`). A model that is no better has learnt nothing.
    """

    compares_pairs = True  # False: only sets, as of files that have no inputs
    targets: Tensor  # (N, C, H, W) uint8
    baselines: dict[str, float]

    def require_dataset(self, dataset: Dataset) -> None:
        super().require_dataset(dataset)
        if dataset.resolution < 2 * SSIM_RADIUS + 1:
            raise UserError(
                f"metrics=pairs compares windows of 11 x 11 pixels, and dataset.resolution is "
                f"{dataset.resolution}. Type metrics=none, or a larger dataset.resolution."
            )

    def prepare(
        self,
        dataset: Dataset,
        target: str = "target",
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> None:
        self.require_dataset(dataset)
        if "input" not in dataset.load_views("test"):
            raise UserError(
                "metrics=pairs compares images with their targets, and this data set has no "
                "pairs. Type metrics=demo, or dataset=pairs dataset.root=PATH."
            )
        super().prepare(dataset, target, progress=progress, stop=stop)
        if not self.compares_pairs:
            return
        chosen = self.protocol.reference, self.protocol.num_samples
        self.targets = ReferenceImages(dataset, *chosen, target).images.x
        inputs = ReferenceImages(dataset, *chosen, "input").images.x
        mean = mean_image(dataset.load_views("train")[target].x)
        self.baselines = {
            **measure(as_channels(inputs, self.targets.shape[1]), self.targets, "_of_input"),
            **measure(mean, self.targets, "_of_mean"),
        }

    def __call__(
        self, fakes: Fakes, progress: Progress | None = None, stop: Stop | None = None
    ) -> dict[str, float]:
        """Return name -> number; see `Evaluator`."""
        if not self.compares_pairs:
            return super().__call__(fakes, progress, stop)
        targets = self.targets
        numbers = torch.zeros(len(targets), len(NAMES) + 1, dtype=torch.float64)

        def draw(start: int, n: int) -> Tensor:
            images = fakes.draw(start, n)
            pixels, rows = self.to_pixels(images, n), slice(start, start + n)
            numbers[rows, :-1] = compare_pairs(pixels.cpu(), targets[rows])
            numbers[rows, -1] = 1
            return images

        values = super().__call__(fakes._replace(draw=draw), progress, stop)
        # with several processes, each has drawn a part, and some images twice
        *sums, counts = torch.stack(all_gather_objects(numbers)).sum(0).unbind(1)
        for name, total in zip(NAMES, sums, strict=True):
            values[name] = float((total / counts).mean())
            values |= {key: value for key, value in self.baselines.items() if key.startswith(name)}
        return values


def mean_image(x: Tensor) -> Tensor:
    """(N, C, H, W) uint8 -> (1, C, H, W) float64. They may be more than the memory holds."""
    total = torch.zeros(x.shape[1:], dtype=torch.float64)
    for part in x.split(BATCH):
        total += part.sum(0, dtype=torch.int64)
    return total[None] / len(x)


def as_channels(inputs: Tensor, channels: int) -> Tensor | None:
    """Return inputs as images of so many channels, for the baseline; None if they cannot be.

    Grey is repeated, colour is averaged, and alpha is left out.
    """
    if inputs.shape[1] == 4:
        inputs = inputs[:, :3]
    if inputs.shape[1] == channels:
        return inputs
    if inputs.shape[1] == 1:
        return inputs.expand(-1, channels, -1, -1)
    if channels == 1:
        return inputs.float().mean(1, keepdim=True)
    log.info(
        "inputs of %d channels cannot stand for targets of %d: no baseline of the input",
        inputs.shape[1],
        channels,
    )
    return None


def measure(images: Tensor | None, targets: Tensor, suffix: str) -> dict[str, float]:
    """Return the mean of each number over all pairs, named with a suffix. One image is an answer
    to all."""
    if images is None:
        return {}
    images = images.expand(len(targets), -1, -1, -1)
    parts = [
        compare_pairs(images[i : i + BATCH], targets[i : i + BATCH])
        for i in range(0, len(targets), BATCH)
    ]
    means = torch.cat(parts).mean(0)
    return {f"{name}{suffix}": float(value) for name, value in zip(NAMES, means, strict=True)}

"""How alike generated images are to each other, by multi-scale structural similarity.

Odena et al. 2017, "Conditional Image Synthesis with Auxiliary Classifier GANs" (arXiv:1610.09585),
section 4.2: the mean over random pairs of generated images. A generator that lacks variety scores
higher than real images do. A low number alone is no praise, as noise scores lowest: the evaluator
adds that of the real images.
"""

import torch
from torch import Tensor

from crgan_cli.evaluation.metrics.base import Metric, require_counts, require_side
from crgan_cli.evaluation.metrics.features import FeatureSet
from crgan_cli.evaluation.metrics.pairwise import SCALE_WEIGHTS, ms_ssim

PAIRS = 10_000  # Karras et al. 2018 (arXiv:1710.10196)
SMALLEST = 2 ** (len(SCALE_WEIGHTS) - 1)  # pixels per side: one is left at the coarsest scale
SEED = 0  # of the choice of pairs
PIXELS_AT_ONCE = 2**20  # of each side of the pairs


class MultiScaleSSIM(Metric):
    """`ms_ssim`: the mean MS-SSIM of random pairs of generated images, Odena et al. 2017
    (arXiv:1610.09585). Below 176 pixels per side the windows of coarse scales are smaller."""

    name = key = "ms_ssim"
    required = frozenset({"images"})
    shows_real = True

    def __init__(self, pairs: int = PAIRS) -> None:
        self.pairs = pairs

    def require(self, real: int, fake: int, dims: int) -> None:
        require_counts(self.name, real, fake, least=2, why="ms_ssim needs 2, a pair")

    def require_shape(self, shape: tuple[int, ...]) -> None:
        require_side(self.name, shape, SMALLEST)

    def describe(self) -> dict[str, str | int | float]:
        return {
            "ms_ssim_pairs": self.pairs,
            "ms_ssim_scales": len(SCALE_WEIGHTS),
            "ms_ssim_seed": SEED,
        }

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        device = fake.moments.mean.device
        return {"ms_ssim": mean_similarity(fake.require_images(), self.pairs, device)}


@torch.no_grad()
def mean_similarity(images: Tensor, pairs: int, device: torch.device | str = "cpu") -> float:
    """Return the mean MS-SSIM of random pairs of different images, (N, C, H, W) in 0..255."""
    first, second = choose_image_pairs(len(images), pairs)
    size = max(1, PIXELS_AT_ONCE // images[0].numel())
    found = [
        ms_ssim(images[i].to(device).double(), images[j].to(device).double())
        for i, j in zip(first.split(size), second.split(size), strict=True)
    ]
    return float(torch.cat(found).mean())


def choose_image_pairs(n: int, pairs: int) -> tuple[Tensor, Tensor]:
    """Return two different numbers below n for each pair, always the same."""
    generator = torch.Generator().manual_seed(SEED)  # torch's own stays untouched
    first = torch.randint(0, n, (pairs,), generator=generator)
    return first, (first + torch.randint(1, n, (pairs,), generator=generator)) % n

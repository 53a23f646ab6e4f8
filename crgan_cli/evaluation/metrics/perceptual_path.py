"""Perceptual path length: how far an image moves, in features, for a small step of the latents.

Karras et al. 2019, "A Style-Based Generator Architecture for GANs" (arXiv:1812.04948), section 4.1:

    E[ d(G(slerp(z1, z2; t)), G(slerp(z1, z2; t + eps))) / eps^2 ],  t ~ U(0, 1), eps = 1e-4

Their d is LPIPS of VGG16; here it is the squared Euclidean distance of the extractor's features,
so the number carries the extractor's name and is not theirs. As in their code, the 1 % smallest and
the 1 % largest distances are left out. The images are not rounded: a step changes less than a grey
level.
"""

from torch import Tensor

from crgan_cli.evaluation.metrics.base import Metric
from crgan_cli.evaluation.metrics.features import FeatureSet

STEP = 1e-4
LEFT_OUT = 0.01  # of the distances, at each end


class PerceptualPathLength(Metric):
    """`ppl`: the mean squared distance of the features per squared step of the latents."""

    name = key = "ppl"
    required = frozenset({"steps"})

    def describe(self) -> dict[str, str | int | float]:
        return {"ppl_step": STEP, "ppl_left_out": LEFT_OUT, "ppl_space": "z, full path, fp32"}

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, float]:
        assert fake.steps is not None, "'steps' is in `required`"
        return {"ppl": path_length(*fake.steps)}


def path_length(before: Tensor, after: Tensor) -> float:
    """The trimmed mean of ||f - f'||^2 / STEP^2 over rows of features, (N, dims) each."""
    distances = (after.double() - before.double()).square().sum(1).sort().values / STEP**2
    cut = int(LEFT_OUT * len(distances))
    return float(distances[cut : len(distances) - cut].mean())

"""D scores many views in one call, where that is honest.

One call is faster, and it is the truer reading of the papers: separate train-mode calls each
advance spectral normalisation's power iteration, so the views of one image would be scored by
slightly different discriminators. It needs a D that treats the images of a batch independently;
with batch normalisation the statistics of real, generated and transformed images would mix, so
such a D scores one view a call.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from crgan_cli.gan.types import Batch, Discriminator, Views


class ScoredViews(NamedTuple):
    """What a player's turn has to work with: images by role, D's logits of them, and D itself."""

    views: Views
    scores: dict[str, Tensor]  # role -> (N,) logits, fp32 or wider
    D: Discriminator


def mixes_samples(module: nn.Module) -> bool:
    """Whether the score of an image depends on the batch around it.

    Batch normalisation does that, and any layer that says so with an attribute `mixes_samples`
    (minibatch standard deviation, for one).
    """
    return any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm) or getattr(layer, "mixes_samples", False)
        for layer in module.modules()
    )


def concatenate(batches: list[Batch]) -> Batch:
    """The batches one after another. All are conditioned, or none is."""
    x = torch.cat([batch.x for batch in batches])
    labels = [batch.y for batch in batches if batch.y is not None]
    assert len(labels) in (0, len(batches)), "some views are conditioned and some are not"
    return Batch(x, torch.cat(labels) if labels else None)


def split_views(together: Batch, views: Views) -> Views:
    """The views that `together` was joined from, with its images."""
    sizes = [len(batch.x) for batch in views.values()]
    parts = zip(views.items(), together.x.split(sizes), strict=True)
    return {role: batch._replace(x=x) for (role, batch), x in parts}


def at_least_fp32(logits: Tensor) -> Tensor:
    """fp32 or wider: consistency terms are small differences of logits, which bf16 would drop."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def score(D: Discriminator, views: Views, *, jointly: bool) -> dict[str, Tensor]:
    """role -> logits of D. `jointly` scores all views in one call."""
    if not jointly:
        return {role: at_least_fp32(D(batch.x, batch.y)) for role, batch in views.items()}
    together = concatenate(list(views.values()))
    logits = at_least_fp32(D(together.x, together.y))
    return dict(zip(views, logits.split([len(batch.x) for batch in views.values()]), strict=True))

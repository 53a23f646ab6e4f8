"""Score all views in one discriminator call. With batch norm in D, use one call per view.

One call is faster, and closer to the papers: in train mode each call advances spectral norm's power
iteration, so separate calls would compare scores of slightly different discriminators. Batch norm
in D would mix the statistics of real, generated and transformed images in a common call.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from crgan_cli.gan.types import Batch, Discriminator, Generator, Views
from crgan_cli.networks.layers import at_least_fp32
from crgan_cli.networks.verdict import Verdict
from crgan_cli.system import rng


class ScoredViews(NamedTuple):
    """The images of one turn by role, D's logits of them, and what made both."""

    views: Views
    scores: dict[str, Tensor]  # role -> (N,) logits, or maps (N, 1, h, w); fp32 or wider
    D: Discriminator
    origin: "Origin | None" = None  # of the generated views, in a G step of a task with latents
    classes: dict[str, Tensor] | None = None  # role -> (N, c) class logits, if D classifies


class Origin(NamedTuple):
    """Where generated images come from: G and the latents of each role."""

    G: Generator
    latents: dict[str, Tensor]  # role -> (N, z_dim)
    y: Tensor | None  # (N,) class ids, the same for all roles


def mixes_samples(module: nn.Module) -> bool:
    """Whether the score of an image depends on the other images of its batch.

    True with batch norm, or with a layer that has the attribute `mixes_samples` (for example
    minibatch standard deviation).
    """
    return any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm) or getattr(layer, "mixes_samples", False)
        for layer in module.modules()
    )


def concatenate(batches: list[Batch]) -> Batch:
    """One batch of all images, in order. Either all batches have labels, or none has."""
    x = torch.cat([batch.x for batch in batches])
    labels = [batch.y for batch in batches if batch.y is not None]
    assert len(labels) in (0, len(batches)), "some views are conditioned and some are not"
    return Batch(x, torch.cat(labels) if labels else None)


def split_views(together: Batch, views: Views) -> Views:
    """The inverse of `concatenate`: `views` with the images of `together` in place of theirs."""
    sizes = [len(batch.x) for batch in views.values()]
    parts = zip(views.items(), together.x.split(sizes), strict=True)
    return {role: batch._replace(x=x) for (role, batch), x in parts}


def score(
    D: Discriminator, views: Views, *, jointly: bool, origin: Origin | None = None
) -> ScoredViews:
    """D's verdict on views: all in one call if `jointly`, otherwise one call per view."""
    if jointly:
        together = concatenate(list(views.values()))
        with rng.draws_for(len(views)):  # for D's dropout
            verdicts = [as_verdict(D(together.x, together.y))]
    else:
        verdicts = [as_verdict(D(batch.x, batch.y)) for batch in views.values()]
    sizes = [len(batch.x) for batch in views.values()]
    logits = torch.cat([each.logits for each in verdicts]).split(sizes)
    scored = ScoredViews(views, dict(zip(views, logits, strict=True)), D, origin)
    classes = [each.classes for each in verdicts if each.classes is not None]
    if not classes:
        return scored
    return scored._replace(classes=dict(zip(views, torch.cat(classes).split(sizes), strict=True)))


def as_verdict(scores: Tensor | Verdict) -> Verdict:
    """A discriminator's answer, with its class logits if it gives some; fp32 or wider."""
    if isinstance(scores, Tensor):
        return Verdict(at_least_fp32(scores))
    assert scores.classes is not None
    return Verdict(at_least_fp32(scores.logits), at_least_fp32(scores.classes))


def mean_over_places(scores: Tensor) -> Tensor:
    """(N,) unchanged; maps (N, 1, h, w) -> (N,)."""
    return scores if scores.ndim == 1 else scores.flatten(1).mean(1)

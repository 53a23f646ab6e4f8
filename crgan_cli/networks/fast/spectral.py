"""Spectral norm of one layer, or of all layers of several networks at once.

Miyato et al. 2018 (arXiv:1802.05957), Algorithm 1: from the stored u of a weight matrix W, one
power iteration

    v = W^T u / ||W^T u||,   u' = W v / ||W v||,   sigma = u'^T W v = ||W v||,   W_SN = W / sigma.

u' and v are constants for autograd, sigma is not (their equation 9): d sigma / d W = u' v^T.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from crgan_cli.networks.layers import find_weighted_layers

FIRST_ITERATIONS = 15
"""Power iterations of a new layer. They bring sigma near the largest singular value."""


class MatrixView(NamedTuple):
    """How to view a weight of two or four axes as a matrix with one row per output channel.

    Columns are in memory order, so neither memory format needs a copy. The singular values do not
    depend on the order of columns.
    """

    axes: list[int]  # of the weight: the axis of the rows, then those of the columns
    columns: list[int]  # lengths of the column axes

    @classmethod
    def from_weight(cls, weight: Tensor, rows: int) -> "MatrixView":
        others = [axis for axis in range(weight.ndim) if axis != rows]
        others.sort(key=lambda axis: -weight.stride(axis))
        return cls([rows, *others], [weight.shape[axis] for axis in others])

    def read(self, weight: Tensor) -> Tensor:
        """Return (rows, columns), a view if possible."""
        return weight.permute(self.axes).flatten(1)

    def write(self, matrix: Tensor) -> Tensor:
        """Invert `read`."""
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return matrix.unflatten(1, self.columns).permute(back)


def _unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x)


class SpectralNorm(nn.Module):
    """The parametrization W -> W / sigma(W) (Miyato et al. 2018, arXiv:1802.05957, Algorithm 1).

    Each call is one power iteration. Training mode stores its u', evaluation mode does not.
    Within `fixed_spectral_norm`, a call only returns `cached_weight`, or `cast_weight` if any.
    """

    u: Tensor  # (rows,), of length 1
    cast_weight: Tensor | None = None

    def __init__(self, weight: Tensor, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.cached_weight: Tensor | None = None
        W = MatrixView.from_weight(weight, rows).read(weight.detach())
        u = _unit(torch.randn_like(W[:, 0]))
        for _ in range(FIRST_ITERATIONS):
            u = _unit(W @ _unit(W.T @ u))
        self.register_buffer("u", u)

    def forward(self, weight: Tensor) -> Tensor:
        if self.cached_weight is not None:
            return self.cached_weight if self.cast_weight is None else self.cast_weight
        # under autocast the products would be bf16: sigma with a relative error of 2^-8
        with torch.autocast(weight.device.type, enabled=False):
            W = MatrixView.from_weight(weight, self.rows).read(weight)
            with torch.no_grad():
                v = _unit(W.T @ self.u)
            image = W @ v
            u = _unit(image.detach())
            if self.training:
                self.u.copy_(u)  # a copy: backward needs this u, while the buffer changes
            return weight / (u @ image)


def spectral_norm(module: nn.Module) -> nn.Module:
    """Divide `module.weight` by its largest singular value. Initialise the weight first."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    rows = 1 if isinstance(module, nn.ConvTranspose2d) else 0
    # unsafe: torch's check of shape and dtype would run one more power iteration
    register_parametrization(module, "weight", SpectralNorm(weight, rows), unsafe=True)
    return module


def apply_spectral_norm(*roots: nn.Module) -> None:
    """`spectral_norm` on every weighted layer below `roots`."""
    for root in roots:
        for module in list(
            find_weighted_layers(root)
        ):  # a list: the loop must not visit the modules that it adds
            spectral_norm(module)


# --- all layers at once --------------------------------------------------------------------------


class NormedWeight(NamedTuple):
    """A spectral norm and its weight."""

    norm: SpectralNorm
    weight: Tensor


def find_norms(*networks: nn.Module) -> list[NormedWeight]:
    """Find the spectral norms of all networks. Shared layers count once."""
    norms: dict[SpectralNorm, Tensor] = {}
    for network in networks:
        for module in network.modules():
            norm = module[0] if isinstance(module, ParametrizationList) else None
            if isinstance(norm, SpectralNorm):
                norms[norm] = module.get_parameter("original")
    return [NormedWeight(norm, weight) for norm, weight in norms.items()]


@contextmanager
def fixed_spectral_norm(*networks: nn.Module, together: bool = True) -> Iterator[None]:
    """Run one power iteration at the start, and use its weights until the end of the context.

    `together` computes all layers in a few kernels, otherwise each layer has its own: the same
    numbers up to rounding. A weight has a graph if it requires a gradient at the start.
    """
    with fixed_norms(find_norms(*networks), together=together):
        yield


@contextmanager
def fixed_norms(layers: list[NormedWeight], *, together: bool) -> Iterator[None]:
    """`fixed_spectral_norm` for what `find_norms` has found."""
    assert all(norm.cached_weight is None for norm, _ in layers), (
        "fixed_spectral_norm within fixed_spectral_norm"
    )
    weights = _normalise_batched(layers) if together and layers else [norm(W) for norm, W in layers]
    try:
        for (norm, _), weight in zip(layers, weights, strict=True):
            norm.cached_weight = weight
        yield
    finally:
        for norm, _ in layers:
            norm.cached_weight = None


class PowerIteration(NamedTuple):
    """One power iteration of all layers. Vectors are rows of one tensor, padded with zeros."""

    matrices: list[MatrixView]
    v: list[Tensor]  # (columns,) each
    u: Tensor  # (layers, width)
    inverse_sigma: list[Tensor]  # () each


def _normalise_batched(layers: list[NormedWeight]) -> tuple[Tensor, ...]:
    """Return all normalised weights, computed in a few kernels."""
    with torch.autocast(layers[0].weight.device.type, enabled=False):
        return DivideBySigma.apply(_iterate(layers), *(weight for _, weight in layers))


@torch.no_grad()
def _iterate(layers: list[NormedWeight]) -> PowerIteration:
    """Run one power iteration of all layers. The norms come last, in one kernel for all layers:
    with t = W^T u and w = W t, v = t / ||t||, u' = w / ||w|| and sigma = ||w|| / ||t||."""
    matrices = [MatrixView.from_weight(weight, norm.rows) for norm, weight in layers]
    Ws = [matrix.read(weight) for matrix, (_, weight) in zip(matrices, layers, strict=True)]
    vectors = Ws[0].new_zeros(2, len(Ws), max(max(W.shape) for W in Ws))
    v = [row[: W.shape[1]] for row, W in zip(vectors[0], Ws, strict=True)]
    u = [row[: W.shape[0]] for row, W in zip(vectors[1], Ws, strict=True)]
    for (norm, _), W, t, w in zip(layers, Ws, v, u, strict=True):
        torch.mv(W.T, norm.u, out=t)
        torch.mv(W, t, out=w)
    lengths = torch.linalg.vector_norm(vectors, dim=2)
    vectors.div_(lengths.unsqueeze(2))
    training = [i for i, (norm, _) in enumerate(layers) if norm.training]
    if training:
        old, new = [layers[i].norm.u for i in training], [u[i] for i in training]
        torch._foreach_copy_(old, new)  # pyright: ignore[reportPrivateImportUsage]
    return PowerIteration(matrices, v, vectors[1], list((lengths[0] / lengths[1]).unbind()))


class Context(FunctionCtx):
    """What `DivideBySigma` saves for backward."""

    iteration: PowerIteration
    saved_tensors: tuple[Tensor, ...]  # the normalised weights


class DivideBySigma(torch.autograd.Function):
    """W -> W / sigma for a list of weights, with constant vectors u' and v.

    If g is the gradient of W / sigma, that of W is (g - <g, W / sigma> u' v^T) / sigma. No double
    backward: a penalty on the gradient in the images needs this derivative only once.
    """

    @staticmethod
    def forward(ctx: Context, iteration: PowerIteration, *weights: Tensor) -> tuple[Tensor, ...]:
        out = torch._foreach_mul(  # pyright: ignore[reportPrivateImportUsage]
            weights, iteration.inverse_sigma
        )
        ctx.mark_non_differentiable(
            *(y for y, weight in zip(out, weights, strict=True) if not weight.requires_grad)
        )
        ctx.set_materialize_grads(False)  # the gradient of an unused weight stays None
        ctx.save_for_backward(*out)
        ctx.iteration = iteration
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Context, *grads: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        used = {i: g for i, g in enumerate(grads) if g is not None}
        with torch.autocast(next(iter(used.values())).device.type, enabled=False):
            result = _backward_through_sigma(ctx.iteration, ctx.saved_tensors, used)
        return None, *(result.get(i) for i in range(len(grads)))


def _backward_through_sigma(
    iteration: PowerIteration, weights: tuple[Tensor, ...], grads: dict[int, Tensor]
) -> dict[int, Tensor]:
    """Return the gradients of the weights i from `grads`, those of the normalised weights i."""
    matrices, v, u, inverse_sigma = iteration
    gs = {i: matrices[i].read(g) for i, g in grads.items()}
    slopes = [g.flatten().dot(matrices[i].read(weights[i]).flatten()) for i, g in gs.items()]
    us = torch.stack([u[i] for i in gs]) * torch.stack(slopes)[:, None]
    out = [
        torch.addr(g, row[: len(g)], v[i], alpha=-1)
        for row, (i, g) in zip(us, gs.items(), strict=True)
    ]
    scales = [inverse_sigma[i] for i in gs]
    torch._foreach_mul_(out, scales)  # pyright: ignore[reportPrivateImportUsage]
    return {i: matrices[i].write(x) for i, x in zip(gs, out, strict=True)}

"""Spectral norm, of one layer or of all layers of several networks at once.

Miyato et al. 2018 (arXiv:1802.05957), Algorithm 1: from the stored u of a weight matrix W, one
power iteration

    v = W^T u / ||W^T u||,   u' = W v / ||W v||,   sigma = u'^T W v = ||W v||,   W_SN = W / sigma.

u' and v carry no gradient and sigma does (their equation 9): d sigma / d W = u' v^T.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from crgan_cli.networks.layers import has_weight

FIRST_ITERATIONS = 15
"""Power iterations of a new layer, so that its first sigma is near the largest singular value."""


class Matrix(NamedTuple):
    """How a weight of two or four axes is read as a matrix with one row an output channel.

    Columns follow the weight's memory, so that neither memory format is copied: the singular
    values do not depend on the order of columns.
    """

    axes: list[int]  # of the weight: that of the rows, then those of the columns
    columns: list[int]  # the lengths of the latter

    @classmethod
    def of(cls, weight: Tensor, rows: int) -> "Matrix":
        others = [axis for axis in range(weight.ndim) if axis != rows]
        others.sort(key=lambda axis: -weight.stride(axis))
        return cls([rows, *others], [weight.shape[axis] for axis in others])

    def read(self, weight: Tensor) -> Tensor:
        """(rows, columns): a view wherever that can be."""
        return weight.permute(self.axes).flatten(1)

    def write(self, matrix: Tensor) -> Tensor:
        """The inverse of `read`."""
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return matrix.unflatten(1, self.columns).permute(back)


def _unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x)


class SpectralNorm(nn.Module):
    """The parametrization W -> W / sigma(W) (Miyato et al. 2018, arXiv:1802.05957, Algorithm 1).

    Each call is one power iteration; training mode stores its u', evaluation mode does not.
    Within `fixed_spectral_norm` a call is none: it returns `ready`, or its cast `lowered`.
    """

    u: Tensor  # (rows,), of length 1
    lowered: Tensor | None = None

    def __init__(self, weight: Tensor, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.ready: Tensor | None = None
        W = Matrix.of(weight, rows).read(weight.detach())
        u = _unit(torch.randn_like(W[:, 0]))
        for _ in range(FIRST_ITERATIONS):
            u = _unit(W @ _unit(W.T @ u))
        self.register_buffer("u", u)

    def forward(self, weight: Tensor) -> Tensor:
        if self.ready is not None:
            return self.ready if self.lowered is None else self.lowered
        # autocast would take the products in half precision: sigma good to 2^-8 only
        with torch.autocast(weight.device.type, enabled=False):
            W = Matrix.of(weight, self.rows).read(weight)
            with torch.no_grad():
                v = _unit(W.T @ self.u)
            image = W @ v
            u = _unit(image.detach())
            if self.training:
                self.u.copy_(u)  # a copy: backward needs this turn's u, the buffer moves on
            return weight / (u @ image)


def spectral_norm(module: nn.Module) -> nn.Module:
    """Divide `module.weight` by its largest singular value. Initialise the weight before."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    rows = 1 if isinstance(module, nn.ConvTranspose2d) else 0
    # unsafe: torch's check of shape and dtype would be one more power iteration
    register_parametrization(module, "weight", SpectralNorm(weight, rows), unsafe=True)
    return module


def apply_spectral_norm(*roots: nn.Module) -> None:
    """`spectral_norm` on every weighted layer below `roots`."""
    for root in roots:
        for module in list(has_weight(root)):  # a list: the walk must not see what it adds
            spectral_norm(module)


# --- all layers at once --------------------------------------------------------------------------


class Layer(NamedTuple):
    """A spectral norm and the weight that it divides."""

    norm: SpectralNorm
    weight: Tensor


def _layers(networks: tuple[nn.Module, ...]) -> list[Layer]:
    """Those of all networks, each once though networks may share it."""
    found: dict[SpectralNorm, Tensor] = {}
    for network in networks:
        for chain in network.modules():
            norm = chain[0] if isinstance(chain, ParametrizationList) else None
            if isinstance(norm, SpectralNorm):
                found[norm] = chain.get_parameter("original")
    return [Layer(norm, weight) for norm, weight in found.items()]


@contextmanager
def fixed_spectral_norm(*networks: nn.Module, together: bool = True) -> Iterator[None]:
    """Within it, the spectrally normalised weights of `networks` stand still.

    One power iteration is made at its start, and every use of a weight until its end gets the
    result. `together` computes all layers in a few kernels, otherwise each layer has its own: the
    same numbers but for rounding. A weight has a graph where it requires a gradient at the start.
    """
    layers = _layers(networks)
    assert all(norm.ready is None for norm, _ in layers), "normalised within normalised"
    weights = _together(layers) if together and layers else [norm(W) for norm, W in layers]
    try:
        for (norm, _), weight in zip(layers, weights, strict=True):
            norm.ready = weight
        yield
    finally:
        for norm, _ in layers:
            norm.ready = None


class PowerIteration(NamedTuple):
    """One of each layer. Vectors are rows of one tensor, with zeros behind the shorter ones."""

    matrices: list[Matrix]
    v: list[Tensor]  # (columns,) each
    u: Tensor  # (layers, width)
    inverse_sigma: list[Tensor]  # () each


def _together(layers: list[Layer]) -> tuple[Tensor, ...]:
    """The normalised weights."""
    with torch.autocast(layers[0].weight.device.type, enabled=False):
        return Normalised.apply(_iterate(layers), *(weight for _, weight in layers))


@torch.no_grad()
def _iterate(layers: list[Layer]) -> PowerIteration:
    """The norms are taken last, for all layers in one kernel: with t = W^T u and w = W t,
    v = t / ||t||, u' = w / ||w|| and sigma = ||w|| / ||t||."""
    matrices = [Matrix.of(weight, norm.rows) for norm, weight in layers]
    Ws = [matrix.read(weight) for matrix, (_, weight) in zip(matrices, layers, strict=True)]
    vectors = Ws[0].new_zeros(2, len(Ws), max(max(W.shape) for W in Ws))
    v = [row[: W.shape[1]] for row, W in zip(vectors[0], Ws, strict=True)]
    u = [row[: W.shape[0]] for row, W in zip(vectors[1], Ws, strict=True)]
    for (norm, _), W, t, w in zip(layers, Ws, v, u, strict=True):
        torch.mv(W.T, norm.u, out=t)
        torch.mv(W, t, out=w)
    lengths = torch.linalg.vector_norm(vectors, dim=2)
    vectors.div_(lengths.unsqueeze(2))
    moving = [i for i, (norm, _) in enumerate(layers) if norm.training]
    if moving:
        old, new = [layers[i].norm.u for i in moving], [u[i] for i in moving]
        torch._foreach_copy_(old, new)  # pyright: ignore[reportPrivateImportUsage]
    return PowerIteration(matrices, v, vectors[1], list((lengths[0] / lengths[1]).unbind()))


class Context(FunctionCtx):
    """What `Normalised` keeps from forward to backward."""

    iteration: PowerIteration
    saved_tensors: tuple[Tensor, ...]  # the normalised weights


class Normalised(torch.autograd.Function):
    """W -> W / sigma for a list of weights, with the vectors of a power iteration held fixed.

    With g the gradient of W / sigma, that of W is (g - <g, W / sigma> u' v^T) / sigma. It has no
    derivative of its own: a penalty on the gradient in the images passes here once.
    """

    @staticmethod
    def forward(ctx: Context, iteration: PowerIteration, *weights: Tensor) -> tuple[Tensor, ...]:
        out = torch._foreach_mul(  # pyright: ignore[reportPrivateImportUsage]
            weights, iteration.inverse_sigma
        )
        ctx.mark_non_differentiable(
            *(y for y, weight in zip(out, weights, strict=True) if not weight.requires_grad)
        )
        ctx.set_materialize_grads(False)  # a weight that was not used has None, as without this
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
            found = _through_sigma(ctx.iteration, ctx.saved_tensors, used)
        return None, *(found.get(i) for i in range(len(grads)))


def _through_sigma(
    iteration: PowerIteration, weights: tuple[Tensor, ...], grads: dict[int, Tensor]
) -> dict[int, Tensor]:
    """The gradients of the weights with these numbers from those of the normalised ones."""
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

"""Weights in bf16 for the length of a body: all casts of a turn in a few kernels.

Autocast casts every weight and bias of a layer when the layer is called, and every gradient on its
own on the way back: as many kernels as there are tensors. The casts made here beforehand are the
same numbers, and autocast leaves what is bf16 already as it is. Where a weight is used several
times, its gradients are added in bf16, as autocast adds those of a leaf that it casts once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.utils.parametrize import is_parametrized

from crgan_cli.networks.fast.folding import FusedResampleConv3
from crgan_cli.networks.fast.spectral import SpectralNorm

MATMUL_FORWARDS = {
    nn.Conv2d.forward,
    nn.ConvTranspose2d.forward,
    nn.Linear.forward,
    FusedResampleConv3.forward,
}
"""How a layer uses its weight, where autocast computes in bf16. One that has a forward of its own
may do something in fp32 before, and is left to autocast."""


class WeightSlot(NamedTuple):
    """Where a layer finds a cast before it finds the weight itself: an entry of `vars(holder)`.

    So parameters and state_dict are never touched, not even while the cast is there.
    """

    holder: nn.Module
    name: str


@contextmanager
def bf16_weights(*networks: nn.Module, dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """Within it, the convolutions and linear maps of `networks` have weights of type `dtype`.

    To be used within autocast, which casts what they multiply, and within `normalised`: a
    spectrally normalised weight is cast as it stands there. A weight has a graph where it requires
    a gradient at the start.
    """
    weights = _weights(networks)
    assert not any(name in vars(holder) for holder, name in weights), "lowered within lowered"
    casts = CastWeights.apply(dtype, *weights.values()) if weights else ()
    try:
        _put(dict(zip(weights, casts, strict=True)))
        yield
    finally:
        for holder, name in weights:
            vars(holder).pop(name, None)


@contextmanager
def full_precision(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Within it, `network` computes in fp32, also inside `bf16_weights` and autocast."""
    places = [place for place in _weights((network,)) if place.name in vars(place.holder)]
    casts = {place: vars(place.holder).pop(place.name) for place in places}
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _put(casts)


def _put(casts: dict[WeightSlot, Tensor]) -> None:
    for (holder, name), cast in casts.items():
        vars(holder)[name] = cast


def _weights(networks: tuple[nn.Module, ...]) -> dict[WeightSlot, Tensor]:
    """What autocast would cast in these networks, each once though networks may share it."""
    layers = (m for network in networks for m in network.modules())
    found = {
        place: weight
        for layer in layers
        if type(layer).forward in MATMUL_FORWARDS
        for place, weight in _of_layer(layer)
    }
    return {place: weight for place, weight in found.items() if weight.dtype == torch.float32}


def _of_layer(layer: nn.Module) -> Iterator[tuple[WeightSlot, Tensor]]:
    """Its weight, parameter or normalised, and its bias."""
    names = ("weight", "bias")
    if isinstance(layer, FusedResampleConv3) and layer.folded:
        names = ("bias",)  # a folded kernel is made of the weight in fp32, and cast then
    for name in names:
        parameter = layer._parameters.get(name)
        if parameter is not None:
            yield WeightSlot(layer, name), parameter
        elif is_parametrized(layer, name):
            norm = layer.parametrizations[name][0]  # type: ignore[index]
            if isinstance(norm, SpectralNorm) and norm.ready is not None:
                yield WeightSlot(norm, "lowered"), norm.ready


class CastWeights(torch.autograd.Function):
    """W -> W rounded to another type, for a list of fp32 weights; their gradients come back fp32.

    It has no derivative of its own: who differentiates twice does so in full precision.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # a weight that was not used has None, as without this
        casts = _cast(weights, dtype)
        ctx.mark_non_differentiable(
            *(y for y, weight in zip(casts, weights, strict=True) if not weight.requires_grad)
        )
        return casts

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: FunctionCtx, *grads: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        wide = iter(_cast(tuple(g for g in grads if g is not None), torch.float32))
        return None, *(None if g is None else next(wide) for g in grads)


def _cast(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """In one kernel on CUDA, which wants equal strides of the two; one a tensor on a CPU."""
    out = tuple(torch.empty_like(x, dtype=dtype) for x in tensors)
    torch._foreach_copy_(out, tensors)  # pyright: ignore[reportPrivateImportUsage]
    return out

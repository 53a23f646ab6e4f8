"""bf16 weights: a context in which all weights are cast at once, in a few kernels.

Autocast casts the weights when a layer is called, and each gradient separately in backward: one
kernel per tensor. The casts made here are the same numbers, and autocast does not cast bf16 again.
If a weight is used several times, its gradients are added in bf16, as autocast does for a leaf that
it casts once.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.utils.parametrize import is_parametrized

from crgan_cli.networks.fast.convolution import TransposedConvolution
from crgan_cli.networks.fast.fused_resample import FusedResampleConv3
from crgan_cli.networks.fast.spectral import SpectralNorm

MATMUL_FORWARDS = {
    nn.Conv2d.forward,
    nn.ConvTranspose2d.forward,
    TransposedConvolution.forward,
    nn.Linear.forward,
    FusedResampleConv3.forward,
}
"""Forwards that autocast computes in bf16. A layer with another forward may need fp32 weights, so
autocast casts it."""


class WeightSlot(NamedTuple):
    """An entry of `vars(holder)`, which attribute lookup finds before the parameter.

    So a cast replaces the weight without any change to the parameters or the state_dict.
    """

    holder: nn.Module
    name: str


@contextmanager
def bf16_weights(*networks: nn.Module, dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """Give the convolutions and linear maps of `networks` weights of type `dtype`.

    Use it within autocast, which casts the layers' inputs, and within `fixed_spectral_norm`, whose
    normalised weights are cast. A cast has a graph if its weight requires a gradient at the start.
    """
    with cast_layers(find_cast_layers(*networks), dtype):
        yield


@contextmanager
def cast_layers(layers: Iterable[nn.Module], dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """`bf16_weights` for what `find_cast_layers` has found."""
    weights = _find_weights(layers)
    assert not any(name in vars(holder) for holder, name in weights), (
        "bf16_weights within bf16_weights"
    )
    casts = CastWeights.apply(dtype, *weights.values()) if weights else ()
    try:
        _put(dict(zip(weights, casts, strict=True)))
        yield
    finally:
        for holder, name in weights:
            vars(holder).pop(name, None)


@contextmanager
def full_precision(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Compute `network` in fp32, also inside `bf16_weights` and autocast."""
    weights = _find_weights(find_cast_layers(network))
    slots = [slot for slot in weights if slot.name in vars(slot.holder)]
    casts = {slot: vars(slot.holder).pop(slot.name) for slot in slots}
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _put(casts)


def _put(casts: dict[WeightSlot, Tensor]) -> None:
    for (holder, name), cast in casts.items():
        vars(holder)[name] = cast


def find_cast_layers(*networks: nn.Module) -> list[nn.Module]:
    """Find the layers whose weights autocast would cast."""
    layers = (m for network in networks for m in network.modules())
    return [layer for layer in layers if type(layer).forward in MATMUL_FORWARDS]


def _find_weights(layers: Iterable[nn.Module]) -> dict[WeightSlot, Tensor]:
    """Find what is cast in these layers. Shared layers count once."""
    return {
        slot: weight
        for layer in layers
        for slot, weight in _find_layer_weights(layer)
        if weight.dtype == torch.float32
    }


def _find_layer_weights(layer: nn.Module) -> Iterator[tuple[WeightSlot, Tensor]]:
    """Yield the weight, a parameter or spectrally normalised, and the bias of a layer."""
    names = ("weight", "bias")
    if isinstance(layer, FusedResampleConv3) and layer.use_fused:
        names = ("bias",)  # the fused kernel is built from the fp32 weight, then cast
    for name in names:
        parameter = layer._parameters.get(name)
        if parameter is not None:
            yield WeightSlot(layer, name), parameter
        elif is_parametrized(layer, name):
            norm = layer.parametrizations[name][0]  # type: ignore[index]
            if isinstance(norm, SpectralNorm) and norm.cached_weight is not None:
                yield WeightSlot(norm, "cast_weight"), norm.cached_weight


class CastWeights(torch.autograd.Function):
    """Cast a list of fp32 weights to another type. Their gradients are fp32.

    No double backward: gradient penalties are computed in full precision.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # the gradient of an unused weight stays None
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
        fp32 = iter(_cast(tuple(g for g in grads if g is not None), torch.float32))
        return None, *(None if g is None else next(fp32) for g in grads)


def _cast(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Cast all: one kernel on CUDA (needs equal strides), one per tensor on a CPU."""
    out = tuple(torch.empty_like(x, dtype=dtype) for x in tensors)
    torch._foreach_copy_(out, tensors)  # pyright: ignore[reportPrivateImportUsage]
    return out

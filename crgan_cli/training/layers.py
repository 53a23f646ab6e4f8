"""The layers of a network: what each returns, holds and computes, counted without values."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crgan_cli.config.sides import Sides
from crgan_cli.gan.tasks.base import Part
from crgan_cli.training.flops import IMAGES

NUMBER = 4
"""Bytes of a value in fp32."""


class Layer(NamedTuple):
    """A module of a network that holds no others, or has parameters of its own."""

    name: str
    kind: str
    shape: tuple[int, ...]  # of its output, for one image; () if it was not called
    parameters: int  # its own, without those of modules inside of it
    flops: float  # of one image


class LayerTable(NamedTuple):
    """A network's layers in the order of their calls, and the whole."""

    layers: tuple[Layer, ...]
    parameters: int
    flops: float | None  # of a forward pass of one image; None if it could not be passed
    activations: int  # bytes in fp32 of the outputs of all layers, for one image


def make_inputs(
    network: nn.Module, part: Part, channels: int, sides: Sides
) -> tuple[Tensor | None, ...]:
    """Return what a network is called with, of `IMAGES` images. Call it on the meta device."""
    classes = getattr(network, "classes", 0)
    y = torch.zeros(IMAGES, dtype=torch.int64) if classes else None
    if part.kind == "generator" and hasattr(network, "z_dim"):
        return torch.zeros(IMAGES, int(network.z_dim)), y  # type: ignore[arg-type]
    key = "in_channels" if part.kind == "generator" else "d_in_channels"
    x = torch.zeros(IMAGES, int(str(part.settings.get(key, channels))), *sides)
    if planes := part.settings.get("label_planes"):
        return x, torch.zeros(IMAGES, int(str(planes)))
    return (x,) if part.kind == "generator" else (x, y)


def tabulate(network: nn.Module, inputs: Sequence[Tensor | None]) -> LayerTable:
    """Pass images without values through a network, and return its layers.

    FLOP are of convolutions and matrix products, as in `flops`. Of a plug-in's network that needs
    numbers to work with, only the parameters are told.
    """
    from torch.utils.flop_counter import FlopCounterMode  # its import takes a second

    called: dict[str, Layer] = {}
    flops: float | None = None
    try:
        with (
            torch.no_grad(),
            FlopCounterMode(display=False) as counter,
            watched_layers(network, counter.get_total_flops, called),
        ):
            network(*inputs)
        flops = counter.get_total_flops() / IMAGES
    except Exception:  # as in `costs`: a run only says what it costs
        called.clear()
    uncalled = [layer for layer in list_layers(network) if layer.name not in called]
    stored = NUMBER * sum(math.prod(layer.shape) for layer in called.values())
    total = sum(each.numel() for each in network.parameters())
    held = [layer for layer in uncalled if layer.parameters]
    return LayerTable((*called.values(), *held), total, flops, stored)


def list_layers(network: nn.Module) -> list[Layer]:
    """Return the layers of a network as far as they are known without a call."""
    found = []
    for name, module in network.named_modules():
        own = sum(each.numel() for each in module.parameters(recurse=False))
        if own or not any(module.children()):
            found.append(Layer(name or "-", type(module).__name__, (), own, 0.0))
    return found


@contextmanager
def watched_layers(
    network: nn.Module, count: Callable[[], int], called: dict[str, Layer]
) -> Iterator[None]:
    """Note each call of a layer down while the body runs. `count` returns the FLOP so far."""
    modules, hooks, begun = dict(network.named_modules()), [], {}
    for layer in list_layers(network):
        module = modules[layer.name.removeprefix("-")]

        def begin(*_: object, layer: Layer = layer) -> None:
            begun[layer.name] = count()

        def end(module: nn.Module, _: object, out: object, layer: Layer = layer) -> None:
            alone = not any(module.children())  # else they are counted
            new = (count() - begun[layer.name]) / IMAGES if alone else 0.0
            shape = tuple(out.shape[1:]) if isinstance(out, Tensor) else ()
            before = called.pop(layer.name, layer)  # called again: at its last place
            called[layer.name] = layer._replace(shape=shape, flops=before.flops + new)

        hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

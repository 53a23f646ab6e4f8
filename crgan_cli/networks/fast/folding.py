"""3x3 convolutions that halve or double the size, each in two forms with the same values.

The plain form is the papers': average pooling after the convolution, or upsampling before it. The
fused form is one strided convolution, with a kernel computed from the same weights. Pooling and
upsampling are linear, so only rounding differs. The fused form needs 4/9 (PooledConv3,
NearestConv3) or 1/4 (ZeroInsertionConv3) of the multiplications, but it is not faster on every
device in every precision.

1x1 convolutions next to a change of size are not here: `blocks` applies them at the smaller size,
which is exact too, and cheaper on every device.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Form = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class FusedResampleConv3(nn.Conv2d):
    """A 3x3 convolution with a change of size. `folded` selects the fused form.

    The forms are functions of (x, weight, bias), so they also work for other tensors.
    """

    plain: Form
    fused: Form

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)
        self.folded = False

    def forward(self, input: Tensor) -> Tensor:
        # only in training: samples and scores must not depend on which form is faster
        form = self.fused if self.folded and self.training else self.plain
        return form(input, self.weight, self.bias)


class PooledConv3(FusedResampleConv3):
    """3x3, then 2x2 average pooling: (H, W) -> (H // 2, W // 2).

    Fused: 4x4 with stride 2, K[m] = sum_{a in {0,1}} w[m - a] / 2 along each axis.
    """

    @staticmethod
    def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)

    @staticmethod
    def fused(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, with_average_pool(weight, divisor=4), bias, stride=2, padding=1)


class NearestConv3(FusedResampleConv3):
    """Nearest upsampling (each value fills a 2x2 square), then 3x3: (H, W) -> (2H, 2W).

    Fused: 4x4 transposed with stride 2, K = (w2, w2 + w1, w1 + w0, w0) along each axis.
    """

    @staticmethod
    def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        upsampled = F.interpolate(x, scale_factor=2, mode="nearest")
        return F.conv2d(upsampled, weight, bias, padding=1)

    @staticmethod
    def fused(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kernel = with_average_pool(transpose_kernel(weight), divisor=1)
        return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


class ZeroInsertionConv3(FusedResampleConv3):
    """Zero insertion (`insert_zeros`), then 3x3 (compare_gan): (H, W) -> (2H, 2W).

    Fused: 3x3 transposed with stride 2, K = (w2, w1, w0) along each axis.
    """

    @staticmethod
    def plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(insert_zeros(x), weight, bias, padding=1)

    @staticmethod
    def fused(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # output_padding: the zeros at the bottom and the right see the last values too
        return F.conv_transpose2d(
            x, transpose_kernel(weight), bias, stride=2, padding=1, output_padding=1
        )


def with_average_pool(weight: Tensor, *, divisor: int) -> Tensor:
    """(.., 3, 3) -> (.., 4, 4): convolve with a 2x2 square of 1 / `divisor`.

    Computed by average pooling: one kernel forward and one backward. It keeps the layout, and never
    uses TF32, unlike a matrix product.
    """
    return F.avg_pool2d(weight, 2, stride=1, padding=1, divisor_override=divisor)


def transpose_kernel(kernel: Tensor) -> Tensor:
    """Return the kernel with which a transposed convolution computes the same products.

    It is made contiguous while it is small. Otherwise the convolution would reorder the larger
    result of `with_average_pool`, forward and backward.
    """
    layout = torch.contiguous_format if kernel.is_contiguous() else torch.channels_last
    return kernel.flip(2, 3).transpose(0, 1).contiguous(memory_format=layout)


def insert_zeros(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): each value becomes the top left of a 2x2 square, with zeros.

    Keeps the layout.
    """
    n, c, h, w = x.shape
    if x.is_contiguous():
        corners = F.pad(x[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1))
        return corners.reshape(n, c, 2 * h, 2 * w)
    corners = F.pad(x.permute(0, 2, 3, 1)[:, :, None, :, None], (0, 0, 0, 1, 0, 0, 0, 1))
    return corners.reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)


# --- which form ----------------------------------------------------------------------------------

GAIN = 1.05
"""How many times faster the folded form must be to be taken: noise must not decide."""

SECONDS = 0.02
"""How long each form of a layer is run; `LOOKS` times at least."""

LOOKS = 3
"""Looks at the clock for each form, in turns with the other one's; the median counts."""

CPU_IMAGES = 8
"""On a CPU so many images tell about as much as a whole batch, and sooner."""

AutocastOf = Callable[[], AbstractContextManager[object]]


class Sighting(NamedTuple):
    """What a layer was given when its network ran, as meta tensors: sizes, layout and precision."""

    x: Tensor
    weight: Tensor
    bias: Tensor

    def case(self) -> str:
        """Equal for layers that take equally long, where their kind is equal."""
        x, weight = self.x, self.weight
        return f"{tuple(x.shape)} {x.stride()} {x.dtype} by {tuple(weight.shape)} {weight.dtype}"


def fusable_layers(network: nn.Module) -> dict[str, FusedResampleConv3]:
    """The layers of `network` that have two forms, by name."""
    return {name: m for name, m in network.named_modules() if isinstance(m, FusedResampleConv3)}


def set_fused(network: nn.Module, choices: Mapping[str, bool]) -> None:
    """Set the forms of `network` to what `choose` returned for it, or for its equal."""
    layers = fusable_layers(network)
    assert choices.keys() == layers.keys(), "these choices are another network's"
    for name, folded in choices.items():
        layers[name].folded = folded


def choose(
    network: nn.Module,
    run: Callable[[], object],
    known: dict[str, bool],
    autocast: AutocastOf = nullcontext,
) -> dict[str, bool]:
    """Fold the layers of `network` for which that is faster here; returns name -> folded.

    `known` says so by kind and size, and gets what had to be tried: a try that is not repeated
    cannot come out otherwise, so that equal runs stay equal.

    `run()` calls the network on what it sees in training, for the sizes alone. Each kind and size
    is then run forward and backward in both forms within `autocast()`, on numbers of its own. A
    layer that `run` does not reach stays plain. Nothing but `folded` changes: no weight, gradient
    or buffer, and no random state. To be called before the network is compiled.
    """
    layers = fusable_layers(network)
    choices = dict.fromkeys(layers, False)
    if layers:
        device = next(network.parameters()).device
        with eval_mode(network, device):
            for name, seen in sightings(layers, run, autocast).items():
                case = f"{layers[name].fused.__qualname__} {seen.case()}"
                if case not in known:
                    known[case] = gain(layers[name], seen, device, autocast) >= GAIN
                choices[name] = known[case]
    set_fused(network, choices)
    return choices


@contextmanager
def eval_mode(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode, in which running a network changes nothing in it, and random numbers to waste."""
    modes = {module: module.training for module in network.modules()}
    accelerators = [] if device.type == "cpu" else [device]
    kind = "cuda" if device.type == "cpu" else device.type
    with torch.random.fork_rng(accelerators, device_type=kind):
        network.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training


def sightings(
    layers: Mapping[str, FusedResampleConv3], run: Callable[[], object], autocast: AutocastOf
) -> dict[str, Sighting]:
    """What each layer that `run()` reaches is given."""
    found: dict[str, Sighting] = {}

    def notes(name: str) -> Callable[[FusedResampleConv3, tuple[Tensor]], None]:
        def note(layer: FusedResampleConv3, given: tuple[Tensor]) -> None:
            x = given[0][:CPU_IMAGES] if given[0].device.type == "cpu" else given[0]
            assert layer.bias is not None
            found[name] = Sighting(meta(x), meta(layer.weight), meta(layer.bias))

        return note

    hooks = [layer.register_forward_pre_hook(notes(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad(), autocast():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def meta(x: Tensor) -> Tensor:
    """The shape, strides and type of x, without its numbers."""
    return torch.empty_like(x, device="meta")


def gain(
    layer: FusedResampleConv3, seen: Sighting, device: torch.device, autocast: AutocastOf
) -> float:
    """The time of a layer's plain form over that of its folded one, forward and backward."""
    plain, folded = (
        playable(step(form, seen, device, autocast), device) for form in (layer.plain, layer.fused)
    )
    once = seconds(plain, device)
    times = max(1, int(SECONDS / LOOKS / once))
    looks = [[seconds(form, device, times) for form in (plain, folded)] for _ in range(LOOKS)]
    slow, fast = map(median, zip(*looks, strict=True))
    return slow / fast


def step(
    form: Form, seen: Sighting, device: torch.device, autocast: AutocastOf
) -> Callable[[], object]:
    """A call that runs `form` forward and backward on random numbers."""
    x, weight, bias = (torch.randn_like(part, device=device).requires_grad_() for part in seen)

    def forward() -> Tensor:
        with torch.enable_grad(), autocast():
            return form(x, weight, bias)

    slope = torch.ones_like(forward())
    return lambda: torch.autograd.grad(forward(), (x, weight, bias), slope)


def playable(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`call`, warmed up. On CUDA as a graph: what is asked is the time of its kernels, not that of
    their launches, which would hide it."""
    if device.type != "cuda":
        call()
        return call
    with torch.cuda.device(device):
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        # a thread of somebody else's may pin memory meanwhile
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            call()
    return graph.replay


def seconds(call: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """How long `times` calls take, until the device has finished."""
    wait = torch.get_device_module(device).synchronize
    wait()
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait()
    return time.perf_counter() - start

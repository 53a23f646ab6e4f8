"""The base class of all frozen networks from images to features.

The networks: `inception` (defines FID and IS), `efficientnet` (no download), `pretrained` (VGG16,
CLIP, DINOv2) and `torchscript` (the user's own). `NoExtractor` stands for none.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crgan_cli.errors import UserError

# Images per pass on a CPU: 4 run 2-3 times faster than 32, whose activations do not fit the cache
# (EfficientNet-Lite0 at 224 px on two cores, 116 against 55 images/s).
CPU_CHUNK = 4


class Features(NamedTuple):
    """The features of N images."""

    pool: Tensor  # (N, dims) float32, before the classifier
    logits: Tensor | None = None  # (N, classes) float32; None without a classifier


class Extractor(ABC):
    """A frozen network in eval mode that computes in float32, whatever training uses.

    To add one, write a subclass with the attributes below and `features`, in a package named in
    CRGAN_PLUGINS. It must not draw random numbers.
    """

    name: str  # part of the metric's tag
    sha256: str  # of the weights file
    tf32: bool = True  # whether convolutions may use TF32 on CUDA
    dims: int  # columns of Features.pool
    resize: str  # how images are resized for the network
    standard: bool = False  # whether its numbers may be called fid and is
    has_logits: bool = False  # whether it returns logits, which the Inception score needs

    def __init__(self, net: nn.Module) -> None:
        self.net = net.eval().to(memory_format=torch.channels_last)
        for parameter in net.parameters():  # TorchScript modules have no requires_grad_
            parameter.requires_grad_(False)
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> None:
        """Move the network to `device`."""
        self.device = torch.device(device)
        self.net.to(self.device)

    @property
    def precision(self) -> str:
        """The precision of the network, whatever training uses."""
        return "float32 with TF32 convolutions" if self.device.type == "cuda" else "float32"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """(N, 1 or 3, H, W) on any device -> features on the extractor's device.

        Images are uint8, or float32 in [0, 255] if they are not to be rounded.
        """
        rgb = to_rgb(images.to(self.device))
        if rgb.dtype != torch.uint8:
            assert rgb.dtype == torch.float32, f"images are uint8 or float32, not {rgb.dtype}"
            low, high = images.aminmax()  # NaN if any pixel is
            assert 0 <= low <= high <= 255, f"pixels from {low} to {high} are not in [0, 255]"
        chunk = CPU_CHUNK if self.device.type == "cpu" else len(rgb)
        # bf16 features would be wrong by 1 %: switch off the caller's autocast
        with torch.autocast(self.device.type, enabled=False), tf32_convolutions(self.tf32):
            parts = [self.features(part.float()) for part in rgb.split(chunk)]
        pools, logits = zip(*parts, strict=True)
        return Features(
            torch.cat(pools).float(), torch.cat(logits).float() if self.has_logits else None
        )

    @abstractmethod
    def features(self, rgb: Tensor) -> Features:
        """(N, 3, H, W) float32 in [0, 255] on the network's device -> features."""


class NoExtractor(Extractor):
    """No features: for metrics that compare pixels. Needs no weights and takes no time."""

    name = sha256 = resize = "none"
    dims = 0

    def __init__(self) -> None:
        super().__init__(nn.Identity())

    @property
    def precision(self) -> str:
        return "no"

    def __call__(self, images: Tensor) -> Features:
        to_rgb(images)  # refuses other images
        return Features(torch.zeros(len(images), 0, device=self.device))

    def features(self, rgb: Tensor) -> Features:
        raise NotImplementedError


class Unread(NoExtractor):
    """What an extractor of class `kind` says of itself before its weights are read: for checks."""

    def __init__(self, kind: type[Extractor]) -> None:
        super().__init__()
        self.name = getattr(kind, "name", kind.__name__)
        self.dims = getattr(kind, "dims", 1)  # of some only the weights tell
        self.has_logits = kind.has_logits


@contextmanager
def tf32_convolutions(allowed: bool) -> Iterator[None]:
    """Allow TF32 in convolutions, PyTorch's default on CUDA, or forbid it, whatever the run has
    set. Never in matrix products."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def to_rgb(images: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) -> (N, 3, H, W), grey repeated."""
    channels = images.shape[1]
    if channels not in (1, 3):
        raise UserError(
            f"The metrics take images with 1 or 3 channels, but these have {channels}. Choose "
            "metrics=none, or a data set of grey or RGB images."
        )
    return images.expand(-1, 3, -1, -1)


def resize_bicubic(rgb: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) float -> (N, 3, side, side) in [0, 255]; antialiased if that is smaller."""
    size = (side, side)
    x = F.interpolate(rgb, size, mode="bicubic", antialias=True, align_corners=False)
    return x.clamp(0.0, 255.0)  # cubic weights overshoot at edges


def resize_bilinear_tf1(rgb: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) float -> (N, 3, side, side), as TensorFlow 1 does and torch-fidelity copies."""
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    return interpolate_bilinear_2d_like_tensorflow1x(rgb, size=(side, side), align_corners=False)

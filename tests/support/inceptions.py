"""Networks of Inception's shape with weights made here: no download."""

import io

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def some_images(n: int, channels: int = 3, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, 32, 32), generator=random, dtype=torch.uint8)


class Unloaded(FeatureExtractorInceptionV3):
    """Inception without its weights file."""

    def load_state_dict(self, *_: object, **__: object) -> None:
        pass


def local_inception() -> FeatureExtractorInceptionV3:
    """Random weights with live features: PyTorch's default initialisation lets them die out."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Unloaded(
            "inception-v3-compat",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=empty,
        )
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # one pass sets the running statistics
    net.train()(some_images(4, seed=1))
    return net.eval()

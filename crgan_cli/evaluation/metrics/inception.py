"""The network that defines FID and IS.

Szegedy et al. 2015 (arXiv:1512.00567) with TensorFlow's weights of 2015-12-05, from torch-fidelity.
"""

import io

import torch
from torch import Tensor, nn

from crgan_cli.config.bounds import DataPath
from crgan_cli.evaluation.metrics import weights as files
from crgan_cli.evaluation.metrics.extractors import Extractor, Features, resize_bilinear_tf1

SOURCE = files.Source(
    what="the standard Inception-v3 of torch-fidelity",
    url=(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth"
    ),
    sha256="6726825d",
    file="weights-inception-2015-12-05-6726825d.pth",
    megabytes=96,
    variable="CRGAN_INCEPTION",
)
SIDE = 299


class Inception(Extractor):
    """torch-fidelity's Inception-v3: pool 2048, logits 1008 without bias, as for FID and IS.

    `weights` is a file of other weights of the same network: then the numbers carry its hash and
    are not called fid and is. torch-fidelity's own forward requires uint8 images, but compare_gan
    does not round; so its parts are called one by one here.
    """

    dims = 2048
    resize = "299 px, bilinear as in TensorFlow 1 (torch-fidelity)"
    has_logits = True

    def __init__(self, weights: DataPath | None = None) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        loaded = files.find_weights(SOURCE, weights)
        self.sha256 = loaded.sha256
        self.standard = loaded.standard
        self.name = loaded.tag("inception")
        # torch-fidelity unpickles without restriction: give it what the safe reader accepted
        safe = io.BytesIO()
        torch.save(loaded.state, safe)
        safe.seek(0)
        # building a network draws random weights
        with torch.random.fork_rng(devices=[]), loaded.explain_mismatch(SOURCE):
            net = FeatureExtractorInceptionV3(
                "inception-v3-compat",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=safe,
            )
        self._classifier = net.fc
        # its modules are in the order in which its forward calls them, the classifier last
        self._trunk = nn.Sequential(*(m for m in net.children() if m is not net.fc))
        super().__init__(net)

    def features(self, rgb: Tensor) -> Features:
        pool = self._trunk((resize_bilinear_tf1(rgb, SIDE) - 128) / 128).flatten(1)
        return Features(pool, pool @ self._classifier.weight.T)

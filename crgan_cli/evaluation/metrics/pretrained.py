"""The extractors of torch-fidelity besides Inception, with its layers and preprocessing.

VGG16 (Simonyan and Zisserman 2014, arXiv:1409.1556) was used to define precision and recall
(Kynkäänniemi et al. 2019, arXiv:1904.06991), CLIP (Radford et al. 2021, arXiv:2103.00020) and
DINOv2 (Oquab et al. 2023, arXiv:2304.07193) follow human judgement more closely than Inception
(Stein et al. 2023, arXiv:2306.04675). None has a classifier, so there is no Inception score.
"""

from typing import Literal

import torch
from torch import Tensor

from crgan_cli.config.bounds import CodePath, DataPath
from crgan_cli.evaluation.metrics import weights as files
from crgan_cli.evaluation.metrics.extractors import Extractor, Features, resize_bilinear_tf1
from crgan_cli.evaluation.metrics.vision_transformer import PATCH, VisionTransformer, positions_at
from crgan_cli.evaluation.metrics.weights import Source, Weights

# mean and standard deviation of each colour in [0, 1]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WEBIMAGETEXT = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

VGG16_SOURCE = Source(
    what="torchvision's VGG16",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af",
    file="vgg16-397923af.pth",
    megabytes=528,
)

ClipVariant = Literal[
    "rn50",
    "rn101",
    "rn50x4",
    "rn50x16",
    "rn50x64",
    "vit-b-32",
    "vit-b-16",
    "vit-l-14",
    "vit-l-14-336px",
]
CLIP_MEGABYTES = {  # about; only for the log and the messages [unverified]
    "rn50": 244,
    "rn101": 278,
    "rn50x4": 402,
    "rn50x16": 630,
    "rn50x64": 1260,
    "vit-b-32": 338,
    "vit-b-16": 335,
    "vit-l-14": 890,
    "vit-l-14-336px": 891,
}

Dinov2Variant = Literal["vit-s-14", "vit-b-14", "vit-l-14"]
DINOV2 = {"vit-s-14": (384, 12, 88), "vit-b-14": (768, 12, 346), "vit-l-14": (1024, 24, 1218)}
"""Variant -> dim, depth [code: dinov2/models/vision_transformer.py], MB of the file [secondary]."""

# Meta publishes no hash: many projects state these for Meta's files [secondary]
DINOV2_SHA256 = {
    "vit-s-14": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "vit-b-14": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "vit-l-14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
}

DINOV2_SIDE = 224  # pixels [code: torch-fidelity feature_extractor_dinov2.py]


class Pretrained(Extractor):
    """A network on standardised colours at `side` pixels, without a classifier."""

    side = 224
    colours = IMAGENET

    def identify(self, name: str, loaded: Weights) -> None:
        """Set the name, hash and resizing of the extractor."""
        self.name = loaded.tag(name)
        self.sha256 = loaded.sha256
        self.resize = f"{self.side} px, bilinear as in TensorFlow 1 (torch-fidelity)"

    def features(self, rgb: Tensor) -> Features:
        mean, deviation = (rgb.new_tensor(c).view(3, 1, 1) * 255 for c in self.colours)
        x = (resize_bilinear_tf1(rgb, self.side) - mean) / deviation
        return Features(self.net(x.contiguous(memory_format=torch.channels_last)))


class VGG16(Pretrained):
    """ImageNet-trained VGG16: the 4096 features of its second fully connected layer, after ReLU.

    `weights` names a file of other weights of the same network.
    """

    dims = 4096

    def __init__(self, weights: DataPath | None = None) -> None:
        from torchvision.models import vgg16

        loaded = files.find_weights(VGG16_SOURCE, weights)
        self.identify("vgg16", loaded)
        with torch.device("meta"):  # no memory and no random numbers: the weights are replaced
            net = vgg16(init_weights=False)
        with loaded.explain_mismatch(VGG16_SOURCE):
            net.load_state_dict(loaded.state, assign=True)
        net.classifier = net.classifier[:5]  # up to the ReLU after fc2, as torch-fidelity's default
        super().__init__(net.float())


class CLIP(Pretrained):
    """The image encoder of OpenAI's CLIP: the embedding that is compared with texts.

    OpenAI publishes TorchScript archives. Its file is verified by its SHA-256 before it is used.
    Your own file, given as `weights`, is read by TorchScript's loader: use only files you trust.
    """

    colours = WEBIMAGETEXT

    def __init__(self, variant: ClipVariant = "vit-b-32", weights: CodePath | None = None) -> None:
        from torch_fidelity.feature_extractor_clip import build_model

        source = clip_source(variant)
        loaded = files.find_weights(source, weights, files.load_torchscript_state)
        # build_model draws random weights, and removes unneeded entries from the dictionary
        with torch.random.fork_rng(devices=[]), loaded.explain_mismatch(source):
            net = build_model(dict(loaded.state), torch.float32).visual
        self.side, self.dims = net.input_resolution, net.output_dim
        self.identify(f"clip_{variant.replace('-', '_')}", loaded)
        super().__init__(net)


class DINOv2(Pretrained):
    """Meta's DINOv2 without registers: the normalised class token at 224 pixels.

    torch-fidelity's preprocessing, not that of Stein et al. (bicubic): numbers are not comparable.
    """

    side = DINOV2_SIDE

    def __init__(
        self, variant: Dinov2Variant = "vit-b-14", weights: DataPath | None = None
    ) -> None:
        source = dinov2_source(variant)
        loaded = files.find_weights(source, weights)
        self.dims, depth, _ = DINOV2[variant]
        grid = self.side // PATCH
        with torch.device("meta"):  # no memory and no random numbers: the weights are replaced
            net = VisionTransformer(self.dims, depth, grid)
        with loaded.explain_mismatch(source):
            state = {name: v for name, v in loaded.state.items() if name != "mask_token"}
            state["pos_embed"] = positions_at(state["pos_embed"].float(), grid)
            net.load_state_dict(state, assign=True)  # the mask token is for training alone
        self.identify(f"dinov2_{variant.replace('-', '_')}", loaded)
        super().__init__(net.float())


def clip_source(variant: ClipVariant) -> Source:
    """Return OpenAI's file, with torch-fidelity's name for it."""
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS

    name = f"clip-{variant}"
    sha256 = MODEL_METADATA[name]["hash"]
    return Source(
        what=f"OpenAI's CLIP {variant}",
        url=MODEL_URLS[name],
        sha256=sha256,
        file=f"{name}-{sha256}.pt",
        megabytes=CLIP_MEGABYTES[variant],
    )


def dinov2_source(variant: Dinov2Variant) -> Source:
    """Return Meta's file, with torch hub's name for it."""
    model = f"dinov2_{variant.replace('-', '')}"
    return Source(
        what=f"Meta's DINOv2 {variant}",
        url=f"https://dl.fbaipublicfiles.com/dinov2/{model}/{model}_pretrain.pth",
        sha256=DINOV2_SHA256[variant],
        file=f"{model}_pretrain.pth",
        megabytes=DINOV2[variant][2],
    )

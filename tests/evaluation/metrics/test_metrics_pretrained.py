"""VGG16, CLIP and DINOv2 against torch-fidelity's own extractors, in small."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics import pretrained
from crgan_cli.evaluation.metrics.pretrained import CLIP, DINOV2, VGG16, ClipVariant, DINOv2
from crgan_cli.evaluation.metrics.vision_transformer import Block, VisionTransformer, positions_at

scripting = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


def some_images(n: int, channels: int = 3) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, 20, 20), generator=random, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(5)


class SmallVGG(nn.Module):
    """torchvision's VGG with fewer channels."""

    def __init__(self, init_weights: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(7), nn.Flatten())
        head = [nn.Linear(196, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 6), nn.ReLU()]
        self.classifier = nn.Sequential(*head, nn.Dropout(), nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def test_vgg16_is_torch_fidelitys_fc2_after_relu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "vgg.pth")
    torch.save(SmallVGG().state_dict(), path)
    monkeypatch.setattr(torchvision.models, "vgg16", SmallVGG)
    theirs = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=path)
    state = torch.get_rng_state()
    extractor = VGG16(weights=path)
    images = some_images(6)
    found = extractor(images)
    assert torch.equal(torch.get_rng_state(), state)
    (expected,) = theirs(images)
    assert (expected > 0).any()
    torch.testing.assert_close(found.pool, expected)
    assert found.logits is None
    assert not extractor.has_logits
    assert not extractor.standard
    assert extractor.name == f"vgg16_{extractor.sha256[:8]}"
    grey = some_images(2, channels=1)
    torch.testing.assert_close(extractor(grey).pool, theirs(grey.expand(-1, 3, -1, -1))[0])


class SmallCLIP(nn.Module):
    """What of CLIP its readers look at: a small image half, and the shape of the text half."""

    def __init__(self, vision_layers: tuple[int, ...] | int, patch: int | None, side: int) -> None:
        super().__init__()
        width = 64 if patch else 2  # a head is 64 channels; the residual network has 32 * width
        self.visual = CLIPVisual(6, side, vision_layers, width, patch).visual
        self.text_projection = nn.Parameter(torch.zeros(3, 6))
        for module in self.modules():  # PyTorch's default lets residual features die out
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x)


@scripting
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("small", "name"),
    [((2, 8, 16), "vit-b-32"), (((1, 1, 1, 1), None, 32), "rn50")],
    ids=["transformer", "residual"],
)
def test_clip_is_torch_fidelitys_on_an_archive_as_openai_publishes_it(
    small: tuple[tuple[int, ...] | int, int | None, int],
    name: ClipVariant,
    tmp_path: Path,
) -> None:
    net, path = SmallCLIP(*small).eval(), str(tmp_path / "clip.pt")
    side = small[2]
    torch.jit.save(torch.jit.trace(net, torch.rand(2, 3, side, side)), path)
    theirs = FeatureExtractorCLIP(f"clip-{name}", ["clip"], feature_extractor_weights_path=path)
    state = torch.get_rng_state()
    extractor = CLIP(variant=name, weights=path)
    images = some_images(5)
    found = extractor(images)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(found.pool, theirs(images)[0])
    assert found.pool.std(0).min() > 1e-4
    assert found.logits is None
    assert extractor.dims == found.pool.shape[1] == 6
    assert extractor.resize.startswith(f"{side} px")
    assert extractor.name == f"clip_{name.replace('-', '_')}_{extractor.sha256[:8]}"

    plain = str(tmp_path / "plain.pt")  # a state dict will do as well
    torch.save(net.state_dict(), plain)
    assert torch.equal(CLIP(variant=name, weights=plain)(images).pool, found.pool)


def with_scales(net: VisionTransformer) -> VisionTransformer:
    """Random position codes, tokens and scales, which begin as zeros and ones."""
    for name, parameter in net.named_parameters():
        if "gamma" in name or "token" in name or "embed" in name:
            nn.init.normal_(parameter, std=0.5)
    return net.eval()


def test_dinov2_is_torch_fidelitys_around_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = with_scales(VisionTransformer(128, 1, grid=37))
    state = net.state_dict() | {"mask_token": torch.zeros(1, 128)}
    torch.save(state, tmp_path / "dino.pth")
    monkeypatch.setitem(DINOV2, "vit-s-14", (128, 1, 1))
    before = torch.get_rng_state()
    extractor = DINOv2(variant="vit-s-14", weights=str(tmp_path / "dino.pth"))
    images = some_images(5)
    found = extractor(images)
    assert torch.equal(torch.get_rng_state(), before)

    net.pos_embed = nn.Parameter(positions_at(net.pos_embed.detach(), 16))
    monkeypatch.setattr(torch.hub, "load", lambda *_: net)
    monkeypatch.setenv("XFORMERS_DISABLED", "")  # torch-fidelity sets it
    (expected,) = FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])(images)
    torch.testing.assert_close(found.pool, expected, rtol=1e-4, atol=1e-4)
    assert found.pool.std(0).min() > 1e-4
    assert extractor.dims == found.pool.shape[1]
    assert extractor.name == f"dinov2_vit_s_14_{extractor.sha256[:8]}"


def test_a_block_of_dinov2_is_pytorchs_encoder_layer_where_its_scales_are_one() -> None:
    ours = Block(128).eval()
    theirs = nn.TransformerEncoderLayer(
        128, 2, 512, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    pairs = [
        (theirs.self_attn, ours.attn.qkv, "in_proj_weight", "in_proj_bias"),
        (theirs.self_attn.out_proj, ours.attn.proj, "weight", "bias"),
        (theirs.linear1, ours.mlp.fc1, "weight", "bias"),
        (theirs.linear2, ours.mlp.fc2, "weight", "bias"),
    ]
    for to, of, weight, bias in pairs:
        getattr(to, weight).data, getattr(to, bias).data = of.weight.data, of.bias.data
    x = torch.randn(3, 5, 128)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs.train()(x))
        ours.ls1.gamma.zero_()
        ours.ls2.gamma.zero_()
        assert torch.equal(ours(x), x)


@pytest.mark.parametrize(
    ("variant", "published"),
    [("vit-s-14", 22_056_576), ("vit-b-14", 86_580_480), ("vit-l-14", 304_368_640)],
)
def test_dinov2_has_as_many_parameters_as_published(variant: str, published: int) -> None:
    dim, depth, _ = DINOV2[variant]
    with torch.device("meta"):
        net = VisionTransformer(dim, depth, grid=37)
    mask_token = dim
    assert sum(p.numel() for p in net.parameters()) + mask_token == published


def test_position_codes_move_by_the_published_factor() -> None:
    ramp = torch.arange(37.0).expand(37, 37)  # the code of a column is its number
    codes = torch.cat([torch.tensor([-7.0]), ramp.flatten()]).view(1, -1, 1)
    moved = positions_at(codes, 16)
    assert moved.shape == (1, 257, 1)
    assert moved[0, 0, 0] == -7.0  # the class token has no place
    rows = moved[0, 1:, 0].view(16, 16)
    by_hand = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    # PyTorch's cubic bends a straight line by 0.05; without the 0.1 it would be off by 0.2
    torch.testing.assert_close(rows[:, 1:-1], by_hand[1:-1].expand(16, -1), rtol=0, atol=0.06)
    assert positions_at(codes, 37) is codes


def test_weights_of_another_network_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.models, "vgg16", SmallVGG)
    path = str(tmp_path / "other.pth")
    torch.save({"w": torch.ones(3)}, path)
    for build, what in [
        (VGG16, "torchvision's VGG16"),
        (CLIP, "OpenAI's CLIP vit-b-32"),
        (DINOv2, "Meta's DINOv2 vit-b-14"),
    ]:
        with pytest.raises(UserError, match=rf"does not hold the weights of {what} \(.+\)\. Give"):
            build(weights=path)


def test_the_published_file_is_not_tagged_with_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "vgg.pth")
    torch.save(SmallVGG().state_dict(), path)
    monkeypatch.setattr(torchvision.models, "vgg16", SmallVGG)
    published = pretrained.VGG16_SOURCE._replace(sha256=VGG16(weights=path).sha256)
    monkeypatch.setattr(pretrained, "VGG16_SOURCE", published)
    extractor = VGG16(weights=path)
    assert (extractor.name, extractor.standard) == ("vgg16", False)  # nor is it ever called fid

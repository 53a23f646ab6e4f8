"""Where the weights of Inception, VGG16, CLIP and DINOv2 are looked for, and what is refused."""

import io
import os
from pathlib import Path
from typing import get_args

import pytest
import torch

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics import inception
from crgan_cli.evaluation.metrics.pretrained import (
    CLIP_MEGABYTES,
    DINOV2,
    VGG16_SOURCE,
    ClipVariant,
    Dinov2Variant,
    clip_source,
    dinov2_source,
)
from crgan_cli.evaluation.metrics.weights import Source, find_weights, sha256_hex

SOURCES = [inception.SOURCE, VGG16_SOURCE]
SOURCES += [clip_source(variant) for variant in get_args(ClipVariant)]
SOURCES += [dinov2_source(variant) for variant in get_args(Dinov2Variant)]

every_source = pytest.mark.parametrize("source", SOURCES, ids=[s.what for s in SOURCES])


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub cache and no word of it in the environment; returns the cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in [n for n in os.environ if n.lower().endswith("_proxy") or n.startswith("CRGAN_")]:
        monkeypatch.delenv(name)
    return tmp_path / "torch/hub/checkpoints"


def saved(path: Path, value: float = 1.0) -> Path:
    """A small state dict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()  # torch.save writes the name of a file into it
    torch.save({"w": torch.full((3,), value)}, content)
    path.write_bytes(content.getvalue())
    return path


def served(source: Source, path: Path) -> Source:
    """The same with a small state dict at `path` as what is published."""
    saved(path)
    return source._replace(url=path.as_uri(), sha256=sha256_hex(path.read_bytes()))


@every_source
def test_offline_the_error_says_what_to_put_where(source: Source, checkpoints: Path) -> None:
    with pytest.raises(UserError) as error:
        find_weights(source._replace(url="http://127.0.0.1:9/file"), None)
    message = str(error.value)
    assert "\n" not in message
    for part in (source.what, source.sha256, str(checkpoints / source.file), "CRGAN_WEIGHTS_DIR"):
        assert part in message
    assert list(checkpoints.iterdir()) == []  # no half a file, no temporary folder


@every_source
def test_the_option_the_environment_the_cache_the_download_in_that_order(
    source: Source, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = served(source, tmp_path / "server/file")
    cached = checkpoints / source.file
    assert find_weights(source, None).path == cached  # downloaded, hash and all
    (tmp_path / "server/file").unlink()
    assert find_weights(source, None).path == cached
    (tmp_path / "many").mkdir()
    monkeypatch.setenv("CRGAN_WEIGHTS_DIR", str(tmp_path / "many"))
    assert find_weights(source, None).path == cached  # that folder has others
    inside = saved(tmp_path / "many" / source.file)
    assert find_weights(source, None).path == inside
    if source.variable:
        monkeypatch.setenv(source.variable, str(saved(tmp_path / "named.pth")))
        assert find_weights(source, None).path == tmp_path / "named.pth"
    option = saved(tmp_path / "option.pth", 0.0)
    found = find_weights(source, str(option))
    assert (found.path, found.standard) == (option, False)
    assert found.tag("net") == f"net_{sha256_hex(option.read_bytes())[:8]}"
    again = find_weights(source, str(inside))  # the published file, given by name
    assert (again.standard, again.tag("net")) == (True, "net")


@every_source
def test_another_file_under_the_published_name_is_refused_before_it_is_read(
    source: Source, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(content: bytes, path: Path) -> dict[str, torch.Tensor]:
        raise AssertionError(f"{path} was read")

    saved(checkpoints / source.file)
    wrong = rf"is not {source.what}: its SHA-256 starts with .* not with {source.sha256[:8]}"
    with pytest.raises(UserError, match=wrong):
        find_weights(source, None, read)
    (checkpoints / source.file).rename(tmp_path / source.file)
    monkeypatch.setenv("CRGAN_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(UserError, match=wrong):
        find_weights(source, None, read)


def test_a_download_of_something_else_leaves_nothing_behind(
    checkpoints: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.pth"
    page.write_text("<html>please log in</html>")
    with pytest.raises(UserError, match=r"The file at file:.* is not torchvision's VGG16"):
        find_weights(VGG16_SOURCE._replace(url=page.as_uri()), None)
    assert list(checkpoints.iterdir()) == []


def test_names_that_lead_nowhere_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(UserError, match=r"extractor\.weights names .*absent, which is not a file"):
        find_weights(VGG16_SOURCE, str(absent))
    monkeypatch.setenv("CRGAN_WEIGHTS_DIR", str(absent))
    with pytest.raises(UserError, match=r"CRGAN_WEIGHTS_DIR names .*absent, which is not a folder"):
        find_weights(VGG16_SOURCE, None)
    monkeypatch.setenv("CRGAN_INCEPTION", str(absent))
    with pytest.raises(UserError, match=r"CRGAN_INCEPTION names .*absent, which is not a file"):
        find_weights(inception.SOURCE, None)


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    text, bare = tmp_path / "text.pth", tmp_path / "bare.pth"
    text.write_text("no weights")
    with pytest.raises(UserError, match="cannot be read as a file of weights"):
        find_weights(VGG16_SOURCE, str(text))
    torch.save(torch.ones(3), bare)
    with pytest.raises(UserError, match="holds a Tensor, not a state dict"):
        find_weights(VGG16_SOURCE, str(bare))


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_weights_file_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"w": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match="cannot be read as a file of weights"):
        find_weights(VGG16_SOURCE, str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_every_variant_has_a_file_of_known_hash() -> None:
    assert set(CLIP_MEGABYTES) == set(get_args(ClipVariant))
    assert set(DINOV2) == set(get_args(Dinov2Variant))
    assert len({source.sha256 for source in SOURCES}) == len(SOURCES)
    assert all(len(source.sha256) == 64 for source in SOURCES[2:])

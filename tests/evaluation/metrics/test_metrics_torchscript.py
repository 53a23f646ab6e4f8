"""A user's own network as a TorchScript file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.torchscript import TorchScript

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


class Net(nn.Module):
    """Two numbers an image: its mean, and the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)


class Tall(Net):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)[:, :, None, None]


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pool = self.norm(x).mean((2, 3))
        return pool, pool[:, :1].double()


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Numbers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0, 0].long()


class Rows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:1, :, 0, 0]


class Triple(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x, x, x


class Listed(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


class Only(nn.Module):
    """Takes images of one size, as a network with a linear layer does."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == 16, "only 16 px"
        return x.mean((2, 3))


def scripted(net: nn.Module, path: Path) -> str:
    torch.jit.save(torch.jit.script(net), str(path))
    return str(path)


def some_images(n: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 8, 8), generator=random, dtype=torch.uint8)


@pytest.mark.parametrize("net", [Net(), Tall()], ids=["columns", "one pixel"])
def test_the_module_sees_pixels_from_0_to_255_and_its_output_is_the_features(
    net: nn.Module, tmp_path: Path
) -> None:
    images = some_images(7)
    state = torch.get_rng_state()
    extractor = TorchScript(scripted(net, tmp_path / "my net.v2.pt"))
    found = extractor(images)
    assert torch.equal(torch.get_rng_state(), state)
    expected = torch.stack([images.float().mean((1, 2, 3)), images[:, 0, 0, 0]], 1)
    torch.testing.assert_close(found.pool, expected)
    assert found.logits is None
    assert (extractor.dims, extractor.has_logits, extractor.standard) == (2, False, False)
    assert extractor.name == f"my_net_v2_{extractor.sha256[:8]}"


def test_a_tuple_is_features_and_logits_of_a_module_that_is_frozen(tmp_path: Path) -> None:
    net = Pair()
    net.norm.running_mean.fill_(100.0)
    extractor = TorchScript(scripted(net.train(), tmp_path / "net.pt"))
    images = some_images(5)
    found = extractor(images)
    expected = (images.float().mean((2, 3)) - 100) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(found.pool, expected)
    torch.testing.assert_close(found.logits, expected[:, :1])
    assert extractor.has_logits
    assert not any(parameter.requires_grad for parameter in extractor.net.parameters())


def test_images_are_resized_where_that_is_asked_for(tmp_path: Path) -> None:
    path = scripted(Only(), tmp_path / "net.pt")
    extractor = TorchScript(path, resolution=16)
    flat = torch.full((2, 3, 8, 8), 9.0)
    torch.testing.assert_close(extractor(flat).pool, torch.full((2, 3), 9.0))
    with pytest.raises(UserError, match=r"fails on 2 images of 32 x 32 .*only 16 px.*resolution=N"):
        TorchScript(path)


def test_a_size_that_the_module_cannot_take_is_told_when_it_comes(tmp_path: Path) -> None:
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())  # 32 px is the probe, and 8 px are 3 columns
    extractor = TorchScript(scripted(net, tmp_path / "net.pt"))
    with pytest.raises(UserError, match="fails on 1 images of 4 x 4 pixels"):
        extractor(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Whole(), r"the shape \(2, 3, 32, 32\) for 2 images"),
        (Rows(), r"the shape \(1, 3\)"),
        (Numbers(), r"values of torch\.int64"),
        (Triple(), r"\(Tensor, Tensor, Tensor\)"),
        (Listed(), r"\(list\)"),
    ],
)
def test_output_that_is_no_features_is_refused(net: nn.Module, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{said}.* returns float features \(N, dims\)"):
        TorchScript(scripted(net, tmp_path / "net.pt"))


def test_files_that_are_no_torchscript_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pt is not a file"):
        TorchScript(str(tmp_path / "absent.pt"))
    text, empty, state = (tmp_path / name for name in ("text.pt", "empty.pt", "state.pt"))
    text.write_text("hello")
    empty.touch()
    torch.save({"w": torch.ones(2)}, state)
    for path in (text, empty, state):
        with pytest.raises(UserError, match=r"is not a TorchScript module.*torch\.jit\.save"):
            TorchScript(str(path))

"""What users of other implementations of pix2pix complain of, one test each."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import Crgan, different, lines
from torch import nn

from crgan_cli.config.compose import compose
from crgan_cli.data.dataset import build_dataset
from crgan_cli.data.pairs import Pairs
from crgan_cli.evaluation import load
from crgan_cli.evaluation.reference_images import ReferenceImages
from crgan_cli.evaluation.sampler import MARGIN
from crgan_cli.evaluation.translate import FileTranslator, Options
from crgan_cli.gan.build import build_networks
from crgan_cli.networks.unet import UNetGenerator
from crgan_cli.runs.checkpoint import file_name

CPU = torch.device("cpu")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


def folder(path: Path) -> list[np.ndarray]:
    """The images of a folder, by name."""
    return [pixels(each) for each in sorted(path.iterdir())]


def put(path: Path, image: np.ndarray | torch.Tensor) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.asarray(image)).save(path)


@pytest.fixture(scope="module")
def inputs(translator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test inputs that the run's metrics translate, as files in their order."""
    root = tmp_path_factory.mktemp("inputs")
    config = compose(["experiment=demo_pix2pix"])
    for number, x in enumerate(ReferenceImages(build_dataset(config), "test", 8, "input").images.x):
        put(root / f"{number}.png", x[0])
    return root


def test_the_test_looks_like_training(translator: Path, inputs: Path, crgan: Crgan) -> None:
    """ "The results in the test are worse than those shown while training": grids, metrics and
    files have one mode of batch norm and dropout, and an image has the same noise in all three."""
    assert crgan("eval", translator, "--export", "scored")[0] == 0
    assert crgan("translate", translator, inputs, "--out", "files", "--device", "cpu")[0] == 0
    scored, files = folder(Path("scored/generated")), folder(Path("files"))
    assert len(scored) == len(files) == 8
    assert all((a == b).all() for a, b in zip(scored, files, strict=True))
    grid = pixels(translator / "samples" / "step_00000004.png")[..., 0]
    step = 32 + MARGIN
    shown = [grid[i : i + 32, j : j + 32] for i in range(MARGIN, len(grid), step)
             for j in range(MARGIN, grid.shape[1], step)]  # fmt: skip
    given = folder(inputs)
    rows = [first_equal(given, x) for x in shown[0:12:3]]
    assert len(set(rows)) == 4
    for row, translated in zip(rows, shown[1:12:3], strict=True):
        assert (translated == files[row]).all()


def first_equal(images: list[np.ndarray], image: np.ndarray) -> int:
    """The number of the image that is this one."""
    (number,) = (i for i, each in enumerate(images) if (each == image).all())
    return number


def test_the_batch_size_does_not_change_images(
    translator: Path, inputs: Path, crgan: Crgan, tmp_path: Path
) -> None:
    """ "With a larger batch at test time the images change": each is translated alone."""
    for size in (1, 3):
        assert (
            crgan("eval", translator, f"metrics.batch_size={size}", "--export", f"by{size}")[0] == 0
        )
    one, three = (folder(tmp_path / f"by{size}" / "generated") for size in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert (a == b).all()
    words = ("translate", translator, "--device", "cpu", "--out")
    assert crgan(*words, "alone.png", inputs / "5.png")[0] == 0
    assert (pixels(Path("alone.png")) == one[5]).all()  # nor what is next to it


def test_a_killed_run_goes_on_as_if_nothing_had_been(
    translator: Path, crgan: Crgan, tmp_path: Path
) -> None:
    """ "After resuming, the epoch starts at 1, the learning rate jumps and Adam forgets"."""
    run = tmp_path / "run"
    shutil.copytree(translator, run)
    (run / "checkpoints" / file_name(4)).unlink()
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "status": "running"}))
    assert crgan("train", "--from", run)[0] == 0
    newest = Path("checkpoints") / file_name(4)
    assert different(run / newest, translator / newest) == []
    assert lines(run, "eval") == lines(translator, "eval")
    grid = Path("samples/step_00000004.png")
    assert (run / grid).read_bytes() == (translator / grid).read_bytes()


def test_the_direction_swaps_the_data_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ "It learns B to A, though I wanted A to B": the log names the input of one pair."""
    caplog.set_level("INFO", "crgan_cli")
    for number in range(4):
        pair = np.hstack([np.full((8, 8, 3), 10 + number), np.full((8, 8, 3), 200)])
        put(tmp_path / "pairs" / f"{number}.png", pair.astype(np.uint8))
    sizes = {"resolution": 8, "load_size": 8, "channels": 6, "channels_in": 3, "channels_out": 3}
    for direction, side, bright in (("a_to_b", "left", False), ("b_to_a", "right", True)):
        data = Pairs(root=str(tmp_path / "pairs"), direction=direction, classes=0, **sizes)
        views = data.load_views("train")
        assert bool((views["input"].x > 100).all()) == bright
        assert bool((views["target"].x > 100).all()) != bright
        assert f"the input is the {side} half of" in caplog.text


def test_one_image_without_a_target_is_enough(translator: Path, crgan: Crgan) -> None:
    """ "To test, I must make pairs of my images, in folders of certain names"."""
    put(Path("my photo.2.png"), np.zeros((40, 50, 3), np.uint8))
    assert crgan("translate", translator, "my photo.2.png", "--out", "out")[0] == 0
    assert [path.name for path in Path("out").iterdir()] == ["my photo.2.png"]
    assert pixels(Path("out/my photo.2.png")).shape == (40, 50)


def test_a_checkpoint_needs_no_flags(translator: Path, inputs: Path, crgan: Crgan) -> None:
    """ "size mismatch for model.1.weight": the checkpoint carries its configuration."""
    shutil.copy(translator / "checkpoints" / file_name(4), "sent.pt")
    for place in ("sent.pt", translator):
        assert (
            crgan("translate", place, inputs / "0.png", "--out", f"{Path(place).name}.png")[0] == 0
        )
    assert Path("sent.pt.png").read_bytes() == Path(f"{translator.name}.png").read_bytes()


def test_another_size_gives_the_whole_image(translator: Path, crgan: Crgan) -> None:
    """ "Only a square crop comes out": any size is padded and cropped back, or made in tiles."""
    put(Path("in.png"), np.zeros((70, 101), np.uint8))
    for number, more in enumerate(((), ("--tile", "64"))):
        assert crgan("translate", translator, "in.png", "--out", f"{number}.png", *more)[0] == 0
        assert pixels(Path(f"{number}.png")).shape == (70, 101)


def test_checkerboards_can_be_avoided() -> None:
    """ "The images have a checkerboard pattern": upsampling=resize treats all places alike."""

    def spread(upsampling: str) -> float:
        """How unlike an even image becomes in the last upsampling, away from its edges."""
        torch.manual_seed(0)
        net = UNetGenerator(32, 3, 3, 0.05, "batch", 0.5, upsampling)  # pyright: ignore[reportArgumentType]
        last = net.up[-1]
        assert isinstance(last, nn.Sequential)
        (channels,) = {m.in_channels for m in last if hasattr(m, "in_channels")}
        with torch.no_grad():
            return last(torch.ones(1, channels, 8, 8))[0, 0, 3:-3, 3:-3].std().item()

    assert spread("resize") < 1e-6
    assert spread("deconv") > 1e-3


def test_colours_are_neither_inverted_nor_swapped(
    translator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "The output is inverted, or tinted": a network that changes nothing gives the file back."""
    model = load.load_generator(load.find_checkpoint(translator), CPU, None)
    translate = FileTranslator(model, CPU, Options())
    translate.channels = 3
    monkeypatch.setattr(translate, "apply", lambda x: x)
    colours = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    put(tmp_path / "colours.png", colours)
    image = translate(translate.decode((tmp_path / "colours.png").read_bytes()))
    assert (image.permute(1, 2, 0).numpy() == colours).all()


@pytest.mark.parametrize(("source", "target"), [(1, 3), (3, 1), (4, 3)])
def test_input_and_target_may_have_unlike_channels(source: int, target: int) -> None:
    """ "expected input to have 3 channels": the networks take what the data set says."""
    data = ["dataset=pairs", "dataset.root=x", "dataset.resolution=32"]
    channels = [f"dataset.channels_in={source}", f"dataset.channels_out={target}"]
    net = ["architecture=unet", "architecture.width=0.02", "architecture.d_layers=1"]
    config = compose(["task=pix2pix", "metrics=none", *data, *channels, *net])
    G, D = build_networks(config)
    x = torch.zeros(2, source, 32, 32)
    y = G(x)
    assert y.shape == (2, target, 32, 32)
    assert D(torch.cat([x, y], 1), None).shape[:2] == (2, 1)


def test_there_are_numbers_that_say_when_to_stop(translator: Path) -> None:
    """ "What do the losses mean, and when is it done?": distances on the test split, beside those
    of an answer without learning, and the best checkpoint."""
    result = json.loads((translator / "result.json").read_text())
    found = lines(translator, "eval")
    assert [line["step"] for line in found] == [2, 4]
    headline = result["protocol"]["headline"]
    assert headline.startswith("kid_")
    assert result["protocol"]["reference_split"] == "test"
    best = min(found, key=lambda line: line[headline])
    assert result["best"]["step"] == best["step"]
    saved = torch.load(translator / "checkpoints/best.pt", weights_only=True)
    assert saved["step"] == best["step"]
    for name in ("l1", "psnr", "ssim"):
        for line in found:
            assert {name, f"{name}_of_input", f"{name}_of_mean"} <= line.keys()
        for baseline in ("of_input", "of_mean"):
            assert len({line[f"{name}_{baseline}"] for line in found}) == 1

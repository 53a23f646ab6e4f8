"""`crgan translate`: what it writes for files of any size and kind, and what it refuses."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from support.runs import Crgan, refused, tiny, unmeasured
from torch import Tensor

from crgan_cli.commands import main
from crgan_cli.commands.translate import parse_size
from crgan_cli.errors import UserError
from crgan_cli.evaluation import load
from crgan_cli.evaluation.translate import FileTranslator, Options


def picture(width: int, height: int, mode: str = "L", seed: int = 0) -> Image.Image:
    """A picture of noise."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened)


def output(crgan: Crgan, run: Path, *words: object) -> np.ndarray:
    """The one image that a command writes."""
    code, _, err = crgan("translate", run, *words, "--out", "it.png", "--device", "cpu")
    assert code == 0, err
    return pixels(Path("it.png"))


# --- what is written ---


def test_a_folder_and_a_zip_keep_names_folders_and_sizes(
    translator: Path, crgan: Crgan, tmp_path: Path
) -> None:
    sizes = {"a.jpg": (50, 33), "sub/b.tiff": (1, 1), "sub/c.png": (32, 64), "wide.png": (200, 3)}
    (tmp_path / "in/sub").mkdir(parents=True)
    with zipfile.ZipFile("in.zip", "w") as file:
        for name, size in sizes.items():
            picture(*size).save(tmp_path / "in" / name)
            file.write(tmp_path / "in" / name, name)
    code, said, _ = crgan("translate", translator, "in", "--out", "out", "--device", "cpu")
    assert code == 0
    assert said.startswith("4 images by step 4, ema weights, batch norm batch, dropout on, seed 1")
    assert crgan("translate", translator, "in.zip", "--out", "out.zip", "--device", "cpu")[0] == 0
    names = {str(Path(name).with_suffix(".png")): size for name, size in sizes.items()}
    found = {str(p.relative_to("out")) for p in Path("out").rglob("*") if p.is_file()}
    assert found == set(names)
    with zipfile.ZipFile("out.zip") as file:
        assert sorted(file.namelist()) == sorted(names)
        for name, (width, height) in names.items():
            assert pixels(Path("out", name)).shape == (height, width)
            assert file.read(name) == Path("out", name).read_bytes()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16", "P", "1"])
def test_a_file_of_any_kind_is_read_as_in_training(
    mode: str, translator: Path, crgan: Crgan
) -> None:
    grey = picture(32, 40)
    if mode == "I;16":
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save("odd.png")
    elif mode == "1":
        grey = grey.convert("1").convert("L")
        grey.convert("1").save("odd.png")
    else:
        grey.convert(mode).save("odd.png")
    grey.save("grey.png")
    plain = output(crgan, translator, "grey.png")
    assert (output(crgan, translator, "odd.png") == plain).all()
    assert plain.std() > 3  # else this shows nothing


def test_a_turned_photo_is_translated_upright(translator: Path, crgan: Crgan) -> None:
    upright = picture(32, 40)
    upright.save("upright.png")
    lying = Image.Exif()
    lying[0x0112] = 6  # the camera was turned: show it a quarter further
    upright.transpose(Image.Transpose.ROTATE_90).save("lying.png", exif=lying)
    found = output(crgan, translator, "lying.png")
    assert found.shape == (40, 32)
    assert (found == output(crgan, translator, "upright.png")).all()


def test_one_half_of_a_file_is_as_a_file_of_its_own(translator: Path, crgan: Crgan) -> None:
    both = picture(64, 32)
    both.save("both.png")
    for half, left in (("a", 0), ("b", 32)):
        both.crop((left, 0, left + 32, 32)).save(f"{half}.png")
        found = output(crgan, translator, "both.png", "--half", half)
        assert (found == output(crgan, translator, f"{half}.png")).all()
    picture(63, 32).save("odd.png")
    code, out, err = crgan("translate", translator, "odd.png", "--half", "a", "--out", "new.png")
    assert (code, out) == (1, "")
    assert "odd.png (its width 63 is odd, so it has no two equal halves)" in err
    assert not Path("new.png").exists()


def test_size_is_that_of_the_shorter_side(translator: Path, crgan: Crgan) -> None:
    picture(64, 128).save("tall.png")
    assert output(crgan, translator, "tall.png", "--size", "40").shape == (80, 40)
    assert output(crgan, translator, "tall.png", "--size", "keep").shape == (128, 64)
    assert parse_size("keep") is None


def test_the_seed_is_of_the_noise_and_dropout_off_has_none(translator: Path, crgan: Crgan) -> None:
    picture(64, 64).save("in.png")

    def drawn(*words: str) -> bytes:
        return output(crgan, translator, "in.png", *words).tobytes()

    assert drawn() == drawn("--seed", "1") == drawn("--dropout", "on")  # the run's
    assert drawn() != drawn("--seed", "2")
    off = drawn("--dropout", "off")
    assert off == drawn("--dropout", "off", "--seed", "2") != drawn()
    assert drawn("--weights", "raw") != drawn()
    assert drawn("--best") == drawn("--best", "--weights", "ema")


def test_tiles_of_every_shape_keep_the_size(translator: Path, crgan: Crgan) -> None:
    for number, size in enumerate([(100, 20), (20, 100), (90, 70), (32, 32), (5, 7)]):
        picture(*size).save("in.png")
        found = output(crgan, translator, "in.png", "--tile", "32")
        assert found.shape == size[::-1], number
    whole = output(crgan, translator, "in.png")
    assert (found == whole).all()  # one tile is the image
    refused(
        crgan("translate", translator, "in.png", "--out", "o.png", "--tile", "50"),
        "--tile 50",
        "multiples of 32. Type --tile 64",
    )


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose inputs are photos with a mask as their fourth channel, and its folder."""
    root = tmp_path_factory.mktemp("masked")
    for half, mode in (("A", "RGBA"), ("B", "RGB")):
        (root / "data" / half).mkdir(parents=True)
        for number in range(6):
            picture(32, 32, mode, seed=number).save(root / "data" / half / f"{number}.png")
    typed = unmeasured(tiny("steps=1", "samples.every=1", "batch_size=2", "dataset.fraction=1"))
    sizes = ["dataset.resolution=32", "dataset.load_size=32", "dataset.channels_in=4"]
    data = ["dataset=pairs", f"dataset.root={root / 'data'}", *sizes]
    net = ["task=pix2pix", "architecture=unet", "architecture.d_layers=1", "regularizer=none"]
    assert main.run_command(["train", *typed, *data, *net, f"out={root / 'run'}"]) == 0
    return root


def test_a_mask_is_a_fourth_channel_that_does_not_touch_the_colours(
    masked: Path, crgan: Crgan
) -> None:
    run, photo = masked / "run", masked / "photo.png"
    shutil.copy(masked / "data/A/0.png", photo)
    shutil.rmtree(masked / "data")  # as on another machine
    found = output(crgan, run, photo)
    assert found.shape == (32, 32, 3)
    with Image.open(run / "samples/step_00000001.png") as grid:
        assert grid.width > 32 * 3
    model = load.load_generator(load.find_checkpoint(run), torch.device("cpu"), None)
    translator = FileTranslator(model, torch.device("cpu"), Options(size=16))
    hidden = picture(32, 32, "RGB")
    hidden.putalpha(0)  # Pillow's resize makes such pixels black
    hidden.save("hidden.png")
    image = translator.decode(Path("hidden.png").read_bytes())
    assert image.shape == (4, 16, 16)
    assert image[3].max() == 0
    assert image[:3].float().mean() == pytest.approx(127.5, abs=10)
    picture(32, 32, "RGB").save("opaque.png")
    code, _, err = crgan("translate", run, "opaque.png", "--out", "o.png", "--device", "cpu")
    assert code == 1
    assert "opaque.png (it has no alpha channel for the fourth channel)" in err


def test_deep_greys_are_scaled_as_in_training(translator: Path) -> None:
    model = load.load_generator(load.find_checkpoint(translator), torch.device("cpu"), None)
    OmegaConf.update(model.config, "dataset.range", [0, 4095], force_add=True)
    content = io.BytesIO()
    Image.fromarray(np.full((32, 32), 4095, np.uint16)).save(content, "PNG")
    decode = FileTranslator(model, torch.device("cpu"), Options()).decode
    assert decode(content.getvalue()).unique().tolist() == [255]


# --- what goes wrong ---


def test_a_file_that_cannot_be_read_is_left_out_and_named(
    translator: Path, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    picture(32, 32).save("in/good.png")
    Path("in/bad.png").write_text("no picture")
    code, out, err = crgan("translate", translator, "in", "--out", "out", "--device", "cpu")
    assert code == 1
    assert out.startswith("1 images by step 4")
    assert "1 of 2 files could not be translated: bad.png (cannot identify image file)." in err
    assert [path.name for path in Path("out").iterdir()] == ["good.png"]
    for place in ("gone", "gone.zip"):  # nothing is left of what would have been empty
        code, out, err = crgan("translate", translator, "in/bad.png", "--out", place)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def fail_at(size: int, error: Exception) -> object:
    """A network that has memory for images up to a size only."""

    def apply(self: FileTranslator, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] > size:
            raise error
        return x

    return apply


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        MemoryError(),
    ],
    ids=["CUDA", "CPU", "MPS", "Python"],
)
def test_without_memory_for_an_image_the_tile_that_fits_is_named(
    error: Exception, translator: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in").mkdir()
    picture(64, 96).save("in/large.png")
    picture(32, 32).save("in/small.png")
    monkeypatch.setattr(FileTranslator, "apply", fail_at(32 * 32, error))
    words = ("translate", translator, "in", "--device", "cpu")
    code, _, err = crgan(*words, "--out", "out")
    assert code == 1
    assert "large.png (64x96 pixels need more memory than there is: type --tile 32," in err
    assert [path.name for path in Path("out").iterdir()] == ["small.png"]
    code, _, err = crgan(*words, "--out", "out2", "--tile", "64")
    assert "type --tile 32," in err
    assert crgan(*words, "--out", "out3", "--tile", "32")[0] == 0


def test_a_size_that_no_memory_holds_is_not_decoded(
    translator: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(32, 16).save("in.png")
    monkeypatch.setattr("crgan_cli.evaluation.translate.to_planes", None)
    code, _, err = crgan("translate", translator, "in.png", "--out", "o.png", "--size", "1000000")
    assert code == 1
    assert "(2000000x1000000 pixels need more memory than there is: type a smaller --size)" in err


@pytest.mark.parametrize(
    ("words", "width", "advice"),
    [([], 4000, "--tile 512, or "), (["--tile", "32"], 96, ""), ([], 32, ""), ([], 20, "")],
    ids=["large", "smallest tile", "one tile", "less than a tile"],
)
def test_a_tile_is_advised_only_if_it_is_smaller_than_what_failed(
    words: list[str],
    width: int,
    advice: str,
    translator: Path,
    crgan: Crgan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture(width, 16).save("in.png")
    monkeypatch.setattr(FileTranslator, "apply", fail_at(0, MemoryError()))
    typed = ("translate", translator, "in.png", "--out", "o.png", "--device", "cpu", *words)
    assert f"than there is: type {advice}a smaller --size" in crgan(*typed)[2]


@pytest.mark.parametrize(("experiment", "to"), [("demo_cyclegan", "b"), ("demo_stargan", "bag")])
def test_each_task_translates_files_of_any_size(
    experiment: str, to: str, crgan: Crgan, tmp_path: Path
) -> None:
    typed = unmeasured(tiny(f"experiment={experiment}", "steps=1", "out=run"))
    assert crgan("train", *typed)[0] == 0
    sizes = {"a": (33, 47), "b": (3, 1), "c": (40, 5)}
    (tmp_path / "in").mkdir()
    for name, size in sizes.items():
        picture(*size).save(f"in/{name}.png")
    for words in ([], ["--tile", "12"]):
        out = f"out{len(words)}"
        code, said, err = crgan("translate", "run", "in", "--to", to, "--out", out, *words)
        assert code == 0, err
        assert "batch norm running, dropout off" in said
        found = {path.stem: pixels(path).shape[1::-1] for path in Path(out).iterdir()}
        assert found == sizes
    said = crgan("translate", "run", "in", "--to", to, "--out", "o", "--tile", "18")
    refused(said, "multiples of 4, and at least 8. Type --tile 16")
    refused(crgan("translate", "run", "in", "--to", to, "--out", "o", "--tile", "4"), "--tile 8")


def test_a_file_that_the_network_refuses_does_not_end_the_others(
    translator: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name, side in (("a", 64), ("b", 32)):
        picture(side, side).save(f"in/{name}.png")
    monkeypatch.setattr(FileTranslator, "apply", fail_at(32 * 32, UserError("It has no eyes.")))
    code, said, err = crgan("translate", translator, "in", "--out", "out", "--device", "cpu")
    assert code == 1
    assert "1 of 2 files could not be translated: a.png (It has no eyes)." in err
    assert said.startswith("1 images")


def test_another_error_of_the_network_is_not_taken_for_a_file_s_fault(
    translator: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(32, 32).save("in.png")
    monkeypatch.setattr(FileTranslator, "apply", fail_at(0, RuntimeError("a bug")))
    code, _, err = crgan("translate", translator, "in.png", "--out", "out", "--device", "cpu")
    assert code == 1
    assert "a bug" in err
    assert "could not be translated" not in err
    assert not Path("out").exists()


@pytest.fixture
def given(tmp_path: Path, crgan: Crgan) -> Path:
    """Files to translate, and some that are in the way."""
    (tmp_path / "in").mkdir()
    (tmp_path / "twice").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "full/kept.txt").write_text("mine")
    for name in ("in/a.png", "in/b.png", "twice/a.png", "twice/a.jpg", "one.png"):
        picture(32, 32).save(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as file:
        file.write(tmp_path / "one.png", "one.png")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("twice --out o", "a.jpg, a.png would be written under one name"),
        ("gone.png --out o", "INPUT must be an image, a folder of images or a zip of images."),
        ("nothing --out o", "holds no file"),
        ("full --out o", "holds 1 files but no image"),
        ("in --out full", "full exists and is not an empty folder. Give another --out."),
        ("in --out o.png", "give FILE.zip or a folder's name; all images become PNGs, and there"),
        ("one.png --out o.jpg", "give FILE.png, FILE.zip or a folder's name; all images become"),
        ("in --out folder.zip", "is a folder with the name of a file"),
        ("one.png --out one.png", "--out one.png is the input itself"),
        ("in.zip --out in.zip", "--out in.zip is the input itself"),
        ("one.png --out o.png --to b", "there is no translation --to b"),
        ("one.png --out o.png --size 0", "whole number of at least 1"),
        ("one.png --out o.png --half c", "invalid choice: 'c'"),
        ("one.png", "the following arguments are required: --out"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    words: str, said: str, translator: Path, crgan: Crgan, given: Path
) -> None:
    before = {path: path.is_file() and path.read_bytes() for path in given.rglob("*")}
    refused(crgan("translate", translator, *words.split()), said)
    assert {path: path.is_file() and path.read_bytes() for path in given.rglob("*")} == before


def test_a_name_in_a_zip_does_not_lead_out_of_the_folder(translator: Path, crgan: Crgan) -> None:
    picture(32, 32).save("in.png")
    with zipfile.ZipFile("in.zip", "w") as file:
        for name in ("/a/b.png", "../../c.png", "d.png"):
            file.write("in.png", name)
    assert crgan("translate", translator, "in.zip", "--out", "out", "--device", "cpu")[0] == 0
    found = sorted(str(path) for path in Path().rglob("*.png"))
    assert found == ["in.png", "out/a/b.png", "out/d.png"]


def test_a_run_of_latents_has_nothing_to_translate(plain: Path, crgan: Crgan) -> None:
    picture(32, 32).save("in.png")
    said = ("nothing to translate", "crgan sample RUN --out samples.png")
    refused(crgan("translate", plain, "in.png", "--out", "o.png"), *said)


@pytest.mark.parametrize("command", ["sample", "artefacts"])
def test_a_run_of_pairs_has_no_latents(command: str, translator: Path, crgan: Crgan) -> None:
    before = sorted(translator.rglob("*"))
    refused(crgan(command, translator), "no latents", "crgan translate RUN INPUT --out OUT")
    assert sorted(translator.rglob("*")) == before

"""`crgan sample`: what it draws and writes, what it refuses, and the exit code."""

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import DEMO, Crgan, refused

from crgan_cli.data.images import to_uint8
from crgan_cli.evaluation import load
from crgan_cli.evaluation.load import LoadedGenerator
from crgan_cli.evaluation.sampler import Latents, Sampler, interpolate
from crgan_cli.evaluation.samples import Request, find_classes, make_latents
from crgan_cli.gan.tasks.generation import Prior
from crgan_cli.runs.checkpoint import file_name
from crgan_cli.system import memory


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sample", "gone.pt"], "there is no file gone.pt"),
        (["sample", "."], "no checkpoint that can be read"),
        (["sample", "gone", "--nn", "3"], "unrecognized arguments: --nn"),
    ],
)
def test_what_is_not_there_is_named(words: list[str], said: str, crgan: Crgan) -> None:
    refused(crgan(*words), said)


@pytest.mark.parametrize("command", ["eval", "sample"])
def test_weights_and_checkpoints_that_a_run_has_not_are_refused(
    command: str, scored: Path, plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    measured = DEMO if command == "eval" else ()
    answer = crgan(command, plain, "--weights", "ema", *measured)
    refused(answer, "ema.decay=null", "--weights raw")
    refused(crgan(command, plain, "--best"), "no best checkpoint", "Leave out --best")
    newest = scored / "checkpoints" / file_name(4)
    refused(crgan(command, newest, "--best"), "is not a run's folder", "leave out --best")
    assert not list(tmp_path.iterdir())


def trained(run: Path, weights: str | None = None) -> LoadedGenerator:
    return load.load_generator(load.find_checkpoint(run), torch.device("cpu"), weights)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def pictures(folder: Path) -> np.ndarray:
    """(N, H, W) of a folder of grey PNGs."""
    return np.stack([pixels(path) for path in sorted(folder.iterdir())])


def by_hand(model: LoadedGenerator, z: torch.Tensor, y: list[int] | None) -> np.ndarray:
    """(N, H, W) uint8 of the generator's images."""
    images = model.G(z, None if y is None else torch.tensor(y))
    return to_uint8(images).squeeze(1).numpy()


def normal(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 128, generator=torch.Generator().manual_seed(seed))


def assert_alike(one: np.ndarray, other: np.ndarray) -> None:
    """But for pixels that lie so near the middle of two levels that the order of sums counts."""
    assert one.shape == other.shape
    apart = np.abs(one.astype(int) - other.astype(int))
    assert apart.max() <= 1
    assert apart.mean() < 1e-3


def test_a_grid_has_the_size_and_the_places_computed_by_hand(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    """5 images of 32 pixels: 2 columns and 3 rows, with 2 pixels between and around."""
    code, out, _ = crgan("sample", scored, "--n", 5, "--out", "new/grid.png")
    assert code == 0
    assert "5 images of step 4, ema weights: new/grid.png" in out
    grid = pixels(tmp_path / "new" / "grid.png")
    assert grid.shape == (2 + 3 * 34, 2 + 2 * 34, 3)
    # a row is a class
    expected = by_hand(trained(scored), normal(5), [0, 0, 1, 1, 2])
    for i, image in enumerate(expected):
        top, left = 2 + 34 * (i // 2), 2 + 34 * (i % 2)
        cell = grid[top : top + 32, left : left + 32]
        assert np.array_equal(cell, np.repeat(image[..., None], 3, axis=2))
    assert not grid[2 + 2 * 34 :, 2 + 34 :].any()  # the empty place
    assert not grid[:2].any()
    assert not grid[:, 34:36].any()


def test_a_folder_and_a_zip_hold_one_png_an_image(
    plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()  # an empty one may be there
    for out in ("folder", "all.zip"):
        assert crgan("sample", plain, "--n", 5, "--seed", 3, "--out", out)[0] == 0
    names = [f"{i:06d}.png" for i in range(5)]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == names
    with zipfile.ZipFile(tmp_path / "all.zip") as file:
        assert file.namelist() == names
        file.extractall(tmp_path / "unzipped")
    z = torch.rand(5, 128, generator=torch.Generator().manual_seed(3)) * 2 - 1
    expected = by_hand(trained(plain), z, None)
    assert np.array_equal(pictures(tmp_path / "folder"), expected)
    assert np.array_equal(pictures(tmp_path / "unzipped"), expected)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "all.zip", "unzipped"}


def test_without_out_there_is_a_grid_of_64(plain: Path, crgan: Crgan, tmp_path: Path) -> None:
    before = sorted(plain.rglob("*"))
    assert crgan("sample", plain)[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]
    assert pixels(tmp_path / "samples.png").shape == (2 + 8 * 34, 2 + 8 * 34, 3)
    assert sorted(plain.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n", "1000000000"], "Lower --n, or write --out FILE.zip."),
        (["--n", "1000000000", "--out", "a.zip"], "Lower --n."),
        (["--n", "2", "--interpolate", "1000000000"], "Lower --n or --interpolate, or write"),
        (["--n", "90000000", "--batch-size", "90000000", "--out", "a.zip"], "--batch-size."),
    ],
)
def test_images_that_no_memory_holds_are_refused_before_one_is_drawn(
    words: list[str], said: str, plain: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda device: 100 * 2**30)
    refused(crgan("sample", plain, *words), " needs at least ", " and this machine has 100", said)
    assert not list(Path().iterdir())


def test_the_same_seed_gives_the_same_bytes_and_another_others(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        assert crgan("sample", scored, "--n", 6, "--seed", seed, "--out", f"{name}.zip")[0] == 0
    a, b, c = ((tmp_path / f"{name}.zip").read_bytes() for name in "abc")
    assert a == b != c


def test_the_batch_size_does_not_change_the_images(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    for size in (100, 4, 1):
        words = ("--n", 9, "--batch-size", size, "--out", f"by_{size}")
        assert crgan("sample", scored, *words)[0] == 0
    whole = pictures(tmp_path / "by_100")
    assert len(whole) == 9
    for size in (4, 1):
        assert_alike(pictures(tmp_path / f"by_{size}"), whole)


def test_the_weights_are_those_asked_for(scored: Path, crgan: Crgan, tmp_path: Path) -> None:
    for weights in ("ema", "raw"):
        words = ("--n", 4, "--weights", weights, "--out", weights)
        assert crgan("sample", scored, *words)[0] == 0
        expected = by_hand(trained(scored, weights), normal(4), [0, 0, 1, 1])
        assert np.array_equal(pictures(tmp_path / weights), expected)
    assert not np.array_equal(pictures(tmp_path / "ema"), pictures(tmp_path / "raw"))


def test_classes_are_honoured_by_rows(scored: Path, crgan: Crgan, tmp_path: Path) -> None:
    assert crgan("sample", scored, "--n", 8, "--classes", "7,3", "--out", "some")[0] == 0
    model, found = trained(scored), pictures(tmp_path / "some")
    assert np.array_equal(found, by_hand(model, normal(8), [7, 7, 7, 3, 3, 3, 7, 7]))
    assert not np.array_equal(found, by_hand(model, normal(8), [3, 3, 3, 7, 7, 7, 3, 3]))


@pytest.mark.parametrize("classes", ["0", "0,1"])
def test_classes_of_a_model_without_any_are_refused(
    classes: str, plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    refused(crgan("sample", plain, "--classes", classes), "this generator has no classes")
    assert not list(tmp_path.iterdir())


def test_a_class_that_is_not_there_is_refused(scored: Path, crgan: Crgan) -> None:
    refused(
        crgan("sample", scored, "--classes", "0,10"), "--classes 10: this generator has the classes"
    )
    refused(crgan("sample", scored, "--classes=-1"), "the classes 0 to 9 (0 t-shirt/top, 1 ")


def test_classes_have_names(scored: Path, crgan: Crgan, tmp_path: Path) -> None:
    assert crgan("sample", scored, "--n", 8, "--classes", "7,3", "--out", "numbers")[0] == 0
    assert (
        crgan("sample", scored, "--n", 8, "--classes", "sneaker, dress", "--out", "names")[0] == 0
    )
    assert np.array_equal(pictures(tmp_path / "numbers"), pictures(tmp_path / "names"))


def test_a_name_wins_over_a_number() -> None:
    assert find_classes(["3", "0"], 3, ("1", "2", "3")) == [2, 0]


@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_truncation_of_a_normal_prior_cuts_the_bell(limit: float) -> None:
    prior = Prior("normal", 128, 0)
    whole, _ = make_latents(Request(n=40), prior)
    latents, _ = make_latents(Request(n=40, truncation=limit), prior)
    assert torch.equal(latents.z.flatten().argsort(), whole.z.flatten().argsort())  # one z, moved
    assert latents.z.abs().max() <= limit
    assert latents.z.abs().max() > 0.99 * limit  # not scaled
    # what is left of the bell is as wide as the formula of a truncated normal says
    density = math.exp(-(limit**2) / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * limit * density / math.erf(limit / math.sqrt(2))
    assert latents.z.var().item() == pytest.approx(variance, rel=0.05)


def test_truncation_of_a_uniform_prior_scales(plain: Path, crgan: Crgan, tmp_path: Path) -> None:
    prior = Prior("uniform", 128, 0)
    whole, truncated = (
        make_latents(Request(n=40), prior)[0],
        make_latents(Request(n=40, truncation=0.25), prior)[0],
    )
    assert torch.equal(truncated.z, whole.z * 0.25)
    assert crgan("sample", plain, "--n", 4, "--truncation", 0.25, "--out", "near")[0] == 0
    z = (torch.rand(4, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1) * 0.25
    assert np.array_equal(pictures(tmp_path / "near"), by_hand(trained(plain), z, None))


def test_interpolation_begins_and_ends_at_the_images_themselves(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    """7 images in steps of 4 are 2 rows, between 4 latents; a row keeps its class."""
    assert crgan("sample", scored, "--n", 7, "--interpolate", 4, "--out", "rows.png")[0] == 0
    assert pixels(tmp_path / "rows.png").shape == (2 + 2 * 34, 2 + 4 * 34, 3)
    assert crgan("sample", scored, "--n", 7, "--interpolate", 4, "--out", "rows")[0] == 0
    rows = pictures(tmp_path / "rows")
    assert len(rows) == 8
    assert_alike(rows[[0, 3, 4, 7]], by_hand(trained(scored), normal(4), [0, 0, 1, 1]))
    assert not np.array_equal(rows[1], rows[0])
    latents, columns = make_latents(
        Request(n=7, interpolate=4, classes=["5", "2"]), Prior("normal", 128, 10)
    )
    assert columns == 4
    assert latents.y is not None
    assert latents.y.tolist() == [5] * 4 + [2] * 4


def test_a_path_of_a_normal_prior_is_a_great_circle() -> None:
    """Between ends of one length: that length all along, and equal angles."""
    z = torch.nn.functional.normalize(normal(6).double(), dim=1) * 11.0
    paths = interpolate(Latents(z, None), 5, "normal").z.unflatten(0, (3, 5))
    assert torch.allclose(paths[:, 0], z[0::2])
    assert torch.allclose(paths[:, -1], z[1::2])
    assert torch.allclose(paths.norm(dim=2), torch.full((3, 5), 11.0, dtype=torch.float64))
    angles = torch.cosine_similarity(paths[:, :-1], paths[:, 1:], dim=2).acos()
    whole = torch.cosine_similarity(z[0::2], z[1::2], dim=1).acos()
    assert torch.allclose(angles, (whole / 4)[:, None].expand(3, 4))


def test_a_path_of_a_uniform_prior_is_straight() -> None:
    z = torch.tensor([[-1.0, 0.0], [1.0, 0.5]])
    path = interpolate(Latents(z, None), 5, "uniform").z
    expected = [[-1.0, 0.0], [-0.5, 0.125], [0.0, 0.25], [0.5, 0.375], [1.0, 0.5]]
    assert torch.allclose(path, torch.tensor(expected))


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_path_between_equal_or_opposite_latents_is_finite(kind: str, steps: int) -> None:
    z = normal(1)
    path = interpolate(Latents(torch.cat([z, z, z, -z]), None), steps, kind).z
    assert path.isfinite().all()
    assert torch.allclose(path[:steps], z.expand(steps, -1), atol=1e-4)


# --- where images go ---


def test_a_folder_that_holds_something_is_left_alone(
    plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "000000.png").write_text("precious")
    refused(crgan("sample", plain, "--out", "mine"), "mine exists and is not an empty folder")
    assert (tmp_path / "mine" / "000000.png").read_text() == "precious"
    assert len(list((tmp_path / "mine").iterdir())) == 1


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("grid.mp4", "is a movie: add --interpolate STEPS"),
        ("grid.gif", "is a movie: add --interpolate STEPS"),
        ("grid.avi", "crgan writes no .avi files. Give FILE.png"),
        ("grid.psd", "crgan writes no .psd files"),  # Pillow reads these only
        ("grid.h5", "crgan writes no .h5 files"),
        ("run.v2", "crgan writes no .v2 files"),
        ("folder.png", "is a folder"),
        ("folder.zip", "is a folder"),
        ("file/grid.png", "cannot be written"),
        ("file/folder", "cannot be written"),
        ("file/all.zip", "cannot be written"),
        ("file", "is not an empty folder"),
    ],
)
def test_what_cannot_be_written_is_refused(
    out: str, said: str, plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    for name in ("folder.png", "folder.zip"):
        (tmp_path / name).mkdir()
    refused(crgan("sample", plain, "--n", 2, "--out", out), said, "Give ")
    assert (tmp_path / "file").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.png", "folder.zip"}


def test_a_movie_that_cannot_be_written_is_refused_before_it_is_drawn(
    plain: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(Sampler, "draw", None)
    words = ["--n", 2, "--interpolate", 2, "--out", "file/x.gif"]
    refused(crgan("sample", plain, *words), "--out file/x.gif cannot be written")


@pytest.mark.parametrize("name", ["all.mp4", "all.gif", "all.png"])
def test_the_images_of_one_file_are_in_memory_at_once(name: str, plain: Path, crgan: Crgan) -> None:
    typed = ["--n", 60_000_000_000, "--interpolate", 10, "--out", name]
    refused(crgan("sample", plain, *typed), "images of one file", "Lower --n or --interpolate")


@pytest.mark.parametrize("name", ["grid.jpg", "grid.JPEG", "grid.webp", "grid.bmp", "grid.tif"])
def test_a_grid_is_the_kind_of_picture_that_its_name_says(
    name: str, plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    assert crgan("sample", plain, "--n", 1, "--out", name)[0] == 0
    assert pixels(tmp_path / name).shape == (36, 36, 3)


@pytest.mark.parametrize("out", ["all.zip", "all"])
def test_a_disk_that_is_full_is_a_failed_run_and_leaves_nothing(
    out: str, plain: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = crgan("sample", plain, "--n", 2, "--out", out)
    assert code == 1
    assert f"crgan sample: failed: writing to {out} failed: No space left on device" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n", "x"], "argument --n: 'x' is not a whole number of at least 1"),
        (["--n", "-3"], "'-3' is not a whole number of at least 1"),
        (["--n", "0"], "'0' is not"),
        (["--n", "2.5"], "'2.5' is not"),
        (
            ["--n"],
            "--n: expected one argument; one that begins with a minus is typed --n=-V",
        ),
        (["--batch-size", "0"], "argument --batch-size: '0' is not"),
        (["--interpolate", "0"], "argument --interpolate: '0' is not"),
        (["--seed", "x"], "argument --seed: 'x' is not a whole number from 0 on"),
        (["--seed", "-1"], "'-1' is not"),
        (["--seed", str(2**64)], "is not"),
        (["--classes", "a"], "--classes a: this generator has no classes"),
        (["--classes", ""], "'' is not"),
        (["--classes", "1,,2"], "'' is not"),
        (["--classes=-1"], "--classes -1: this generator has no classes"),
        (["--truncation", "0"], "argument --truncation: '0' is not a number above 0"),
        (["--truncation", "-1"], "'-1' is not"),
        (["--truncation", "nan"], "'nan' is not"),
        (["--truncation", "x"], "'x' is not"),
        (["--weights", "best"], "invalid choice: 'best'"),
        (["--device", "gpu"], "device=gpu"),
        (["seed=1"], "unrecognized arguments: seed=1"),
    ],
)
def test_a_number_that_is_none_is_named(
    words: list[str], said: str, plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    refused(crgan("sample", plain, *words), said)
    assert not list(tmp_path.iterdir())

"""`crgan artefacts`: its files and lines, what it refuses, and the exit code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import Crgan, refused, tiny, unmeasured

from crgan_cli.commands import main
from crgan_cli.config.compose import compose
from crgan_cli.data.dataset import Split
from crgan_cli.data.embedded import Demo
from crgan_cli.data.images import Images
from crgan_cli.evaluation.artefacts import detector, leakage, measure
from crgan_cli.report import plots
from crgan_cli.runs.checkpoint import file_name
from crgan_cli.training.start import train_run

FEW = ("--n", "12")
HELD_OUT = 60  # of the demo's 4,000
LITE = ("extractor=efficientnet_lite0", "extractor.resolution=32")  # the run has no metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CR with a cutout, classes and an average, on as many images as leakage needs."""
    out = tmp_path_factory.mktemp("run")
    typed = unmeasured(
        tiny(
            f"out={out}",
            "architecture=biggan_lite",
            "architecture.conditional=true",
            "dataset.fraction=0.02",
            "regularizer=cr",
            "augment=cutout",
            "augment.size=8",
            "ema.decay=0.5",
            "steps=2",
        )
    )
    train_run(compose(typed), typed, {}, None)
    return out


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors are cached: each test has a cache of its own."""
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def quick_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """They learn nothing, and all look at few images: what is found is tested elsewhere."""
    read = Demo.read

    def read_few(demo: Demo, split: Split) -> Images:
        images = read(demo, split)
        return images if split == "train" else Images(images.x[:HELD_OUT], images.y[:HELD_OUT])

    monkeypatch.setattr(Demo, "read", read_few)
    monkeypatch.setattr(detector, "ROUNDS", 1)
    monkeypatch.setattr(detector, "STEPS_PER_ROUND", 1)
    monkeypatch.setattr(leakage, "FEWEST", 12)
    monkeypatch.setattr(leakage, "MOST_HELD_OUT", 48)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def record(folder: Path, name: str) -> dict:
    """A JSON file, which holds no NaN: that is not JSON."""
    return json.loads((folder / f"{name}.json").read_text(), parse_constant=pytest.fail)


def assert_pictures(folder: Path) -> None:
    """Every PNG can be read and is not of one colour."""
    pictures = list(folder.glob("*.png"))
    assert pictures
    for path in pictures:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 1


@pytest.mark.usefixtures("quick_detectors")
def test_all_measurements_go_into_the_run_s_folder_by_step_and_weights(
    run: Path, crgan: Crgan
) -> None:
    code, out, err = crgan("artefacts", run, *FEW, *LITE)
    assert code == 0, err
    folder = run / "artefacts" / "step_00000002_ema"
    names = ("leakage", "consistency", "diversity", "memorisation")
    pairs = {f"memorisation_pairs_{space}.png" for space in ("pixels", "features")}
    assert files(folder) == {f"{n}.{kind}" for n in names for kind in ("json", "png")} | pairs
    assert_pictures(folder)
    found = {name: record(folder, name) for name in names}
    for name, each in found.items():
        assert each["measurement"] == name
        assert (each["step"], each["generator_weights"]) == (2, "ema")
        assert each["checkpoint"] == str(run / "checkpoints" / file_name(2))
        hashes = each["training_images_sha256"], each["held_out_images_sha256"]
        assert len(set(hashes)) == 2
        assert all(len(one) == 64 for one in hashes)
        assert f"\n{name}\n" in out
    transforms = found["leakage"]["transforms"]
    assert set(transforms) == {"cutout", "shift", "noise"}
    assert transforms["cutout"]["transform"] == {"T": "Cutout", "size": 8}  # the run's own
    assert set(found["diversity"]["pairs"]) == {"pixels", "features"}
    assert f"{run / 'checkpoints' / file_name(2)} at step 2, ema weights" in out
    assert out.endswith(f"numbers and plots: {folder}\n")


@pytest.mark.usefixtures("quick_detectors")
def test_the_same_seed_gives_the_same_numbers_and_another_others(
    run: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: None)  # this is of numbers
    folders = {"a": 3, "b": 3, "c": 4}
    for folder, seed in folders.items():
        monkeypatch.setenv("CRGAN_CACHE", f"cache_{folder}")  # trained anew, not taken from there
        words = (run, *FEW, "--seed", seed, "--out", folder, "--pixels-only")
        assert crgan("artefacts", *words)[0] == 0
    names = ("leakage", "consistency", "diversity", "memorisation")
    a, b, c = ([record(tmp_path / folder, name) for name in names] for folder in folders)
    assert a == b
    assert all(one != other for one, other in zip(a, c, strict=True))


def test_the_measurements_are_those_that_are_named(run: Path, crgan: Crgan, tmp_path: Path) -> None:
    words = ("diversity", "consistency", "--pixels-only", "--out", "new/some", *FEW)
    code, out, _ = crgan("artefacts", run, *words)
    assert code == 0
    both = {f"{name}.{kind}" for name in ("consistency", "diversity") for kind in ("json", "png")}
    assert files(tmp_path / "new" / "some") == both
    assert out.index("\nconsistency\n") < out.index("\ndiversity\n")
    assert "leakage" not in out
    assert out.endswith("numbers and plots: new/some\n")
    options_first = ("--out", "other", *FEW, "--pixels-only", "diversity")
    assert crgan("artefacts", run, *options_first)[0] == 0
    assert files(tmp_path / "other") == {"diversity.json", "diversity.png"}


def test_pixels_need_no_extractor_and_features_say_what_is_missing(
    run: Path, crgan: Crgan, tmp_path: Path
) -> None:
    gone = ("extractor=inception", "extractor.weights=gone.pth")
    pixels = ("memorisation", "diversity", *FEW, "--pixels-only", "--out", "it", *gone)
    assert crgan("artefacts", run, *pixels)[0] == 0
    expected = {"memorisation_pairs_pixels.png"} | {
        f"{name}.{kind}" for name in ("memorisation", "diversity") for kind in ("json", "png")
    }
    assert files(tmp_path / "it") == expected
    assert set(record(tmp_path / "it", "diversity")["pairs"]) == {"pixels"}
    asked = ("diversity", *FEW, "--out", "that", *gone)
    refused(crgan("artefacts", run, *asked), "gone.pth, which is not a file", "--pixels-only")
    # consistency is of D and G alone
    assert crgan("artefacts", run, "consistency", *FEW, "--out", "that", *gone)[0] == 0


@pytest.mark.usefixtures("quick_detectors")
def test_the_weights_and_the_transform_are_those_asked_for(
    run: Path, crgan: Crgan, tmp_path: Path
) -> None:
    for weights in ("ema", "raw"):
        words = ("diversity", "--weights", weights, "--pixels-only", "--out", weights, *FEW)
        assert crgan("artefacts", run, *words)[0] == 0
    ema, raw = (record(tmp_path / weights, "diversity") for weights in ("ema", "raw"))
    assert (ema.pop("generator_weights"), raw.pop("generator_weights")) == ("ema", "raw")
    assert ema != raw
    noise = ("augment=gaussian_noise", "augment.std=0.3", *FEW, "--out", "noise")
    assert crgan("artefacts", run, "leakage", *noise)[0] == 0
    transforms = record(tmp_path / "noise", "leakage")["transforms"]
    assert transforms["noise"]["transform"]["std"] == 0.3
    assert transforms["cutout"]["transform"]["size"] == 16  # the default one


def test_a_checkpoint_outside_a_run_goes_where_it_is_told(
    run: Path, crgan: Crgan, tmp_path: Path
) -> None:
    shutil.copy(run / "checkpoints" / file_name(2), tmp_path / "sent.pt")
    quick = ("diversity", "--pixels-only", *FEW)
    refused(
        crgan("artefacts", "sent.pt", *quick), "sent.pt is not in a run's folder", "--out FOLDER"
    )
    assert files(tmp_path) == {"sent.pt"}
    assert crgan("artefacts", "sent.pt", *quick, "--out", "it")[0] == 0
    assert files(tmp_path / "it") == {"diversity.json", "diversity.png"}


def test_networks_that_are_not_finite_are_not_measured(
    run: Path, crgan: Crgan, tmp_path: Path
) -> None:
    for part, prefix, name in (("ema", "", "generator"), ("task", "adversary.D.", "discriminator")):
        content = torch.load(run / "checkpoints" / file_name(2), weights_only=True)
        weights = content["states"][part]
        key = next(each for each in weights if each.startswith(prefix) and "weight" in each)
        weights[key].view(-1)[0] = float("inf")
        torch.save(content, tmp_path / "bad.pt")
        words = ("bad.pt", "diversity", "--pixels-only", "--out", "it", *FEW)
        code, _, err = crgan("artefacts", *words)
        assert code == 1
        assert f"crgan artefacts: failed: The {name} in bad.pt has weights that are not" in err
        assert not (tmp_path / "it").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUN", "memorization"], "Did you mean 'memorisation'?"),
        (["RUN", "leak"], "Did you mean 'leakage'? Measurements: leakage, consistency"),
        (["RUN", "--n", "0"], "'0' is not a whole number of at least 1"),
        (["RUN", "seed=1"], "Give only augment=, extractor=, device="),
        (["RUN", "augment.size=40"], "augment.size=40"),
        (["RUN", "metrics=demo"], "takes the run's own settings"),
        (["RUN", "--best"], "no best checkpoint"),
        (["RUN", "--out", "file"], "file is a file, so file cannot be a folder"),
        (["RUN", "--out", "file/in/it"], "file is a file, so file/in/it cannot be a folder"),
        (["gone"], "there is no file gone"),
        (["."], "no checkpoint that can be read"),
        ([], "CHECKPOINT_OR_RUN"),
    ],
)
def test_what_cannot_be_is_refused(
    words: list[str], said: str, run: Path, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    before = {path for path in run.rglob("*") if path.is_file()}
    refused(crgan("artefacts", *(run if word == "RUN" else word for word in words)), said)
    assert files(tmp_path) == {"file"}
    assert {path for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["leakage", "--n", "99"], "99 generated images are too few"),
        (["consistency", "--n", "1"], "at least 2"),
        (["diversity", "--n", "3"], "at least 4"),
        (["memorisation", "--n", "1"], "at least 2"),
        (["consistency", "--n", "401"], "400. Give at most --n 400"),
        (["memorisation", "--n", "4001"], "at most --n 4000"),
        (["diversity", "--n", "4001"], "at most --n 4000"),
    ],
)
def test_too_few_and_too_many_images_say_how_many(
    words: list[str],
    said: str,
    run: Path,
    crgan: Crgan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "401" not in words:  # a fraction of the training images is counted when they are read
        monkeypatch.setattr(measure, "load_subject", None)  # else: before anything is
    code, _, err = crgan("artefacts", run, *words, "--pixels-only", "--out", "it")
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "it").exists()


def test_leakage_of_a_small_data_set_says_what_it_needs(
    plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    code, _, err = crgan("artefacts", plain, "leakage", "--n", "100", "--out", "it")
    assert code == 2
    assert "needs at least 400 training images, and there are 100" in err
    assert "dataset.fraction" in err
    assert not (tmp_path / "it").exists()
    refused(crgan("artefacts", plain, "--weights", "ema"), "ema.decay=null")


def test_help_names_every_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.run_command(["artefacts", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for name in ("leakage", "consistency", "diversity", "memorisation", "--pixels-only"):
        assert name in shown


def test_a_number_that_is_not_finite_is_named_and_not_written(
    run: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"pairs": {"pixels": {"ratio": [1.0, float("nan")]}}}
    measurement = measure.Measurement(broken, {}, [])
    monkeypatch.setitem(measure.MEASUREMENTS, "diversity", lambda *_: measurement)
    code, _, err = crgan("artefacts", run, "diversity", "--pixels-only", *FEW, "--out", "it")
    assert code == 1
    assert "The diversity of step 2 has numbers that are not finite: pairs.pixels.ratio.1." in err
    assert not (tmp_path / "it").exists()

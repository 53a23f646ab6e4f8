"""`crgan eval`: what it computes and writes down, what it refuses, and the exit code."""

import json
import shutil
import sys
import zipfile
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from PIL import Image
from support.inceptions import local_inception
from support.run_folders import write_run
from support.runs import (
    DEMO,
    HEADLINE,
    SNGAN,
    Crgan,
    different,
    lines,
    logged,
    refused,
    train,
)
from torch_fidelity import fidelity

from crgan_cli.data.collection import ImageCollection
from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.evaluation import load, printing, sampler
from crgan_cli.evaluation.checkpoints import class_labels
from crgan_cli.evaluation.evaluator import Evaluator
from crgan_cli.evaluation.records import Evaluation
from crgan_cli.evaluation.sources import evaluate_two_folders, require_no_images
from crgan_cli.runs.checkpoint import file_name
from crgan_cli.system.numbers import format_metric

CPU_DEMO = (*DEMO, "device=cpu")
TWO = ("metrics=demo", "extractor.resolution=32", "device=cpu")  # two folders say how many


def evaluations(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("step", [2, 4])
def test_eval_gives_training_s_own_numbers_to_the_last_digit(
    step: int, scored: Path, crgan: Crgan
) -> None:
    code, out, _ = crgan("eval", scored / "checkpoints" / file_name(step))
    assert code == 0
    record = evaluations(scored)[-1]
    values = logged(scored, step)
    assert {key: record[key] for key in values} == values
    assert record["step"] == step
    assert f"at step {step}, ema weights" in out
    for name, value in values.items():
        assert f"{name:32s} {format_metric(value)}" in out
    assert logged(scored, 2)[HEADLINE] != logged(scored, 4)[HEADLINE]  # else this shows nothing


def test_a_generator_lies_in_memory_as_it_did_in_training(scored: Path) -> None:
    """Wider ones round differently in another layout, and their metrics would differ."""
    model = load.load_generator(load.find_checkpoint(scored), torch.device("cpu"), None)
    weights = [each for each in model.G.parameters() if each.dim() == 4]
    assert weights
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in weights)


def test_eval_of_a_run_is_of_its_newest_checkpoint(scored: Path, crgan: Crgan) -> None:
    before = {path: path.read_bytes() for path in scored.rglob("*") if path.is_file()}
    assert crgan("eval", scored)[0] == 0
    assert evaluations(scored)[-1]["checkpoint"] == str(scored / "checkpoints" / file_name(4))
    changed = [path.name for path, content in before.items() if path.read_bytes() != content]
    assert set(changed) <= {"evaluations.jsonl"}


def test_eval_says_by_which_protocol(scored: Path, crgan: Crgan) -> None:
    _, out, _ = crgan("eval", scored)
    protocol = evaluations(scored)[-1]["protocol"]
    of_training = json.loads((scored / "result.json").read_text())["protocol"]
    assert protocol == of_training
    assert protocol["extractor"] == "effnetlite0_32"
    assert len(protocol["extractor_sha256"]) == len(protocol["reference_sha256"]) == 64
    assert (protocol["num_real"], protocol["num_samples"]) == (8, 8)
    assert (protocol["weights"], protocol["generator_weights"]) == ("auto", "ema")
    settings = protocol.pop("measures")
    assert all(str(value) in out for value in [*protocol.values(), *settings.values()])


def test_eval_of_the_raw_weights_is_another_number(scored: Path, crgan: Crgan) -> None:
    assert crgan("eval", scored, "--weights", "raw")[0] == 0
    record = evaluations(scored)[-1]
    assert record["protocol"]["generator_weights"] == "raw"
    assert record[HEADLINE] != logged(scored, 4)[HEADLINE]


def test_eval_of_the_best_is_the_best_that_was_logged(scored: Path, crgan: Crgan) -> None:
    assert crgan("eval", "--best", scored)[0] == 0
    best = json.loads((scored / "result.json").read_text())["best"]
    record = evaluations(scored)[-1]
    assert record["checkpoint"].endswith("best.pt")
    assert (record["step"], record[HEADLINE]) == (best["step"], best[HEADLINE])
    assert record[HEADLINE] == min(logged(scored, step)[HEADLINE] for step in (2, 4))


def test_eval_takes_another_protocol(scored: Path, plain: Path, crgan: Crgan) -> None:
    newest = scored / "checkpoints" / file_name(4)
    assert crgan("eval", newest, "metrics.num_samples=6", "metrics.batch_size=4")[0] == 0
    record = evaluations(scored)[-1]
    assert record["fd_effnetlite0_32_n6"] > 0
    assert (record["protocol"]["num_samples"], record["protocol"]["num_real"]) == (6, 6)
    assert crgan("eval", plain, *DEMO, "device=cpu")[0] == 0
    assert evaluations(plain)[-1]["protocol"]["generator_weights"] == "raw"


def test_the_batch_size_of_eval_does_not_matter(scored: Path, crgan: Crgan) -> None:
    assert crgan("eval", scored, "metrics.batch_size=3")[0] == 0
    assert evaluations(scored)[-1][HEADLINE] == pytest.approx(logged(scored, 4)[HEADLINE], rel=1e-3)


def test_eval_of_a_file_outside_a_run_writes_nothing(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("of something else")
    (tmp_path / "sent").mkdir()
    shutil.copy(scored / "checkpoints" / file_name(4), tmp_path / "sent" / "model.pt")
    code, out, _ = crgan("eval", "sent/model.pt")
    assert code == 0
    assert format_metric(logged(scored, 4)[HEADLINE]) in out
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "sent"}


def test_eval_where_nothing_can_be_written_still_says_its_numbers(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(scored / "config.yaml", tmp_path / "run")
    shutil.copy(scored / "checkpoints" / file_name(4), tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "evaluations.jsonl").mkdir()
    code, out, err = crgan("eval", "run")
    assert code == 1
    assert HEADLINE in out
    assert "crgan eval: failed: the metrics above could not be added to" in err


def test_eval_without_metrics_is_refused_with_advice(plain: Path, crgan: Crgan) -> None:
    refused(crgan("eval", plain), "metrics=none", "metrics=fid10k_test")
    assert crgan("eval", plain, "metrics=none")[0] == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=3", "Give only metrics=, measure=, extractor=, device=, data_root= and"),
        ("architecture=dcgan", "takes the run's own settings"),
        ("architecture._target_=os.system", "takes the run's own settings"),
        ("metrics.num_sample=6", "Did you mean"),
        ("metrics.num_samples=0", "at least 1"),
        ("metrics.num_samples=4001", "4000"),
        ("metrics=fidd", "fid"),
        ("device=tpu", "device=tpu"),
        ("nonsense", "nonsense"),
    ],
)
def test_eval_refuses_what_is_not_its_to_change(
    override: str, said: str, scored: Path, crgan: Crgan
) -> None:
    refused(crgan("eval", scored, override), said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval"], "CHECKPOINT_OR_RUN"),
        (["eval", "gone"], "there is no file gone"),
        (["eval", "."], "no checkpoint that can be read"),
        (["eval", ".", "--best"], "no best checkpoint"),
        (["eval", "gone", "--weights", "best"], "--weights: invalid choice: 'best'"),
    ],
)
def test_what_is_not_there_is_named(words: list[str], said: str, crgan: Crgan) -> None:
    refused(crgan(*words), said)


def put(folder: Path, n: int, mode: str = "L", side: int = 32, seed: int = 0) -> Path:
    """A folder of n images of noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(n):
        shape = (side, side) if mode == "L" else (side, side, len(mode))
        pixels = random.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def zipped(folder: Path, file: Path) -> Path:
    """The files of a folder in a zip."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    return file


def bytes_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def numbers(file: Path) -> list[dict]:
    """The lines of a --json file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def without_floor(found: dict[str, float]) -> dict[str, float]:
    """Two folders have no further real images."""
    return {key: value for key, value in found.items() if not key.endswith("_floor")}


def values(record: dict) -> dict[str, float]:
    """The numbers of a line."""
    return {key: x for key, x in record.items() if isinstance(x, float)}


@pytest.fixture
def few_standing_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "STANDING_BATCHES", 5)


@pytest.fixture
def never_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is told before any image is looked at by the extractor."""

    def measured(*args: object, **kwargs: object) -> None:
        pytest.fail("this is refused too late: real images were measured first")

    monkeypatch.setattr(Evaluator, "prepare", measured)
    monkeypatch.setattr(Evaluator, "prepare_images", measured)


@pytest.fixture
def never_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong is told before the images are scored."""

    def scoring(*args: object, **kwargs: object) -> None:
        pytest.fail("this is refused too late: it was scored first")

    monkeypatch.setattr(Evaluator, "__call__", scoring)


# --- the images that were scored ---


def test_torch_fidelity_s_command_line_gives_the_numbers_of_the_exported_images(
    scored: Path,
    crgan: Crgan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "cache"))
    torch.save(local_inception().state_dict(), tmp_path / "mine.pth")
    inception = ("metrics=fid10k_test", "extractor.weights=mine.pth", "device=cpu")
    sizes = ("metrics.kid_subsets=5", "metrics.kid_subset_size=6", "metrics.is_splits=2")
    wanted = ("metrics.num_samples=8", *inception, *sizes, "--json", "ours.json")
    assert crgan("eval", scored, *wanted, "--export", "scored_images")[0] == 0
    (ours,) = numbers(tmp_path / "ours.json")

    program = ["fidelity", "--cpu", "--json", "--silent", "--save-cpu-ram"]
    sides = ["--input1", "scored_images/generated", "--input2", "scored_images/real"]
    weights = ["--feature-extractor-weights-path", "mine.pth", "--no-cache"]
    subsets = ["--kid-subsets", "5", "--kid-subset-size", "6", "--isc-splits", "2"]
    capsys.readouterr()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    words = [*program, "--isc", "--fid", "--kid", *sides, *weights, *subsets]
    monkeypatch.setattr(sys, "argv", words)
    fidelity.main()
    said = capsys.readouterr().out
    theirs = json.loads(said[said.index("{") :])
    tag = f"{ours['protocol']['extractor']}_n8"
    for key, name in {
        f"fd_{tag}": "frechet_inception_distance",
        f"is_{tag}": "inception_score_mean",
        f"is_std_{tag}": "inception_score_std",
        f"kid_{tag}": "kernel_inception_distance_mean",
        f"kid_std_{tag}": "kernel_inception_distance_std",
    }.items():
        assert ours[key] == pytest.approx(theirs[name], rel=1e-3), key
    assert ours[f"is_{tag}"] > 1.01  # alive: a constant network would agree on anything
    assert ours[f"fd_{tag}"] > 1


def test_an_exported_zip_holds_the_files_of_an_exported_folder(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    for name in ("folder", "all.zip"):
        code, out, _ = crgan("eval", scored, "--export", name)
        assert code == 0
        assert f"scored images: {name} (generated/ and real/)" in out
    with zipfile.ZipFile(tmp_path / "all.zip") as file:
        file.extractall(tmp_path / "unzipped")
    files = bytes_in(tmp_path / "folder")
    assert len(files) == 16
    assert sum(name.startswith("generated/") for name in files) == 8
    assert bytes_in(tmp_path / "unzipped") == files
    assert len(set(files.values())) == 16
    for name in ("folder", "all.zip"):
        refused(crgan("eval", "--samples", name, scored), "was written by crgan eval --export")


def test_exported_images_score_as_the_run_did(scored: Path, crgan: Crgan, tmp_path: Path) -> None:
    assert crgan("eval", scored, "--export", "images")[0] == 0
    expected = logged(scored, 4)
    zipped(tmp_path / "images" / "generated", tmp_path / "generated.zip")
    for samples in ("images/generated", "generated.zip"):
        assert crgan("eval", "--samples", samples, scored, "--json", "all.json")[0] == 0
    plainly = ("--samples", "images/generated", "dataset=demo", "dataset.fraction=0.005")
    assert crgan("eval", *plainly, *CPU_DEMO, "--json", "all.json")[0] == 0
    assert crgan("eval", "images/generated", "images/real", *TWO, "--json", "all.json")[0] == 0
    *records, two = numbers(tmp_path / "all.json")
    assert values(two) == pytest.approx(without_floor(expected), rel=1e-6)
    assert len(records) == 3
    for record in records:
        assert values(record) == pytest.approx(expected, rel=1e-6)
        assert record["protocol"]["generator_weights"] == "not known"
        assert len(record["samples_sha256"]) == 64
    assert records[0]["samples"] == "images/generated"
    ours = evaluations(scored)[-1]  # images of somebody else do not become the run's
    assert "samples" not in ours


@pytest.mark.usefixtures("never_measuring")
@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("few", "few holds 7 images, and the protocol scores 8"),
        ("few", "Give metrics.num_samples=7 metrics.repeats=1"),
        ("small", "small are 1 x 16 x 16"),
        ("colour", "colour are 3 x 32 x 32"),
        ("colour", "those of dataset=demo 1 x 32 x 32"),
    ],
)
def test_samples_that_do_not_fit_are_refused_at_once(
    folder: str, said: str, scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    put(tmp_path / "few", 7)
    put(tmp_path / "small", 8, side=16)
    put(tmp_path / "colour", 8, mode="RGB")
    refused(crgan("eval", "--samples", folder, scored), said)
    assert {path.name for path in tmp_path.iterdir()} == {"few", "small", "colour"}


def test_samples_in_sub_folders_are_of_the_classes_that_these_are_called_by() -> None:
    images = Images(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 2]))

    def labels(folders: tuple[str, ...], names: tuple[str, ...]) -> list[int]:
        return class_labels(
            Path("it"), ImageCollection(images, folders, ""), names, "this"
        ).tolist()

    assert labels(("a", "b", "c"), ("b", "c", "a")) == [2, 2, 0, 1]  # not by the alphabet
    digits = tuple(f"class {number}" for number in range(11))
    assert labels(("0", "10", "2"), digits) == [0, 0, 10, 2]  # nor is 10 class 1
    assert labels(("0", "1", "2"), ("2", "1", "0")) == [2, 2, 1, 0]  # a name before a number
    with pytest.raises(UserError, match="the sub-folder z of it is no class of this, which has a"):
        labels(("a", "b", "z"), ("a", "b", "c"))
    with pytest.raises(UserError, match="the sub-folder 3 of it"):
        labels(("0", "1", "3"), ("a", "b", "c"))


# --- two folders ---


def test_two_folders_need_not_hold_as_many_images(crgan: Crgan, tmp_path: Path) -> None:
    put(tmp_path / "a", 6)
    put(tmp_path / "b", 9, seed=1)
    zipped(tmp_path / "b", tmp_path / "c.zip")
    for pair in (("a", "b"), ("b", "a"), ("a", "c.zip")):
        assert crgan("eval", *pair, *TWO, "--json", "all.json")[0] == 0
    one, other, packed = numbers(tmp_path / "all.json")
    found = one["fd_effnetlite0_32_n6"]
    assert found > 0
    assert other["fd_effnetlite0_32_n9"] == pytest.approx(found, rel=1e-6)  # it is symmetric
    assert packed["fd_effnetlite0_32_n6"] == found
    protocol = one["protocol"]
    assert (protocol["num_samples"], protocol["num_real"]) == (6, 9)
    assert (protocol["protocol"], protocol["reference_split"]) == ("b_6_all_of9", "all")
    assert packed["protocol"]["reference_sha256"] == protocol["reference_sha256"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c.zip", "all.json"}


def test_a_folder_against_itself_is_at_no_distance(crgan: Crgan, tmp_path: Path) -> None:
    put(tmp_path / "a", 6)
    assert crgan("eval", "a", "a", *TWO, "--json", "all.json")[0] == 0
    assert numbers(tmp_path / "all.json")[0]["fd_effnetlite0_32_n6"] == pytest.approx(0, abs=1e-3)


def test_sub_folders_are_classes_where_both_call_them_alike(crgan: Crgan, tmp_path: Path) -> None:
    for seed, name in enumerate(("a/x", "a/y", "b/x", "b/y", "c/x", "c/z")):
        put(tmp_path / name, 4, seed=seed)
    classwise = (*TWO, "metrics.measures=[fid,class_fid]")
    assert crgan("eval", "a", "b", *classwise, "--json", "all.json")[0] == 0
    for name in "xy":  # a class is what its two folders give by themselves
        assert crgan("eval", f"a/{name}", f"b/{name}", *TWO, "--json", "all.json")[0] == 0
    both, x, y = numbers(tmp_path / "all.json")
    alone = [each["fd_effnetlite0_32_n4"] for each in (x, y)]
    assert [both[f"class_fd_{i}_effnetlite0_32_n8"] for i in (0, 1)] == pytest.approx(alone)
    assert both["class_fd_effnetlite0_32_n8"] == pytest.approx(fmean(alone))
    refused(crgan("eval", "a", "c", *classwise), "the sub-folder y of a is no class of c")
    refused(crgan("eval", "a", "b/x", *classwise), "is no class of b/x")
    refused(crgan("eval", "a/x", "b", *classwise), "the generated images have no classes")
    assert crgan("eval", "a", "c", *TWO)[0] == 0  # nobody asks for the classes


@pytest.mark.usefixtures("never_measuring")
@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("mixed good", "have different sizes: "),
        ("mixed good", "-resize '32x32!'"),
        ("clear good", "neither 8-bit grey nor 8-bit RGB: 000.png is RGBA"),
        ("good broken", "1 of 3 images in"),
        ("good broken", "are unreadable: 001.png"),
        ("empty good", "empty holds no file"),
        ("gone good", "there is nothing at gone"),
        ("good gone.zip", "there is nothing at gone.zip"),
        ("small good", "small are 1 x 16 x 16"),
        ("small good", "those of good 1 x 32 x 32"),
        ("one good", "a covariance needs 2"),
        ("good good dataset=demo", "'dataset=demo' has no effect with two folders"),
        ("good good metrics.num_real=2", "all those in good. Leave it out"),
        ("good good metrics.num_samples=5", "good holds 3 images, and the protocol scores 5"),
        ("good good --export it", "--export it does not go with images: it is for a run"),
        ("good good --all", "--all does not go with images"),
        ("good good --best", "--best does not go with images"),
        ("good good --weights raw", "--weights raw does not go with images"),
        ("good good good", "3 paths are too many: good good good"),
        ("good", "good holds images, and no run"),
        ("good", "crgan eval --samples good RUN"),
    ],
)
def test_images_that_cannot_be_compared_are_refused_at_once(
    pair: str, said: str, crgan: Crgan, tmp_path: Path
) -> None:
    put(tmp_path / "good", 3)
    put(tmp_path / "small", 3, side=16)
    put(tmp_path / "clear", 3, mode="RGBA")
    put(tmp_path / "one", 1)
    put(tmp_path / "broken", 3)
    (tmp_path / "broken" / "001.png").write_text("not a picture")
    put(tmp_path / "mixed", 3)
    shutil.copy(tmp_path / "small" / "000.png", tmp_path / "mixed" / "000.png")
    (tmp_path / "empty").mkdir()
    before = bytes_in(tmp_path)
    refused(crgan("eval", *pair.split(), *TWO), said)
    assert bytes_in(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 7


def test_a_run_is_not_one_of_two_folders(scored: Path, crgan: Crgan, tmp_path: Path) -> None:
    put(tmp_path / "good", 3)
    refused(crgan("eval", "good", scored, *TWO), f"{scored} is a run's", "--samples PATH")
    newest = scored / "checkpoints" / file_name(4)
    refused(crgan("eval", newest, "good", *TWO), f"{newest} is a run's", "--against")


# --- all checkpoints ---


def test_all_is_every_checkpoint_as_each_alone_and_a_curve(
    scored: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, save = [], printing.save_figure

    def keep(figure, path: Path) -> None:
        drawn.append([line.get_xydata().tolist() for line in figure.axes[0].get_lines()])
        save(figure, path)

    monkeypatch.setattr(printing, "save_figure", keep)
    before = len(evaluations(scored)) if (scored / "evaluations.jsonl").exists() else 0
    code, out, _ = crgan("eval", scored, "--all")
    assert code == 0
    two, four = evaluations(scored)[before:]
    assert (two["step"], four["step"]) == (2, 4)
    for record in (two, four):
        assert values(record) == logged(scored, record["step"])
    curve = scored / f"curve_{HEADLINE}_demo_8_test.png"
    assert f"curve: {curve}" in out
    with Image.open(curve) as picture:
        assert min(picture.size) > 200
    ((line, floor),) = drawn
    assert line == [[2.0, two[HEADLINE]], [4.0, four[HEADLINE]]]
    assert {y for _, y in floor} == {two[f"{HEADLINE}_floor"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUN", "--all", "--best"], "--all and --best do not go together"),
        (["RUN", "--all", "--export", "it"], "--all and --export do not go together"),
        (["RUN", "--all", "--against", "RUN"], "--all and --against do not go together"),
        (["FILE", "--all"], "--all asks for the checkpoints of a run"),
        (["RUN", "--samples", "it", "--weights", "raw"], "--weights raw does not go with images"),
        (["--samples", "it", "--export", "that"], "--export that does not go with images"),
        (["RUN", "RUN", "--samples", "it"], "2 paths are too many"),
        (
            ["RUN", "--weights", "raw", "metrics.weights=ema"],
            "'metrics.weights=ema' and --weights raw cannot be combined",
        ),
        (["RUN", "--weights", "raw", "metrics.weights=auto"], "both say which generator"),
        (["RUN", "--force"], "--force only works with --against"),
        (["RUN", "--json", "gone/it.json"], "--json gone/it.json"),
        (["RUN", "--json", "."], "is a folder"),
        (["RUN", "--export", "it.png"], "names one picture"),
        (["RUN", "--export", "it", "metrics.repeats=2"], "metrics.repeats=1"),
        (["RUN", "--export", "it", "metrics.rounding=none"], "metrics.rounding=uint8"),
        (["RUN", "--samples", "gone"], "gone: --samples must be a folder of images"),
    ],
)
@pytest.mark.usefixtures("never_scoring")
def test_what_does_not_go_together_is_refused_at_once(
    words: list[str], said: str, scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    places = {"RUN": scored, "FILE": scored / "checkpoints" / file_name(4)}
    refused(crgan("eval", *(places.get(word, word) for word in words)), said)
    assert not list(tmp_path.iterdir())


# --- beside others ---


def test_against_shows_both_and_the_difference(scored: Path, crgan: Crgan, tmp_path: Path) -> None:
    four, two = (scored / "checkpoints" / file_name(step) for step in (4, 2))
    assert crgan("eval", two, "--json", "two.json")[0] == 0
    shutil.copytree(scored, tmp_path / "other")
    (tmp_path / "other" / "evaluations.jsonl").unlink()  # then training's own last are taken
    a, b = logged(scored, 4)[HEADLINE], logged(scored, 2)[HEADLINE]
    for other, there in (
        (scored, b),  # its last evaluation
        ("two.json", b),
        (scored / "evaluations.jsonl", a),
        ("other", a),
    ):
        code, out, _ = crgan("eval", four, "--against", other)
        assert code == 0
        row = [HEADLINE, *map(format_metric, (a, there)), format_metric(a - there, "+")]
        assert row in list(map(str.split, out.splitlines()))
        assert "DIFFERENT" not in out


def test_numbers_of_another_protocol_are_beside_only_by_force(
    scored: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert crgan("eval", scored, "--json", "eight.json")[0] == 0
    six = ("eval", scored, "--against", "eight.json", "metrics.num_samples=6", "--json", "six.json")
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", lambda *_, **__: pytest.fail("scored first"))
        refused(crgan(*six), "different protocols", "num_samples: 6, 8", "--force")
        refused(crgan(*six[:4], "extractor.resolution=64"), "extractor: effnetlite0_64, effn")
        assert not (tmp_path / "six.json").exists()
    code, out, _ = crgan(*six, "--force")
    assert code == 0
    assert "DIFFERENT PROTOCOLS, not comparable with eight.json" in out
    assert "num_samples: 6, 8" in out
    table = list(map(str.split, out[out.index("compared with eight.json") :].splitlines()))
    ours, theirs = values(numbers(tmp_path / "six.json")[0]), logged(scored, 4)
    name = "fd_effnetlite0_32_n6"
    assert [name, format_metric(ours[name]), "-", "-"] in table
    assert [HEADLINE, "-", format_metric(theirs[HEADLINE]), "-"] in table


@pytest.mark.usefixtures("never_measuring")
def test_a_run_without_numbers_has_none_to_be_beside(
    scored: Path, plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    shutil.copytree(plain, tmp_path / "unscored", ignore=shutil.ignore_patterns("evaluations*"))
    (tmp_path / "odd.json").write_text("[1, 2]\n")
    put(tmp_path / "images", 2)
    refused(crgan("eval", scored, "--against", "unscored"), "crgan eval RUN metrics=")
    refused(crgan("eval", scored, "--against", "odd.json"), "no evaluation that can be read")
    refused(crgan("eval", scored, "--against", "images"), "no evaluation that can be read")
    refused(crgan("eval", scored, "--against", "gone"), "--against gone does not exist")


# --- protocols ---


def spoilt(run: Path, to: Path) -> Path:
    """A run's folder with a number in the average that is not finite."""
    (to / "checkpoints").mkdir(parents=True)
    shutil.copy(run / "config.yaml", to)
    content = torch.load(run / "checkpoints" / file_name(4), weights_only=True)
    name = next(name for name in content["states"]["ema"] if name.endswith("weight"))
    content["states"]["ema"][name].view(-1)[0] = float("nan")
    torch.save(content, to / "checkpoints" / file_name(4))
    return to


def test_images_that_are_not_finite_have_no_score(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    run = spoilt(scored, tmp_path / "run")
    for words in ((), ("--export", "images")):
        code, out, err = crgan("eval", run, *words)
        assert (code, out) == (1, "")
        assert "at step 4: The generator's images are not finite numbers" in err
        assert "Traceback" not in err
    assert {path.name for path in run.iterdir()} == {"config.yaml", "checkpoints"}
    assert not (tmp_path / "images").exists()


def test_a_comparison_has_all_digits_and_its_points_below_each_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = Evaluation({}, {"fid": 12.34567, "kid": 9.1234e-5}, {})
    printing.print_comparison(ours, ours._replace(values={"fid": 12.3, "kid": -0.0012}), "it")
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows] == [
        ["fid", "12.3457", "12.3000", "+0.04567"],
        ["kid", "0.00009123", "-0.001200", "+0.001291"],
    ]
    points = [[i for i, sign in enumerate(row) if sign == "."] for row in rows]
    assert points[0] == points[1]


class Half(torch.nn.Module):
    """Overflows: half precision ends at 65,504."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.half().sum((2, 3)) * 8


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_an_extractor_in_half_precision_is_the_users_to_mend(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    torch.jit.save(torch.jit.script(Half()), str(tmp_path / "half.pt"))
    typed = ("extractor=torchscript", "extractor.path=half.pt", "metrics.measures=[fid,kid]")
    before = (scored / "evaluations.jsonl").read_bytes()
    answer = crgan("eval", scored, *typed, "--json", "it.json")
    refused(
        answer, "The extractor half_", "real images", "in half precision (fp16, bf16) overflows"
    )
    assert not (tmp_path / "it.json").exists()
    assert (scored / "evaluations.jsonl").read_bytes() == before


def scored_by(run: Path, crgan: Crgan, *words: str) -> dict:
    assert crgan("eval", run, *words)[0] == 0
    return evaluations(run)[-1]


@pytest.mark.usefixtures("few_standing_batches")
def test_each_choice_of_a_protocol_moves_the_numbers_and_leaves_the_checkpoint(
    scored: Path, crgan: Crgan
) -> None:
    newest = scored / "checkpoints" / file_name(4)
    before = newest.read_bytes()
    size = "metrics.batch_size=4"
    choices = {
        "demo_8_test": (),
        "demo_8_test_unrounded": ("metrics.rounding=none",),
        "demo_8_test_psi0.5": ("metrics.truncation=0.5",),
        "demo_8_test_raw": ("metrics.weights=raw",),
        "demo_8_test_bn-batch": ("metrics.batch_norm=batch", size),
        "demo_8_test_bn-standing": ("metrics.batch_norm=standing", size),
    }
    found = {label: scored_by(scored, crgan, *words) for label, words in choices.items()}
    assert {label: each["protocol"]["protocol"] for label, each in found.items()} == {
        label: label for label in choices
    }
    assert len({each[HEADLINE] for each in found.values()}) == len(choices)
    assert found["demo_8_test_unrounded"][HEADLINE] == pytest.approx(
        found["demo_8_test"][HEADLINE], rel=0.05
    )
    assert (
        scored_by(scored, crgan, *choices["demo_8_test_bn-standing"])[HEADLINE]
        == (
            found["demo_8_test_bn-standing"][HEADLINE]  # the same latents each time
        )
    )
    assert newest.read_bytes() == before
    assert scored_by(scored, crgan)[HEADLINE] == logged(scored, 4)[HEADLINE]


def test_repeats_are_the_mean_and_the_spread_of_sets_scored_alone(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    """The sets are halves of what one set of twice the size is made from, batch by batch."""
    twice = ("metrics.num_samples=16", "metrics.batch_size=8")  # other batches round otherwise
    assert crgan("eval", scored, *twice, "--export", "both")[0] == 0
    images = sorted((tmp_path / "both" / "generated").iterdir())
    for name, half in (("first", images[:8]), ("second", images[8:])):
        (tmp_path / name).mkdir()
        for path in half:
            path.rename(tmp_path / name / path.name)
        assert crgan("eval", "--samples", name, scored, "--json", "halves.json")[0] == 0
    halves = numbers(tmp_path / "halves.json")
    code, out, _ = crgan("eval", scored, "metrics.repeats=2")
    assert code == 0
    found = evaluations(scored)[-1]
    alone = [half[HEADLINE] for half in halves]
    assert alone[0] != alone[1]
    assert found[HEADLINE] == pytest.approx(fmean(alone), rel=1e-6)
    assert found[f"{HEADLINE}_sd"] == pytest.approx(stdev(alone), rel=1e-5)
    kid = HEADLINE.replace("fd", "kid")
    assert found[kid] == pytest.approx(fmean(half[kid] for half in halves), rel=1e-6)
    assert f"{HEADLINE}_sd" in out
    assert found["protocol"]["protocol"] == "demo_8_test_x2"


@pytest.mark.usefixtures("few_standing_batches")
def test_training_by_another_protocol_logs_its_numbers_and_trains_the_same(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    """Raw weights and standing statistics, stopped at step 2 and gone on with."""
    protocol = ("metrics.weights=raw", "metrics.batch_norm=standing", "metrics.batch_size=4")
    typed = (*SNGAN, "architecture.conditional=true", "ema.decay=0.5", *protocol)
    run = tmp_path / "run"
    train(run, *typed, "steps=2")
    train(run, *typed)
    assert [line["step"] for line in lines(run, "eval")] == [2, 4]
    mine, other = (each / "checkpoints" / file_name(4) for each in (run, scored))
    changed = different(mine, other)
    assert changed
    assert all(name.startswith("/evaluate/") for name in changed)
    expected = scored_by(scored, crgan, *protocol)
    assert logged(run, 4)[HEADLINE] == expected[HEADLINE] != logged(scored, 4)[HEADLINE]
    assert json.loads((run / "result.json").read_text())["protocol"] == expected["protocol"]
    assert expected["protocol"]["generator_weights"] == "raw"


def test_an_average_that_is_not_kept_cannot_be_scored_in_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.weights=ema evaluates the averaged generator"):
        train(tmp_path / "run", *SNGAN, "metrics.weights=ema")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("samples", [False, True], ids=["run", "images"])
def test_more_real_images_than_there_are_is_said_before_an_extractor_is_there(
    samples: bool, plain: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "build_evaluator", None)
    monkeypatch.setattr("crgan_cli.evaluation.sources.read_collection", None)
    words = ["--samples", "pictures", "dataset=demo"] if samples else [plain]
    answer = crgan("eval", *words, "metrics=demo", "metrics.num_samples=4001")
    refused(answer, "num_samples=4001 is more than the 4000 images of the split test. Give")


def test_commands_to_copy_quote_the_path(tmp_path: Path) -> None:
    images, run = tmp_path / "my images", tmp_path / "my run"
    images.mkdir()
    (images / "a.png").touch()
    write_run(run, {})
    with pytest.raises(UserError) as caught:
        require_no_images(images)
    assert f"crgan eval --samples '{images}' RUN" in str(caught.value)
    assert f"crgan eval '{images}' OTHER_FOLDER" in str(caught.value)
    with pytest.raises(UserError) as caught:
        next(evaluate_two_folders(images, run, [], print))
    assert f"crgan eval '{run}' --samples PATH" in str(caught.value)

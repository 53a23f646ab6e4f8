"""The matrix: every choice of every group takes two steps through the command line.

A sweep runs once, and each test then looks at the run of one of its jobs. Most run in this process,
from the words typed to the exit code; one is a process of its own, as a user has it.
"""

import io
import itertools
import json
import math
import random
import shlex
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from data.test_data_standard import write_cifar, write_mnist
from PIL import Image
from support.architectures import GENERATION, OTHER_TASKS
from support.runs import crgan, different, lines, tiny, train, unmeasured
from torchvision import datasets

from crgan_cli.commands.main import run_command
from crgan_cli.config.choices import Choices
from crgan_cli.config.compose import compose
from crgan_cli.config.stored import from_text
from crgan_cli.data.celeba_hq import CelebAHQ
from crgan_cli.errors import UserError
from crgan_cli.gan.build import build_networks
from crgan_cli.networks.fast.fused_resample import FUSED_PAYS
from crgan_cli.training.start import train_run

GROUPS = Choices().groups
LAST = "checkpoints/step_00000002.pt"


class Expected(NamedTuple):
    """What a regularizer shows in the log."""

    terms: set[str]
    views: str


REGULARIZERS = {
    "none": Expected(set(), "real fake"),
    "cr": Expected({"cr/real"}, "real fake T(real)"),
    "bcr": Expected({"bcr/real", "bcr/fake"}, "real fake T(real) T(fake)"),
    "zcr": Expected({"zcr/dis", "zcr/gen"}, "real fake near"),
    "icr": Expected(
        {"bcr/real", "bcr/fake", "zcr/dis", "zcr/gen"}, "real fake T(real) T(fake) near"
    ),
    "gp": Expected({"gp"}, "real fake"),
    "dragan": Expected({"dragan"}, "real fake"),
    "jsr": Expected({"jsr/real", "jsr/fake"}, "real fake"),
    "r1": Expected({"r1"}, "real fake"),
    "cr_gp": Expected({"cr/real", "gp"}, "real fake T(real)"),
    "[cr,gp]": Expected({"cr/real", "gp"}, "real fake T(real)"),
    "path_length": Expected({"path_length"}, "real fake"),
    "drift": Expected({"drift"}, "real fake"),
    "gp_drift": Expected({"gp", "drift"}, "real fake"),
    "r2": Expected({"r2"}, "real fake"),
    "gp_zero": Expected({"gp_zero"}, "real fake"),
    "max_gp": Expected({"max_gp"}, "real fake"),
    "lecam": Expected({"lecam"}, "real fake"),
    "orthogonal": Expected({"orthogonal"}, "real fake"),
    "clip": Expected(set(), "real fake"),
    "top_k": Expected(set(), "real fake"),
}
AT_32 = [name for name in GENERATION if name != "resnet5"]
WITH_LABELS = Choices().with_key("architecture", "conditional")
AT_48 = ["biggan_lite", "resnet", "resnet_sngan"]
AT_64 = ["biggan_lite", "sndcgan"]
AT_128 = ["biggan", "dcgan", "resnet5", "sndcgan"]
DATASETS = ["celeba", "demo", "fashion_mnist", "mnist"]
DATASETS_WITH_CHECKSUMS = ["cifar10", "cifar100"]


def small(*overrides: str) -> list[str]:
    """A run of two steps, both logged, without metrics."""
    typed = tiny("steps=2", "log.every=1", "samples.every=2", *overrides)
    return unmeasured(typed)


class Sweep(NamedTuple):
    """What a sweep left behind."""

    folder: Path
    code: int
    said: str  # on stderr

    def runs(self) -> list[Path]:
        """The folders of its jobs."""
        return sorted(path.parent for path in self.folder.glob("*/config.yaml"))

    def run(self, *words: str) -> Path:
        """The one whose command line has all these words."""
        (found,) = (
            run
            for run in self.runs()
            if set(words) <= set(shlex.split((run / "overrides.txt").read_text()))
        )
        return found


def typed(*axes: str) -> list[str]:
    """The words of a sweep after `crgan`."""
    return ["train", "-m", *small(*axes), "hydra.sweep.dir=sweep"]


def swept(cwd: Path, *axes: str, jobs: int) -> Sweep:
    """`crgan train -m` over the axes in folder `cwd`. Every job has to succeed."""
    stderr = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setenv("CRGAN_CACHE", str(cwd / "cache"))
        with redirect_stdout(io.StringIO()), redirect_stderr(stderr):
            code = run_command(typed(*axes))
    found = Sweep(cwd / "sweep", code, stderr.getvalue())
    assert found.code == 0, found.said
    assert len(found.runs()) == jobs
    return found


def assert_two_steps(run: Path) -> list[dict]:
    """The run is whole: result, numbers, checkpoint, picture, log. Gives its numbers."""
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["step"]) == ("finished", 2)
    logged = lines(run, "train")
    assert [line["step"] for line in logged] == [1, 2]
    for line in logged:
        numbers = {key: value for key, value in line.items() if key != "kind"}
        assert [key for key, value in numbers.items() if not math.isfinite(value)] == []
        assert line["gradient_norm/d"] > 0
        assert line["gradient_norm/g"] > 0
    assert (run / "checkpoints/step_00000002.pt").is_file()
    assert (run / "samples/step_00000002.png").is_file()
    assert list((run / "tensorboard").iterdir())
    assert (run / "train.log").read_text()
    return logged


def write_pictures(folder: Path, side: int, count: int = 8) -> Path:
    """Colour noise in two sub-folders, one a class."""
    random = np.random.RandomState(0)
    for number, kind in itertools.product(range(count), ("cat", "dog")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        pixels = random.randint(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    return folder


def pictures(cwd: Path, side: int = 32) -> list[str]:
    """The settings for a folder of such images: read faster than the demo's 20,000."""
    root = write_pictures(cwd / "pictures", side)
    sizes = [f"dataset.resolution={side}", "dataset.fraction=1", "dataset.classes=2"]
    return ["dataset=folder", f"dataset.root={root}", *sizes]


# --- losses, transformations, regularizers, optimizers --------------------------------------------


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    cwd = tmp_path_factory.mktemp("losses")
    axes = [f"{group}={','.join(GROUPS[group])}" for group in ("loss", "augment")]
    jobs = len(GROUPS["loss"]) * len(GROUPS["augment"])
    return swept(cwd, *axes, *pictures(cwd), jobs=jobs)


@pytest.mark.parametrize("augment", GROUPS["augment"])
@pytest.mark.parametrize("loss", GROUPS["loss"])
def test_every_loss_trains_with_every_transformation(losses: Sweep, loss: str, augment: str):
    logged = assert_two_steps(losses.run(f"loss={loss}", f"augment={augment}"))
    assert all(line["terms/cr/real"] > 0 for line in logged)


@pytest.fixture(scope="module")
def regularizers(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    cwd = tmp_path_factory.mktemp("regularizers")
    axis = f"regularizer={','.join(REGULARIZERS)}"
    return swept(cwd, axis, *pictures(cwd), jobs=len(REGULARIZERS) - 1)  # [cr,gp] is cr_gp


def test_the_matrix_has_every_regularizer() -> None:
    of_classes = {"classification", "ac"}  # test_domain_runs and test_growing_runs train them
    assert set(GROUPS["regularizer"]) - of_classes | {"[cr,gp]"} == set(REGULARIZERS)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_every_regularizer_trains_and_logs_its_terms(regularizers: Sweep, name: str) -> None:
    run = regularizers.run(f"regularizer={'cr_gp' if name == '[cr,gp]' else name}")
    expected = {f"terms/{term}" for term in REGULARIZERS[name].terms}
    for line in assert_two_steps(run):
        terms = {key for key in line if key.startswith("terms/")}
        active = expected if name != "path_length" or line["step"] == 1 else set()  # every 4th step
        assert terms == active | {"terms/adversarial/d", "terms/adversarial/g"}
        begun_later = {"terms/lecam"}  # after 1,000 steps
        assert {term for term in terms if line[term] == 0} == terms & begun_later
        total = sum(line[term] for term in terms)
        assert total == pytest.approx(line["loss/d"] + line["loss/g"], rel=1e-5)
    views = REGULARIZERS[name].views
    plan = f"1 D call for {len(views.split())} views: {views}"
    penalised = ("gp", "gp_drift", "cr_gp", "[cr,gp]", "dragan", "jsr", "r1")
    penalised += ("r2", "gp_zero", "max_gp")
    plan += "; 1 more for a gradient, by adjoint network" if name in penalised else ""
    assert f"{plan}\n" in (run / "train.log").read_text()


def test_a_sum_typed_as_a_list_is_the_file_with_the_same_sum(regularizers: Sweep) -> None:
    listed, named = (compose([f"regularizer={name}"]) for name in ("[cr,gp]", "cr_gp"))
    assert listed == named
    assert "1 skipped" in regularizers.said  # so the sweep trained it once


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    cwd = tmp_path_factory.mktemp("both")
    axis = f"augment_both={','.join(GROUPS['augment_both'])}"
    words = ["loss=relativistic", "regularizer=[icr,r1]", *pictures(cwd)]
    return swept(cwd, axis, *words, jobs=len(GROUPS["augment_both"]))


@pytest.mark.parametrize("name", GROUPS["augment_both"])
def test_everything_that_d_sees_can_be_augmented(both: Sweep, name: str) -> None:
    logged = assert_two_steps(both.run(f"augment_both={name}"))
    assert [line.get("ada/p") for line in logged] == [0.0 if name == "ada" else None] * 2
    assert all(line["terms/bcr/fake"] > 0 for line in logged)


@pytest.fixture(scope="module")
def optimizers(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    cwd = tmp_path_factory.mktemp("optimizers")
    return swept(cwd, f"optimizer={','.join(OPTIMIZERS)}", *pictures(cwd), jobs=len(OPTIMIZERS))


@pytest.mark.parametrize("name", ["cr_c", "pix2pix"])
def test_another_name_of_adams_settings_is_the_adam_of_the_matrix(name: str) -> None:
    assert compose([f"optimizer={name}"]) == compose(["optimizer=adam"])


OPTIMIZERS = [name for name in GROUPS["optimizer"] if name not in ("cr_c", "pix2pix")]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains_at_its_rates(optimizers: Sweep, name: str) -> None:
    settings = compose([f"optimizer={name}"]).optimizer
    for step, line in enumerate(assert_two_steps(optimizers.run(f"optimizer={name}")), start=1):
        # goodfellow's falls, by 4 millionths per step
        assert line["learning_rate/g"] == pytest.approx(settings.lr_g, rel=1e-5)
        assert line["learning_rate/d"] == pytest.approx(settings.lr_d, rel=1e-5)
        assert line["images_seen"] == step * settings.n_dis * 4


def test_every_schedule_trains_with_warm_up_and_clipping(tmp_path: Path) -> None:
    """In the two steps: half the rate of a warm-up of 2, then all of it; D's own starts at once."""
    kinds = ("none", "linear", "cosine")
    words = ["optimizer.warmup=2", "optimizer.warmup_d=0", "optimizer.clip_grad_norm=1e-3"]
    axis = f"optimizer.decay={','.join(kinds)}"
    done = swept(tmp_path, axis, *words, "accumulate=2", *pictures(tmp_path), jobs=3)
    for kind, second in zip(kinds, (1.0, 0.5, 0.5), strict=True):
        logged = assert_two_steps(done.run(f"optimizer.decay={kind}"))
        assert [line["learning_rate/g"] for line in logged] == pytest.approx([1e-4, 2e-4])
        rates = [line["learning_rate/d"] for line in logged]
        assert rates == pytest.approx([2e-4, 2e-4 * second])
        assert [line["clipped/d"] for line in logged] == [1, 1]
        assert all(line["gradient_norm/d"] > 1e-3 for line in logged)


# --- architectures --------------------------------------------------------------------------------


def test_the_matrix_has_every_architecture() -> None:
    assert {*AT_32, *AT_64, *AT_128, *OTHER_TASKS} == set(GROUPS["architecture"])


@pytest.fixture(scope="module")
def at_32(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    cwd, axis = tmp_path_factory.mktemp("at_32"), f"architecture={','.join(AT_32)}"
    return swept(cwd, axis, "regularizer=icr", *pictures(cwd), jobs=len(AT_32))


@pytest.mark.parametrize("name", AT_32)
def test_every_architecture_trains_at_32_pixels(at_32: Sweep, name: str) -> None:
    assert_two_steps(at_32.run(f"architecture={name}"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    axes = [f"architecture={','.join(WITH_LABELS)}", "architecture.conditional=true,false"]
    cwd = tmp_path_factory.mktemp("labelled")
    return swept(cwd, *axes, "regularizer=icr", *pictures(cwd), jobs=2 * len(WITH_LABELS))


@pytest.mark.parametrize("conditional", ["True", "False"])
@pytest.mark.parametrize("name", WITH_LABELS)
def test_the_conditional_variants_train(labelled: Sweep, name: str, conditional: str) -> None:
    run = labelled.run(f"architecture={name}", f"architecture.conditional={conditional}")
    assert_two_steps(run)
    players = build_networks(from_text((run / "config.yaml").read_text()))
    classes = 2 if conditional == "True" else 0
    assert (players.G.classes, players.D.classes) == (classes, classes)


@pytest.mark.parametrize(("side", "names"), [(48, AT_48), (64, AT_64), (128, AT_128)])
def test_the_larger_architectures_train(tmp_path: Path, side: int, names: list[str]) -> None:
    axis = f"architecture={','.join(names)}"
    done = swept(tmp_path, axis, "batch_size=2", *pictures(tmp_path, side), jobs=len(names))
    for name in names:
        assert_two_steps(done.run(f"architecture={name}"))


# --- data sets ------------------------------------------------------------------------------------


def test_the_matrix_has_every_dataset() -> None:
    pairs = {"pairs", "demo_pairs"}  # see test_translation_runs.py
    own = {"domains", "attributes", "joint"}  # for other tasks
    others = {*own, *(f"demo_{name}" for name in own), "demo_traits", "celeba_attributes"}
    large = {"celeba_hq", "imagenet"}  # imagenet: see test_data_imagenet.py
    known = {*DATASETS, *DATASETS_WITH_CHECKSUMS, "folder", *large, *pairs, *others}
    assert known == set(GROUPS["dataset"])


def test_data_sets_train_from_files_that_are_there(tmp_path: Path) -> None:
    """Stand-ins in the official layouts; what has checksums is in the next test."""
    root = tmp_path / "data"
    write_mnist(root)
    write_mnist(root, "FashionMNIST")
    photos = root / "celeba/img_align_celeba"
    photos.mkdir(parents=True)
    for number in range(20):
        Image.new("RGB", (178, 218), (9 * number, 0, 0)).save(photos / f"{number:06}.jpg")
    rows = [f"{number:06}.jpg {2 * (number > 17)}\n" for number in range(20)]
    (root / "celeba/list_eval_partition.txt").write_text("".join(rows))
    axis = f"dataset={','.join(DATASETS)}"
    done = swept(tmp_path, axis, f"data_root={root}", "dataset.fraction=1", jobs=len(DATASETS))
    for name in DATASETS:
        assert_two_steps(done.run(f"dataset={name}"))


@pytest.mark.parametrize(("name", "key"), [("cifar10", "labels"), ("cifar100", "fine_labels")])
def test_cifar_trains_from_files_that_are_there(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, where the stand-ins' checksums can take the place of the official ones."""
    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    names = [f"class {i}" for i in range(int(name.removeprefix("cifar")))]
    monkeypatch.setattr(source, "meta", dict(source.meta))
    write_cifar(tmp_path / source.base_folder, source, key, names, monkeypatch)
    labels = ["architecture=resnet_sngan", "architecture.conditional=true"]
    words = small(f"dataset={name}", f"data_root={tmp_path}", f"out={tmp_path / 'run'}", *labels)
    words = [word for word in words if not word.startswith("dataset.fraction")]
    train_run(compose(words), words, {}, None)
    assert_two_steps(tmp_path / "run")


def test_celeba_hq_trains_from_files_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, where it may have fewer images."""
    monkeypatch.setattr(CelebAHQ, "images", 16)
    monkeypatch.setattr(CelebAHQ, "test_images", 4)
    write_pictures(tmp_path / "celeba_hq", 32)  # 16 images
    words = small("experiment=cr_celeba_hq_sndcgan", f"data_root={tmp_path}", "dataset.fraction=1")
    words += ["dataset.resolution=32", "augment.shift=4", f"out={tmp_path / 'run'}"]
    train_run(compose(words), words, {}, None)
    assert_two_steps(tmp_path / "run")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A folder, a zip of it, and a folder without images between them, in a process of its own."""
    cwd = tmp_path_factory.mktemp("own")
    write_pictures(cwd / "pictures", 40)
    shutil.make_archive(str(cwd / "pictures"), "zip", cwd / "pictures")
    (cwd / "empty").mkdir()
    axes = ["dataset=folder", "dataset.root=pictures,empty,pictures.zip", "dataset.resolution=32"]
    labels = ["dataset.classes=2", "architecture=resnet_sngan", "architecture.conditional=true"]
    words = typed(*axes, *labels, "dataset.fraction=1")
    done = crgan(*words, cwd=cwd, env={"CRGAN_CACHE": str(cwd / "cache")})
    return Sweep(cwd / "sweep", done.returncode, done.stderr)


@pytest.mark.parametrize("root", ["pictures", "pictures.zip"])
def test_a_folder_and_a_zip_of_images_train(own: Sweep, root: str) -> None:
    assert_two_steps(own.run(f"dataset.root={root}"))


def test_a_job_that_fails_is_named_and_the_others_go_on(own: Sweep) -> None:
    said = own.said
    assert own.code == 2
    assert len(own.runs()) == 2
    assert "failed: " in said
    assert "empty holds no file" in said
    summary = said[said.index("crgan train: 1 of 3 jobs failed:") :]
    assert "job 2 (" in summary
    assert "dataset.root=empty" in summary
    assert "Traceback" not in said
    assert "Warning" not in said


def test_a_failed_job_leaves_no_folder(own: Sweep) -> None:
    folders = (path for path in own.folder.iterdir() if path.is_dir())
    assert sorted(path for path in folders if path.name != ".sweep") == own.runs()


# --- a sweep of numbers ---------------------------------------------------------------------------


def test_a_sweep_of_weights_and_seeds_differs_in_just_these(tmp_path: Path) -> None:
    axes = ["regularizer.lambda_cr=1,5", "seed=1,2"]
    done = swept(tmp_path, *axes, *pictures(tmp_path), jobs=4)
    first = {}
    for weight, seed in itertools.product((1, 5), (1, 2)):
        run = done.run(f"regularizer.lambda_cr={weight}", f"seed={seed}")
        kept = from_text((run / "config.yaml").read_text())
        assert (kept.regularizer.lambda_cr, kept.seed) == (weight, seed)
        first[weight, seed] = assert_two_steps(run)[0]
    for seed in (1, 2):
        one, five = first[1, seed], first[5, seed]
        assert five["terms/cr/real"] == pytest.approx(5 * one["terms/cr/real"], rel=1e-5)
        assert five["terms/adversarial/d"] == one["terms/adversarial/d"]
    assert first[1, 1]["terms/adversarial/d"] != first[1, 2]["terms/adversarial/d"]


def test_a_job_of_a_sweep_is_a_single_run_to_the_last_bit(own: Sweep, tmp_path: Path) -> None:
    """The jobs before it in the same process leave no trace."""
    job = own.run("dataset.root=pictures.zip")
    words = shlex.split((job / "overrides.txt").read_text())[2:]
    words = [word for word in words if not word.startswith("dataset.root=")]
    words += [f"dataset.root={own.folder.parent / 'pictures.zip'}", f"out={tmp_path / 'single'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRGAN_CACHE", str(tmp_path / "cache"))
        train_run(compose(words), words, {}, None)
    assert different(job / LAST, tmp_path / "single" / LAST) == []


def test_equal_commands_give_equal_bits_whatever_the_cache_and_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run finds an empty cache; the second a full one, and a clock that jumps."""
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "cache"))

    def trained(name: str) -> dict:
        words = small("architecture=resnet", f"out={tmp_path / name}")
        train_run(compose(words), words, {}, None)
        return torch.load(tmp_path / name / LAST, weights_only=True)

    cold = trained("cold")
    jumps = random.Random(0)
    monkeypatch.setattr(time, "perf_counter", lambda: jumps.uniform(0, 1e6))
    warm = trained("warm")
    assert different(tmp_path / "cold" / LAST, tmp_path / "warm" / LAST) == []
    assert cold["states"]["engine"]["folds"] == warm["states"]["engine"]["folds"]
    assert set(cold["states"]["engine"]["folds"].values()) == {FUSED_PAYS["cpu"]}


def test_a_metric_of_classes_is_refused_before_the_first_step_of_a_model_without(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="the images of this model have no classes"):
        train(tmp_path, "metrics.measures=[kid,class_fid]")
    assert not (tmp_path / "metrics.jsonl").exists() or lines(tmp_path, "train") == []

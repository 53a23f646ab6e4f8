"""`crgan eval` and `crgan report` of runs that translate: pix2pix."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import Crgan, logged, refused

from crgan_cli.commands import main
from crgan_cli.config.compose import compose
from crgan_cli.data.dataset import build_dataset
from crgan_cli.evaluation.metrics.pairwise import NAMES, compare_pairs
from crgan_cli.evaluation.reference_images import ReferenceImages
from crgan_cli.report import plots
from crgan_cli.runs.protocol import differences
from crgan_cli.system.numbers import format_number

KID, FD = (f"{name}_effnetlite0_32_n8" for name in ("kid", "fd"))
SMALL = ("extractor.resolution=32", "metrics.measures=[kid]", "device=cpu")
EIGHT = (*SMALL, "metrics.num_samples=8")
PAIRWISE = {name + end for name in NAMES for end in ("", "_of_input", "_of_mean")}


def scores(crgan: Crgan, *words: object) -> tuple[dict, str]:
    """The last numbers of `crgan eval WORDS`, and what it said on standard error."""
    Path("numbers.json").unlink(missing_ok=True)
    code, _, err = crgan("eval", *words, "--json", "numbers.json")
    assert code == 0, err
    return json.loads(Path("numbers.json").read_text().splitlines()[-1]), err


def folder(path: Path) -> torch.Tensor:
    """(N, 1, H, W): the grey images of a folder, by name."""
    pictures = [np.asarray(Image.open(each)) for each in sorted(path.iterdir())]
    return torch.from_numpy(np.stack(pictures))[:, None]


@pytest.fixture(scope="module")
def exported(translator: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The scored images of the newest checkpoint, and its numbers."""
    out = tmp_path_factory.mktemp("exported")
    words = ["eval", translator, "--export", out / "images", "--json", out / "numbers.json"]
    assert main.run_command([str(word) for word in words]) == 0
    return out / "images", json.loads((out / "numbers.json").read_text())


def test_eval_gives_training_s_own_numbers_of_each_pair(
    translator: Path, exported: tuple[Path, dict]
) -> None:
    images, record = exported
    expected = logged(translator, 4)
    assert {key: record[key] for key in expected} == expected
    assert expected.keys() == {KID} | PAIRWISE
    assert next(iter(expected)) == KID
    protocol = record["protocol"]
    assert protocol["protocol"] == "demopairs_8_test_bn-batch_dropout"
    assert (protocol["batch_norm"], protocol["dropout"]) == ("batch", "on")
    generated, targets = folder(images / "generated"), folder(images / "real")
    by_hand = compare_pairs(generated, targets).mean(0).tolist()
    assert [record[name] for name in NAMES] == pytest.approx(by_hand)


def test_the_exported_reals_are_the_targets_and_the_baselines_are_by_hand(
    exported: tuple[Path, dict],
) -> None:
    images, record = exported
    data = build_dataset(compose(["experiment=demo_pix2pix", "dataset.fraction=0.005"]))
    inputs, targets = (
        ReferenceImages(data, "test", 8, view).images.x for view in ("input", "target")
    )
    assert torch.equal(folder(images / "real"), targets)
    mean = data.load_views("train")["target"].x.double().mean(0, keepdim=True).expand(8, -1, -1, -1)
    for answer, end in ((inputs, "_of_input"), (mean, "_of_mean")):
        by_hand = compare_pairs(answer, targets).mean(0).tolist()
        assert [record[name + end] for name in NAMES] == pytest.approx(by_hand)


def test_all_checkpoints_the_best_and_another_protocol(translator: Path, crgan: Crgan) -> None:
    code, out, _ = crgan("eval", translator, "--all")
    assert code == 0
    assert f"curve: {translator / f'curve_{KID}_demopairs_8_test_bn-batch_dropout.png'}" in out
    (translator / f"curve_{KID}_demopairs_8_test_bn-batch_dropout.png").unlink()
    best, _ = scores(crgan, translator, "--best")
    assert best[KID] == min(logged(translator, step)[KID] for step in (2, 4))
    quiet, _ = scores(crgan, translator, 'metrics.dropout="off"')
    assert quiet["l1"] != logged(translator, quiet["step"])["l1"]
    demo, _ = scores(crgan, translator, "metrics=demo", *EIGHT[:1], *EIGHT[2:])
    assert demo["protocol"]["protocol"] == "demopairs_8_test"  # running means, no dropout
    assert demo[f"{FD}_floor"] > 0
    assert not PAIRWISE & demo.keys()


def test_translations_do_not_depend_on_the_batch_and_so_compare_whatever_it_is(
    translator: Path, exported: tuple[Path, dict], crgan: Crgan
) -> None:
    found, _ = scores(crgan, translator, "metrics.batch_size=3")
    assert "batch_size" not in found["protocol"]
    assert not differences(found["protocol"], exported[1]["protocol"])
    assert found[KID] == pytest.approx(exported[1][KID], abs=1e-6)


def test_files_are_compared_as_sets_with_the_targets(
    translator: Path, exported: tuple[Path, dict], crgan: Crgan
) -> None:
    images, record = exported
    data = ("dataset=demo_pairs", *EIGHT)
    for given in ((translator,), data):
        found, said = scores(crgan, "--samples", images / "generated", *given)
        assert found.keys() > {KID}
        assert not PAIRWISE & found.keys()
        assert "compared as a set, without l1, psnr and ssim" in said
        assert found[KID] == pytest.approx(record[KID], abs=1e-6)
        assert found["protocol"]["dropout"] == "not known"
    two, _ = scores(crgan, images / "generated", images / "real", "metrics=pairs", *SMALL)
    assert two[KID] == pytest.approx(record[KID], abs=1e-6)
    few = (*data[:2], "device=cpu")  # all 4,000
    refused(
        crgan("eval", "--samples", images / "generated", *few),
        "holds 8 images, and the protocol scores 4000",
        "metrics.num_samples=8",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metrics.repeats=2"], "metrics.repeats=1"),
        (["metrics.batch_norm=standing"], "metrics.batch_norm=batch or running"),
        (["metrics.truncation=0.5"], "metrics.truncation=null"),
        (["metrics=demo", "metrics.num_samples=4001"], "Give metrics.num_samples=4000 or less"),
        (["metrics=demo", "metrics.repeats=3"], "or metrics=pairs"),
    ],
)
def test_a_protocol_of_latents_is_refused(
    words: list[str], said: str, translator: Path, crgan: Crgan
) -> None:
    refused(crgan("eval", translator, *words, "device=cpu"), said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metrics=pairs"], "this data set has no pairs. Type metrics=demo, or dataset=pairs"),
        (["task=pix2pix"], "task=pix2pix needs pairs of images, and this data set has none"),
        (["architecture=unet"], "or task=pix2pix for one that translates images"),
        (["dataset=demo_pairs"], "Type task=pix2pix architecture=unet"),
        (["dataset=demo_pairs", "task=pix2pix"], "type an architecture for it, such as arch"),
        (["PAIRS", "optimizer.n_dis=5"], "Type optimizer.n_dis=1"),
        (["PAIRS", "regularizer=zcr"], "regularizer=zcr works on latents, and Pix2Pix has none"),
        (["PAIRS", "regularizer=icr"], "works on latents, and Pix2Pix has none"),
        (["PAIRS", "regularizer=path_length"], "works on latents, and Pix2Pix has none"),
        (["PAIRS", "architecture.d_layers=5"], "Use architecture.d_layers=3"),
        (["PAIRS", "metrics.repeats=2"], "metrics.repeats=1"),
        (["PAIRS", "metrics=fid10k_test", "extractor=efficientnet_lite0",
          "metrics.measures=[fid]"], "Give metrics.num_samples=4000 or less"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused_by_train(
    words: list[str], said: str, crgan: Crgan, tmp_path: Path
) -> None:
    pairs = ["dataset=demo_pairs", "task=pix2pix", "architecture=unet", "regularizer=none"]
    typed = ["device=cpu", "batch_size=4", "dataset.fraction=0.005", "out=run"]
    if not any(word.startswith("metrics") for word in words):
        typed.append("metrics=none")
    words = [each for word in words for each in (pairs if word == "PAIRS" else [word])]
    refused(crgan("train", *words, *typed), said)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_of_single_images_has_no_pairs(crgan: Crgan, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    typed = ["dataset=folder", "dataset.root=photos", "task=pix2pix", "metrics=none"]
    refused(crgan("train", *typed), "task=pix2pix needs pairs of images", "dataset=pairs")
    for number in range(4):
        Image.new("RGB", (32, 32)).save(tmp_path / "photos" / f"{number}.png")
    refused(crgan("train", *typed, "dataset.resolution=32"), "dataset=pairs dataset.root=PATH")


def test_a_report_leads_with_kid_and_ranks_each_number_by_its_direction(
    translator: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = tmp_path / "worse"
    shutil.copytree(translator, worse)
    config = (worse / "config.yaml").read_text()
    (worse / "config.yaml").write_text(config.replace("lambda_l1: 100.0", "lambda_l1: 1.0"))
    text = [json.loads(line) for line in (worse / "metrics.jsonl").read_text().splitlines()]
    for line in text:
        if line["kind"] == "eval":
            line |= {KID: line[KID] + 1, "psnr": line["psnr"] + 5, "l1": line["l1"] - 0.1}
    (worse / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in text))
    drawn: dict[str, list[str]] = {}
    save = plots.save_figure

    def keep(figure, path: Path, *more: object) -> None:
        drawn[path.stem] = [
            str(line.get_label()) for axes in figure.axes for line in axes.get_lines()
        ]
        save(figure, path, *more)

    monkeypatch.setattr(plots, "save_figure", keep)
    code, out, err = crgan("report", worse, translator, "--out", "report")
    assert code == 0, err
    head, _, first, second = out.splitlines()[2:6]
    titles = [f"{KID} ↓", "l1 ↓", "psnr ↑", "ssim ↑"]
    places = [head.index(title) for title in titles]
    assert places == sorted(places)
    assert "of_input" not in head
    assert (first.split()[0], second.split()[0]) == ("lambda_l1=100", "lambda_l1=1")  # by kid
    of_mean = logged(translator, 4)["l1_of_mean"]
    assert f"l1_of_mean {format_number(of_mean)}: the mean training target as the answer" in out
    assert "psnr_of_input" in out
    assert "the mean training target as the answer" in drawn["metrics"]

"""`crgan train`, `eval`, `report` and `translate` of runs that translate both ways."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import PIX2PIX, Crgan, lines, refused
from torch import Tensor

from crgan_cli.commands import main
from crgan_cli.data.standard import FASHION_NAMES
from crgan_cli.errors import UserError
from crgan_cli.evaluation import load, translate
from crgan_cli.gan.labels import LabelGroup, Labels
from crgan_cli.gan.tasks.base import GeneratedView
from crgan_cli.gan.tasks.pix2pix import Pix2Pix
from crgan_cli.gan.tasks.stored_values import allow_none, is_groups_of_names, is_names
from crgan_cli.gan.types import Verdict

KID = "kid_effnetlite0_32_n8"


def both_ways(*_: object) -> dict[str, GeneratedView]:
    """Pix2pix as if it were a CycleGAN: one G for both directions."""

    def draw(G: torch.nn.Module, batch: Any) -> Tensor:
        return G(batch.x)

    there, again = ("input", "target"), ("target", "input")
    return {
        name: GeneratedView(draw, source=source, target=target, back=draw, in_channels=1)
        for name, (source, target) in {"b": there, "a": again}.items()
    }


@pytest.fixture(autouse=True)
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pix2Pix, "draws", both_ways)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with metrics and grids of both directions at steps 2 and 4."""
    out = tmp_path_factory.mktemp("domains") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pix2Pix, "draws", both_ways)
        words = [word for word in PIX2PIX if not word.startswith("metrics.num_samples")]
        typed = ["metrics=domains", "metrics.num_samples=8", "metrics.num_real=8"]
        assert main.run_command(["train", *words, *typed, f"out={out}"]) == 0
    return out


def test_training_logs_both_directions_and_their_mean(run: Path) -> None:
    for line in lines(run, "eval"):
        assert line[KID] == pytest.approx((line[f"{KID}_to_a"] + line[f"{KID}_to_b"]) / 2)
        for key in ("cycle_error", "identity_error"):
            assert line[key] == pytest.approx((line[f"{key}_to_a"] + line[f"{key}_to_b"]) / 2)
            assert line[key] > 0
        assert {f"{KID}_of_input", f"{KID}_of_input_to_a"} <= line.keys()
    result = json.loads((run / "result.json").read_text())
    assert result["protocol"]["headline"] == KID
    assert result["protocol"]["headline_is"] == "the mean over the translations to b, a"
    assert result["best"][KID] == min(line[KID] for line in lines(run, "eval"))
    with Image.open(run / "samples/step_00000004.png") as grid:
        assert grid.size == (6 * 34 + 2, 4 * 34 + 2)  # a | b' | a'' | b | a' | b'', 4 images


def test_eval_gives_training_s_numbers_and_exports_each_direction(run: Path, crgan: Crgan) -> None:
    code, out, err = crgan("eval", run, "--export", "scored", "--json", "numbers.json")
    assert code == 0, err
    record = json.loads(Path("numbers.json").read_text())
    (expected,) = (line for line in lines(run, "eval") if line["step"] == 4)
    for key in expected.keys() - {"kind", "step", "images_seen"}:
        assert record[key] == expected[key], key
    assert "headline_is" in out
    for kind in ("generated", "real"):
        for name in ("a", "b"):
            assert len(list(Path("scored", kind, name).iterdir())) == 8
    code, out, err = crgan("eval", "scored/generated/b", "scored/real/b", "metrics=domains",
                           "extractor.resolution=32", "metrics.measures=[kid]", "device=cpu",
                           "--json", "two.json")  # fmt: skip
    assert code == 0, err
    two = json.loads(Path("two.json").read_text())
    assert two[KID] == pytest.approx(expected[f"{KID}_to_b"], abs=1e-6)
    assert crgan("eval", run, "--against", run)[0] == 0
    code, out, _ = crgan("eval", run, "--all")
    assert code == 0
    assert "_mean-of-2.png" in out


def test_a_failed_export_leaves_nothing(
    run: Path, crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crgan_cli.evaluation.domains.DomainsEvaluator.real_images", fail)
    assert crgan("eval", run, "--export", "scored")[0] == 2
    assert not Path("scored").exists()


def fail(*_: object) -> None:
    raise UserError("no")


def test_a_report_shows_the_means_and_not_each_domain(run: Path, crgan: Crgan) -> None:
    code, out, err = crgan("report", run, "--out", "report")
    assert code == 0, err
    assert f"{KID} ↓" in out
    assert "cycle_error ↓" in out
    assert "cycle_error_to_a" not in out
    assert f"{KID}_of_input" in out


def test_other_protocols_and_files_are_refused(run: Path, crgan: Crgan, tmp_path: Path) -> None:
    said = "the run translates to b, a. Type metrics=domains, or metrics=none."
    refused(crgan("eval", run, "metrics=demo", "metrics.num_samples=8", "device=cpu"), said)
    refused(crgan("train", *PIX2PIX, "out=other"), said)  # metrics=pairs
    assert not list(tmp_path.rglob("*.pt"))
    Image.new("L", (32, 32)).save(tmp_path / "0.png")
    (tmp_path / "images").mkdir()
    Image.new("L", (32, 32)).save(tmp_path / "images/0.png")
    refused(crgan("eval", run, "--samples", "images"), "crgan eval GENERATED REAL")


def test_metrics_domains_is_refused_for_latents(plain: Path, crgan: Crgan) -> None:
    said = "this run draws images from latents. Type metrics=demo"
    refused(crgan("eval", plain, "metrics=domains", "device=cpu"), said)


def test_translate_asks_for_one_of_the_names_there_are(run: Path, crgan: Crgan) -> None:
    Image.fromarray(np.full((32, 32), 90, np.uint8)).save("in.png")
    for name in ("a", "b"):
        code, _, err = crgan("translate", run, "in.png", "--to", name, "--out", f"{name}.png")
        assert code == 0, err
    words = ("translate", run, "in.png", "--out", "o.png")
    names = "Type --to b or --to a."
    refused(crgan(*words), "there are several translations", names)
    refused(crgan(*words, "--to", "c"), "there is no translation --to c", names)


# --- labels ---


def test_labels_of_files_are_estimated_by_d_on_the_central_square(
    run: Path, monkeypatch: pytest.MonkeyPatch, crgan: Crgan
) -> None:
    """A D that sees "bright" and "grey" gets a square of the run's size; G gets its labels."""
    given: dict[str, Tensor] = {}

    class D(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor | None) -> Verdict:
            given["x"] = x
            bright = x.mean((1, 2, 3))
            return Verdict(bright, torch.stack([bright, -x.std((1, 2, 3)) + 0.1], 1))

    def draw(G: torch.nn.Module, batch: Any) -> Tensor:
        given["y"] = batch.y
        return batch.x

    def views(cls: type, config: Mapping[str, Any], names: object = ()) -> dict[str, GeneratedView]:
        return {"Bright": GeneratedView(draw, source="real", in_channels=1, needs_labels=True)}

    labels = Labels([LabelGroup("attributes", ("Bright", "Grey"))])
    monkeypatch.setattr(Pix2Pix, "draws", classmethod(views))
    monkeypatch.setattr(translate, "load_discriminator", lambda checkpoint, device: D())
    monkeypatch.setattr(Labels, "from_settings", lambda dataset, names: labels)
    pixels = np.full((64, 96), 200, np.uint8)
    pixels[:, :10] = pixels[:, -10:] = 0  # outside of the square
    Image.fromarray(pixels).save("in.png")
    code, said, err = crgan("translate", run, "in.png", "--out", "o.png", "--device", "cpu")
    assert code == 0, err
    assert "labels of the inputs estimated by D" in said
    assert given["x"].shape == (1, 1, 32, 32)
    assert given["y"].tolist() == [[1, 1]]
    assert (np.asarray(Image.open("o.png")) == pixels).all()


def test_what_a_classifier_says_is_written_as_the_data_sets_do() -> None:
    classes, attributes = LabelGroup("classes", ("x", "y")), LabelGroup("attributes", ("p", "q"))
    logits = torch.tensor([[2.0, 1.0, -1.0, 3.0], [-2.0, -1.0, 1.0, 0.0]])
    assert Labels([classes]).decide(logits[:, :2]).tolist() == [0, 1]
    assert Labels([attributes]).decide(logits[:, 2:]).tolist() == [[0, 1], [1, 0]]
    joint = Labels([classes, attributes])
    found = joint.decide(logits)
    assert found.tolist() == [[1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1]]
    assert torch.equal(joint.encode(found), found.float())


# --- what is read of a checkpoint ---


def test_only_the_values_that_a_task_names_are_read_and_each_is_checked() -> None:
    wanted = {
        "dataset.attributes": allow_none(is_names),
        "dataset.exclusive": is_groups_of_names,
        "dataset.parts.*.attributes": is_names,
    }
    stored = {
        "dataset.attributes": None,
        "dataset.exclusive": [["black", "blond"]],
        "dataset.parts.celeba.attributes": ["black"],
        "dataset.parts.celeba.root": "/etc/passwd",
        "dataset.parts.a.b.attributes": 3,
        "dataset.root": "/etc/passwd",
    }
    found = dict(load.select_values(stored, wanted, "it"))
    assert found == {key: stored[key] for key in list(stored)[:3]}
    for key, value in (("dataset.attributes", "text"), ("dataset.exclusive", ["black"])):
        with pytest.raises(UserError, match=rf"it is damaged: {key} cannot be"):
            list(load.select_values({key: value}, wanted, "it"))


def test_a_checkpoint_tells_the_names_of_classes(plain: Path) -> None:
    found = load.find_checkpoint(plain)
    model = load.load_generator(found, torch.device("cpu"), None)
    assert model.class_names == FASHION_NAMES
    del found.content["class_names"]
    assert load.load_generator(found, torch.device("cpu"), None).class_names == ()

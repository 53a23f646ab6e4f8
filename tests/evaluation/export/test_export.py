"""`crgan export`: the files give crgan's images, in other programs too."""

import os
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from support.runs import TINY, Crgan, refused
from torch import nn

import crgan_cli
from crgan_cli.commands import main
from crgan_cli.commands.export import NEEDED
from crgan_cli.config.compose import RUN_PATHS
from crgan_cli.evaluation.export import plain as plain_form
from crgan_cli.evaluation.export.card import describe_images
from crgan_cli.evaluation.export.formats import FORMATS, TorchScriptFile, quiet_jit
from crgan_cli.evaluation.export.plain import FromImages, FromLatents, make_plain, plan_export
from crgan_cli.evaluation.load import find_checkpoint, load_generator
from crgan_cli.networks.fast.spectral import spectral_norm
from crgan_cli.runs.folder import RunDir
from crgan_cli.system.numbers import format_metric

ROOT = Path(crgan_cli.__file__).parents[1]


def train_tiny(out: Path, *words: str) -> Path:
    """A run of one step without metrics."""
    left_out = ("metrics", "extractor", "steps", "samples.every")
    small = [word for word in TINY if not word.startswith(left_out)]
    typed = [*small, "steps=1", "samples.every=1", "metrics=none", *words, f"out={out}"]
    assert main.run_command(["train", *typed]) == 0
    return out


def run_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Run the Python of a model card beside it; return its names."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (folder / "README.md").read_text(), re.M | re.S)
    names: dict = {}
    monkeypatch.chdir(folder)
    with quiet_jit():
        exec(code, names)
    return names


def test_every_format_can_be_typed() -> None:
    assert NEEDED.keys() == FORMATS.keys()
    extras = (ROOT / "pyproject.toml").read_text()
    for name, packages in NEEDED.items():
        line = re.search(rf"^{name} = (.*)$", extras, re.M)
        assert re.findall(r'"([a-z]+)>=', line[1] if line else "") == list(packages)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_gives_the_images_of_the_generator(
    kind: str, scored: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded by the code of its card, for 4 images, which is no size that was recorded."""
    code, out, err = crgan("export", scored, "--to", kind)
    assert (code, err) == (0, "")
    folder = tmp_path / f"export_{kind}"
    file = FORMATS[kind].file
    assert {path.name for path in folder.iterdir()} == {file, "README.md", "samples.png"}
    said = re.search(r"ema weights; its images differ from crgan's by at most ([\d.e-]+)", out)
    assert said
    assert float(said[1]) <= 1e-5
    card = (folder / "README.md").read_text()
    assert f"difference of a value is {said[1]}" in card
    last = RunDir(scored).read_result()["last"]["fd_effnetlite0_32_n8"]
    assert f"| `fd_effnetlite0_32_n8` | {format_metric(last)} |" in card
    assert "| dataset | demo |" in card
    assert "of the training images: not known, **state it here" in card
    for path in folder.iterdir():  # nor of anything else on this machine
        assert os.fsencode(ROOT / "crgan_cli") not in path.read_bytes()
    found = run_card(folder, monkeypatch)
    model = crgan_cli.load(scored, device="cpu")
    images = model.G(torch.from_numpy(found["z"]), torch.from_numpy(found["y"]))
    assert found["images"].shape == (4, 1, 32, 32)
    assert np.abs(found["images"] - images.numpy()).max() <= 1e-5
    assert images.std() > 0.01


@pytest.mark.parametrize("kind", ["torchscript", "safetensors"])
def test_a_translation_is_that_of_single_images(
    kind: str, translator: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm of a batch of one, in batches of 4; and the run's own grid."""
    assert crgan("export", translator, "--to", kind, "--out", "here")[0] == 0
    found = run_card(tmp_path / "here", monkeypatch)
    x = ((found["x"] + 1) * 127.5).round().astype(np.uint8)
    model = crgan_cli.load(translator, device="cpu")
    expected = model.translate(torch.from_numpy(x), dropout="off").numpy()
    with torch.no_grad():
        shown = FORMATS[kind].open(tmp_path / "here" / FORMATS[kind].file)(
            torch.from_numpy(x).float() / 127.5 - 1
        )
    assert np.abs((shown.numpy() + 1) * 127.5 - expected).max() <= 0.51
    newest = max((translator / "samples").iterdir())
    assert (tmp_path / "here/samples.png").read_bytes() == newest.read_bytes()


def test_onnx_keeps_the_small_numbers_of_pixel_norm(
    crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With images of about 1e-4 the 1e-8 under its root counts."""
    run = train_tiny(tmp_path / "run", "experiment=demo_pggan")
    code, out, _ = crgan("export", run, "--to", "onnx")
    assert code == 0, out
    inputs = onnxruntime.InferenceSession("export_onnx/generator.onnx").get_inputs()
    assert [(each.name, each.shape[1:]) for each in inputs] == [("z", [64])]
    assert crgan("export", run, "--to", "torchscript")[0] == 0
    assert "| grown to | 4 of 32 pixels" in Path("export_torchscript/README.md").read_text()


def test_a_run_with_several_translations_exports_the_one_that_is_named(
    crgan: Crgan, tmp_path: Path
) -> None:
    run = train_tiny(tmp_path / "run", "experiment=demo_cyclegan")
    refused(crgan("export", run, "--to", "torchscript"), "Type --translation b or --translation a")
    assert crgan("export", run, "--to", "safetensors", "--translation", "a")[0] == 0
    G = FORMATS["safetensors"].open(Path("export_safetensors/generator.safetensors"))
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    model = crgan_cli.load(run, device="cpu")
    assert torch.allclose(G(x), model.G.get_submodule("ba")(x), atol=1e-5)
    assert not torch.allclose(G(x), model.G.get_submodule("ab")(x), atol=1e-3)


def test_labels_are_an_input_of_an_exported_stargan(crgan: Crgan, tmp_path: Path) -> None:
    run = train_tiny(tmp_path / "run", "experiment=demo_stargan")
    refused(crgan("export", run, "--to", "torchscript", "--translation", "bag"), "Leave out")
    assert crgan("export", run, "--to", "torchscript")[0] == 0
    G = FORMATS["torchscript"].open(Path("export_torchscript/generator.torchscript"))
    x, c = torch.rand(2, 1, 32, 32) * 2 - 1, torch.eye(5)[:2]
    assert torch.allclose(G(x, c), crgan_cli.load(run, device="cpu").G(x, c), atol=1e-5)
    assert "trouser, dress" in Path("export_torchscript/README.md").read_text()


# --- what is refused ------------------------------------------------------------------------------


def test_a_missing_package_is_named_before_anything_is_read(
    crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crgan_cli.commands.export.find_spec", lambda name: None)
    said = ("onnx and onnxscript and onnxruntime is not installed", "pip install 'crgan[onnx]'")
    refused(crgan("export", "no such run", "--to", "onnx"), *said)
    refused(crgan("export", "gone", "--to", "safetensors"), "pip install 'crgan[safetensors]'")
    refused(crgan("export", "gone", "--to", "torchscript"), "no file gone")


def test_nothing_is_overwritten(scored: Path, crgan: Crgan, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("mine")
    typed = ["export", scored, "--to", "torchscript", "--out", "kept"]
    refused(crgan(*typed), "not an empty folder")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_file_with_other_images_is_not_left_behind(
    scored: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = TorchScriptFile.open

    def wrong(self: TorchScriptFile, path: Path) -> plain_form.Compute:
        compute = honest(self, path)
        return lambda z, y: compute(z, y) + (2e-5 if len(z) == 1 else 0)  # in one batch only

    monkeypatch.setattr(TorchScriptFile, "open", wrong)
    code, out, err = crgan("export", scored, "--to", "torchscript")
    assert (code, out) == (1, "")
    assert re.search(r"differ from crgan's by 2\.\de-05, and 1e-05 is allowed", err)
    assert list(tmp_path.iterdir()) == []


def test_a_safetensors_file_of_another_program_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(crgan_cli.UserError, match="not written by crgan export"):
        FORMATS["safetensors"].open(tmp_path / "other.safetensors")


# --- the plain form -------------------------------------------------------------------------------


def test_a_spectral_norm_is_divided_out() -> None:
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(5, 4)).eval()
    W = layer.parametrizations.weight.original.detach().clone()  # type: ignore[union-attr]
    z, before = torch.randn(3, 5), layer.weight.detach().clone()
    network = FromLatents(Ignoring(layer))
    images = network(z)
    make_plain(network, "running")
    assert dict(layer.named_parameters()).keys() == {"weight", "bias"}
    assert torch.equal(layer.weight, before)
    assert torch.allclose(layer.weight, W / torch.linalg.matrix_norm(W, 2), atol=1e-2)
    assert torch.equal(network(z), images)


class Ignoring(nn.Module):
    """A layer that is given labels and has no use for them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        return self.layer(z)


def test_batch_norm_of_each_image_alone_is_instance_norm() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(4, 3, 5, 5)
    alone = torch.cat([norm.train()(row) for row in x.split(1)]).detach()
    network = FromImages(nn.Sequential(norm))
    make_plain(network, "batch")
    assert torch.allclose(network(x), alone, atol=1e-6)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def test_the_weights_that_are_asked_for_are_exported(scored: Path, crgan: Crgan) -> None:
    typed = ["--to", "safetensors", "--weights", "raw", "--best", "--out"]
    assert crgan("export", scored, *typed, "raw")[0] == 0
    G = FORMATS["safetensors"].open(Path("raw/generator.safetensors"))
    best = find_checkpoint(scored, best=True)
    expected = load_generator(best, torch.device("cpu"), "raw").G
    z, y = torch.randn(2, 128), torch.tensor([1, 2])
    assert torch.allclose(G(z, y), expected(z, y), atol=1e-5)
    assert f"| steps | {best.content['step']}," in Path("raw/README.md").read_text()


def test_the_metadata_of_safetensors_name_no_path_of_a_run(scored: Path, tmp_path: Path) -> None:
    model = load_generator(find_checkpoint(scored), torch.device("cpu"), None)
    for key in RUN_PATHS:
        model.config[key] = "/my/folder"
    file = tmp_path / "G.safetensors"
    FORMATS["safetensors"].write(plan_export(model, None), model, file)
    assert b"init_from: null" in (content := file.read_bytes()).replace(b"\\n", b"\n")
    assert b"/my/folder" not in content
    assert os.fsencode(scored.parent) not in content


def test_an_empty_folder_is_filled_also_the_one_where_the_user_is(
    scored: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, _, err = crgan("export", scored, "--to", "safetensors", "--out", ".")
    assert code == 0, err
    assert {path.name for path in Path.cwd().iterdir()} == {
        "generator.safetensors",
        "README.md",
        "samples.png",
    }


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"channels": 3, "classes": 10}, "32x32, 3 channels, 10 classes"),
        ({"channels": 1, "classes": 1}, "32x32, 1 channel, 1 class"),
        (
            {"channels": 4, "channels_in": 1, "channels_out": 3, "classes": 0},
            "32x32, pairs of 1 channel and 3 channels, no classes",
        ),
    ],
)
def test_a_card_counts_channels_and_classes(data: dict, said: str) -> None:
    assert describe_images({"resolution": 32, **data}) == said

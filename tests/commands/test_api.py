"""The same in Python as on the command line: the same bits, numbers and words."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from support.runs import SNGAN, TINY, Crgan, different, tiny, unmeasured

import crgan_cli as crgan_api
from crgan_cli.commands import main
from crgan_cli.commands.api import compare_runs
from crgan_cli.errors import RunFailed, UserError, spell_for_python, spelled_for_python
from crgan_cli.evaluation import sources
from crgan_cli.experiments import launch
from crgan_cli.report import rows


def pictures(folder: Path) -> torch.Tensor:
    """The PNGs of a folder in order, (N, C, H, W) uint8."""
    arrays = [np.atleast_3d(np.array(Image.open(path))) for path in sorted(folder.iterdir())]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def test_importing_the_package_imports_no_torch_and_lists_what_it_offers() -> None:
    code = (
        "import sys, crgan_cli; print('torch' in sys.modules, 'hydra' in sys.modules,"
        "callable(crgan_cli.report), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False True False\n"
    assert all(getattr(crgan_api, name) for name in crgan_api.__all__)


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "options"),
    [
        ([], {}),
        (
            ["--classes", "shirt,3", "--truncation", "0.7", "--seed", "5", "--batch-size", "4"],
            {"classes": ["shirt", 3], "truncation": 0.7, "seed": 5, "batch_size": 4},
        ),
        (["--interpolate", "3"], {"interpolate": 3}),
        (["--interpolate", "4"], {"interpolate": 4}),
    ],
)
def test_sample_draws_the_pixels_of_the_command(
    typed: list[str], options: dict, scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    assert crgan("sample", scored, "--n", 6, *typed, "--device", "cpu", "--out", "images")[0] == 0
    images = crgan_api.load(scored, device="cpu").sample(6, **options)
    assert images.dtype == torch.uint8
    assert len(images) == (8 if options.get("interpolate") == 4 else 6)  # rows are whole
    assert torch.equal(images, pictures(tmp_path / "images"))


@pytest.mark.parametrize("options", [{}, {"seed": 7, "dropout": "on"}])
def test_translate_gives_the_pixels_of_the_command(
    options: dict, translator: Path, crgan: Crgan, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 50), np.uint8)
    (tmp_path / "in").mkdir()
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(tmp_path / f"in/{number}.png")
    typed = [word for key, value in options.items() for word in (f"--{key}", value)]
    assert crgan("translate", translator, "in", "--out", "out", "--device", "cpu", *typed)[0] == 0
    model = crgan_api.load(translator, device="cpu")
    images = model.translate(torch.from_numpy(pixels)[:, None], **options)
    assert torch.equal(images, pictures(tmp_path / "out"))


def test_a_model_has_the_networks_and_settings_of_its_checkpoint(scored: Path) -> None:
    for weights in ("ema", "raw"):
        model = crgan_api.load(scored, weights=weights, device="cpu")
        content = torch.load(model.path, weights_only=True)
        states = content["states"]
        prefix, part = ("", states["ema"]) if weights == "ema" else ("G.", states["task"])
        for key, value in model.G.state_dict().items():
            assert torch.equal(value, part[prefix + key])
        for key, value in model.D.state_dict().items():
            assert torch.equal(value, states["task"]["adversary.D." + key])
        assert (model.weights, model.step) == (weights, 4)
        assert not model.G.training
        assert not model.D.training
    assert model.config.regularizer.lambda_cr == 10
    assert model.class_names[6] == "shirt"


def test_a_task_with_several_discriminators_gives_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [w for w in TINY if not w.startswith(("metrics", "extractor", "steps", "samples.ev"))]
    short = ["steps=1", "samples.every=1", "metrics=none", f"out={tmp_path / 'run'}"]
    run = crgan_api.train(["experiment=demo_cyclegan", *typed, *short])
    said = capsys.readouterr()
    assert said.out == "", "what it says goes to stderr"
    assert "finished 1 steps" in said.err
    model = crgan_api.load(run.folder, device="cpu")
    state = torch.load(model.path, weights_only=True)["states"]["task"]
    assert sorted(dict(model.D.named_children())) == ["a", "b"]
    for name in "ab":
        for key, value in model.D.get_submodule(name).state_dict().items():
            assert torch.equal(value, state[f"adversaries.{name}.D.{key}"])
    image = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    assert model.translate(image, to="b").shape == (1, 1, 32, 32)
    with pytest.raises(UserError, match=r'Type to="b" or to="a"\.'):
        model.translate(image)


# --- numbers --------------------------------------------------------------------------------------


def test_evaluate_measures_the_numbers_of_the_command(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    assert crgan("eval", scored, "--json", "numbers.json")[0] == 0
    record = json.loads((tmp_path / "numbers.json").read_text())
    lines = (scored / "evaluations.jsonl").read_text().splitlines()
    of_file = crgan_api.evaluate(scored)
    assert of_file.as_json() == record
    assert (scored / "evaluations.jsonl").read_text().splitlines() == [*lines, lines[-1]]
    model = crgan_api.load(scored, device="cpu")
    small = ["extractor.resolution=32", "metrics.num_samples=8"]
    of_model = crgan_api.evaluate(model, "demo", overrides=small)
    assert of_model.values == of_file.values
    assert of_model.protocol["generator_weights"] == "ema"
    assert len((scored / "evaluations.jsonl").read_text().splitlines()) == len(lines) + 1
    raw = crgan_api.load(scored, weights="raw", device="cpu")
    raw.G.load_state_dict(model.G.state_dict())  # what is in memory is scored, not the file
    of_raw = crgan_api.evaluate(raw)
    assert of_raw.values == of_file.values
    assert (of_raw.protocol["weights"], of_raw.protocol["generator_weights"]) == ("raw", "raw")


def test_the_record_names_the_weights_that_a_model_has(
    scored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ema, raw = (crgan_api.load(scored, weights=each, device="cpu") for each in ("ema", "raw"))
    protocols: list[str] = []

    def note(config: DictConfig, accept: object) -> None:
        protocols.append(config.metrics.weights)
        raise RunFailed("noted")

    monkeypatch.setattr(sources, "make_scorer", note)

    def ask(model: crgan_api.Model, *typed: str) -> None:
        with pytest.raises(RunFailed, match="noted"):
            crgan_api.evaluate(model, overrides=typed)

    for typed in ((), ("metrics.weights=auto", "device=cpu")):
        ask(ema, *typed)
        ask(raw, *typed)
    ask(ema, "metrics.weights=ema")
    ask(raw, "metrics.weights=raw")
    for model, stored in ((ema, "raw"), (raw, "ema")):  # what the run was trained with
        model.settings = model.settings.replace("  weights: auto\n", f"  weights: {stored}\n")
        assert model.config.metrics.weights == stored
        ask(model)
    assert protocols == ["auto", "raw", "auto", "raw", "ema", "raw", "ema", "raw"]
    for model, other in ((ema, "raw"), (raw, "ema")):
        for typed in (f"metrics.weights={other}", f"metrics.weights='{other}'"):
            said = f"'{typed}' and a model with {model.weights} weights cannot be combined"
            with pytest.raises(UserError, match=re.escape(said)):
                crgan_api.evaluate(model, overrides=[typed])


def test_evaluate_measures_images_too(scored: Path, crgan: Crgan, tmp_path: Path) -> None:
    assert crgan("eval", scored, "--export", "kept")[0] == 0
    typed = ["extractor=efficientnet_lite0", "extractor.resolution=32", "metrics.measures=[kid]"]
    generated, real = tmp_path / "kept/generated", tmp_path / "kept/real"
    assert crgan("eval", generated, real, *typed, "--json", "two.json")[0] == 0
    scores = crgan_api.evaluate(generated, real=real, overrides=typed)
    assert scores.as_json() == {
        **json.loads((tmp_path / "two.json").read_text()),
        "samples": str(generated),
    }
    small = ["extractor.resolution=32", "metrics.num_samples=8", "metrics.measures=[kid]"]
    against_data = crgan_api.evaluate(generated, "demo", overrides=small)
    assert "kid_effnetlite0_32_n8" in against_data.values


# --- training -------------------------------------------------------------------------------------


def test_train_trains_the_run_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = unmeasured(tiny(*SNGAN, "steps=2", "samples.every=2"))
    assert main.run_command(["train", *typed, "out=typed"]) == 0
    run = crgan_api.train(typed)
    assert run.folder.parts[0] == "outputs"
    assert (run.result["status"], run.result["step"]) == ("finished", 2)
    files = [folder / "checkpoints/step_00000002.pt" for folder in (Path("typed"), run.folder)]
    assert different(*files) == []
    for name in ("metrics.jsonl", "config.yaml"):
        assert (run.folder / name).exists()
    again = crgan_api.train([*typed, f"out={run.folder}"])  # nothing to do
    assert again == run


def test_report_compares_and_writes_only_if_asked(scored: Path, tmp_path: Path) -> None:
    report = crgan_api.report([scored])
    assert isinstance(report.rows[0], rows.Row)
    assert report.rows[0].numbers[report.headline].values
    assert not (scored / "report").exists()
    assert crgan_api.report([scored], out=tmp_path / "new") == report
    assert (tmp_path / "new/report.md").exists()
    package = importlib.import_module("crgan_cli.report")
    assert package([scored]) == compare_runs([scored]) == report


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Ask for --weights raw.", 'Ask for weights="raw".'),
        ("Leave out --best for its newest.", "Leave out best=True for its newest."),
        ("Lower --n or --batch-size.", "Lower n= or batch_size=."),
        ("Type --to b or --to -Male.", 'Type to="b" or to="-Male".'),
        ("--tile 7: sides. Type --tile 32", "tile=7: sides. Type tile=32"),
        ("--metric fid: none.", 'metric="fid": none.'),
        ("--out a/b cannot be written", 'out="a/b" cannot be written'),
        ("Leave out --dry-run: it is", "Leave out dry_run=: it is"),
        ("Give --out FILE.zip.", "Give out=FILE.zip."),
        ("Use --against for another.", "Use against= for another."),
        (
            "Type crgan sample RUN --out a.png, or in Python model.sample()",
            "Type crgan sample RUN --out a.png, or in Python model.sample()",
        ),
        (
            "Go on with crgan train --from RUN (--to x)",
            'Go on with crgan train --from RUN (to="x")',
        ),
        ("Add -m to make one run of each.", "Call crgan.train once for each."),
    ],
)
def test_a_message_names_arguments_where_it_names_options(message: str, said: str) -> None:
    assert spell_for_python(message) == said
    for kind in (UserError, RunFailed):
        with pytest.raises(kind) as caught, spelled_for_python():
            raise kind(message)
        assert str(caught.value) == said


def test_what_cannot_be_done_is_said_in_the_words_of_python(
    scored: Path, plain: Path, translator: Path, tmp_path: Path
) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "0.png")
    images_folder = tmp_path
    model = crgan_api.load(scored, device="cpu")
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    cases = {
        'classes="socks": this generator has the classes 0 to 9': lambda: model.sample(
            classes=["socks"]
        ),
        r"Give \['shirt'\]": lambda: model.sample(classes="shirt"),
        "n must be a whole number of at least 1, not 0": lambda: model.sample(0),
        "truncation must be a number above 0": lambda: model.sample(truncation=-1),
        r"in Python model.sample\(\)": lambda: model.translate(images),
        r"in Python model.translate\(images\)": lambda: crgan_api.load(translator).sample(),
        r"images must be \(N, C, H, W\) uint8": lambda: crgan_api.load(translator).translate(
            images.float()
        ),
        "images of 1 channels, not of 3": lambda: crgan_api.load(translator).translate(
            images.expand(1, 3, 8, 8)
        ),
        'Ask for weights="raw"': lambda: crgan_api.load(plain, weights="ema"),
        "Leave out best=True for its newest": lambda: crgan_api.load(plain, best=True),
        "classes must be a list, not 0": lambda: model.sample(classes=0),  # type: ignore[arg-type]
        r"classes=\[\] names none": lambda: model.sample(classes=[]),
        "n must be a whole number of at least 1, not True": lambda: model.sample(True),
        "seed must be a whole number from 0 on, not 'a'": lambda: model.sample(
            seed="a"  # type: ignore[arg-type]
        ),
        "seed must be a whole number from 0 on, not 1.5": lambda: model.sample(
            seed=1.5  # type: ignore[arg-type]
        ),
        "truncation must be a number above 0, not 'a'": lambda: model.sample(
            truncation="a"  # type: ignore[arg-type]
        ),
        r"overrides must be settings as KEY=VALUE, not '--dry-run'.*give out=FOLDER": (
            lambda: crgan_api.train(["--dry-run"])
        ),
        "overrides must be settings as KEY=VALUE, not '--from'": lambda: crgan_api.train(
            ["--from", "b"]
        ),
        "overrides must be settings as KEY=VALUE, not '--best'": lambda: crgan_api.evaluate(
            scored, overrides=["--best"]
        ),
        r"folders=\[\] names no run": lambda: crgan_api.report([]),
        "folders must be a list, not 5": lambda: crgan_api.report(5),  # type: ignore[arg-type]
        r"overrides must be a list, not 'seed=1'": lambda: crgan_api.train("seed=1"),
        "Call crgan.train once for each": lambda: crgan_api.train(["seed=1,2"]),
        "these settings ask for a sweep": lambda: crgan_api.train(["hydra.mode=MULTIRUN"]),
        "Did you mean 'seed'": lambda: crgan_api.train(["sed=1"]),
        r"best=True does not go with a model: it is for a run\. Give it to crgan\.load": lambda: (
            crgan_api.evaluate(model, best=True)
        ),
        'weights="raw" does not go with a model': lambda: crgan_api.evaluate(model, weights="raw"),
        r'real="/nowhere" does not go with a model: it is for images\. Leave it out': lambda: (
            crgan_api.evaluate(model, real="/nowhere")
        ),
        "best=True does not go with images": lambda: crgan_api.evaluate(
            images_folder, real=images_folder, best=True
        ),
        r'weights="raw" does not go with images: it is for a run\. Leave': lambda: (
            crgan_api.evaluate(images_folder, real=images_folder, weights="raw")
        ),
        'weights="ema" does not go with images': lambda: crgan_api.evaluate(
            images_folder, weights="ema", overrides=["dataset=demo"]
        ),
        "'device=cuda:7' and a model on cpu cannot be combined": lambda: crgan_api.evaluate(
            model, overrides=["device=cuda:7"]
        ),
        "'metrics.weights=ema' and weights=\"raw\" cannot be combined": lambda: crgan_api.evaluate(
            scored, weights="raw", overrides=["metrics.weights=ema"]
        ),
        "'metrics=pggan' in overrides and the protocol 'demo' cannot": lambda: crgan_api.evaluate(
            scored, "demo", overrides=["metrics=pggan"]
        ),
        "there is no file": lambda: crgan_api.evaluate("gone"),
        "folders must be a list": lambda: crgan_api.report(scored),
        'metric="nothing": no run has this metric': lambda: crgan_api.report(
            [scored], metric="nothing"
        ),
    }
    for said, call in cases.items():
        with pytest.raises(UserError, match=said):
            call()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tile": 0}, "tile must be a whole number of at least 1, not 0"),
        ({"tile": -32}, "tile must be a whole number of at least 1, not -32"),
        ({"tile": "a"}, "tile must be a whole number of at least 1, not 'a'"),
        ({"tile": 7}, "tile=7: this generator takes sides"),
        ({"seed": -1}, "seed must be a whole number from 0 on, not -1"),
        ({"seed": 1.5}, "seed must be a whole number from 0 on, not 1.5"),
        ({"dropout": "maybe"}, "dropout must be 'on' or 'off' or None, not 'maybe'"),
        ({"images": "a.png"}, "images must be an image tensor, .* not 'a.png'"),
    ],
)
def test_what_cannot_be_translated_is_said(options: dict, said: str, translator: Path) -> None:
    given = {"images": torch.zeros(1, 1, 32, 32, dtype=torch.uint8), **options}
    with pytest.raises(UserError, match=said):
        crgan_api.load(translator, device="cpu").translate(**given)


def test_words_that_are_none_of_the_choices_are_refused(scored: Path) -> None:
    foo: Any = "foo"
    weights = "weights must be 'ema' or 'raw' or None, not 'foo'"
    with pytest.raises(UserError, match=weights):
        crgan_api.load(scored, weights=foo)
    with pytest.raises(UserError, match=weights):
        crgan_api.evaluate(scored, weights=foo)
    for step in (foo, None):
        with pytest.raises(UserError, match=f"step must be 'last' or 'best', not {step!r}"):
            crgan_api.report([scored], step=step)


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (crgan_api.load, {"path": "gone", "device": None}, "device must be a text, not None"),
        (crgan_api.load, {"path": None}, "path must be a path, not None"),
        (crgan_api.train, {"config_dir": 5}, "config_dir must be a path, not 5"),
        (crgan_api.train, {"config_dir": 0}, "config_dir must be a path, not 0"),
        (crgan_api.train, {"config_dir": "gone"}, r"config_dir=.*gone.*: there is no such folder"),
        (crgan_api.evaluate, {"what": 5}, "what must be a path, not 5"),
        (crgan_api.evaluate, {"what": ".", "real": 5}, "real must be a path, not 5"),
        (crgan_api.evaluate, {"what": ".", "metrics": 5}, "metrics must be a text, not 5"),
        (crgan_api.report, {"folders": ["."], "out": 5}, "out must be a path, not 5"),
        (crgan_api.report, {"folders": ["."], "metric": 5}, "metric must be a text, not 5"),
        (crgan_api.report, {"folders": ["."], "title": 5}, "title must be a text, not 5"),
    ],
)
def test_arguments_of_another_type_are_refused(
    function: Callable[..., object], options: dict, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        function(**options)


def test_latest_is_the_newest_run(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scored, "outputs/a/run")
    newest = Path("outputs/a/run")
    assert crgan_api.load("latest", device="cpu").path.parent.parent == newest
    assert crgan_api.report(["latest"]).rows[0].runs[0].path == newest
    file = newest / "evaluations.jsonl"
    before = file.read_text() if file.exists() else ""
    crgan_api.evaluate("latest")
    assert len(file.read_text()) > len(before)

    def note(choices: object, overrides: list[str]) -> None:
        raise RunFailed(" ".join(overrides))

    monkeypatch.setattr(launch, "train_once", note)
    with pytest.raises(RunFailed, match=f"^init_from={newest}$"):
        crgan_api.train(["init_from=latest"])

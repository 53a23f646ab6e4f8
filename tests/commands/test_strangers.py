"""Checkpoints and run folders of strangers: what they name is not opened, run, read or needed."""

from pathlib import Path

import pytest
from support.runs import Crgan, refused
from support.strangers import Config, tampered, write_intruder

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning"
)


def take_extractor(config: Config, name: str, **keys: str) -> None:
    config["extractor"] = {"_target_": f"crgan_cli.evaluation.{name}", **keys}


def test_a_torchscript_file_is_loaded_only_if_it_was_typed(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    net, trace = write_intruder(tmp_path)
    path = f"extractor.path={net}"
    run = tampered(
        scored, tmp_path / "run", lambda c: take_extractor(c, "TorchScript", path=str(net))
    )
    for words in (
        ("eval", run),
        ("eval", run / "checkpoints" / "step_00000004.pt"),
        ("artefacts", run, "diversity"),
        ("train", "--from", run),
        ("train", "--from", run, "steps=5"),
    ):
        refused(crgan(*words), f"names {path}", "run code", f"command: {path}")
        assert not trace.exists()
    code, _, err = crgan("eval", run, path, "metrics.measures=[fid]")
    assert code == 0, err
    assert trace.exists()  # it would have run


def test_weights_that_torchscript_loads_are_code_and_others_are_data(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    net, trace = write_intruder(tmp_path)
    weights = str(net)
    clip = tampered(scored, tmp_path / "a", lambda c: take_extractor(c, "CLIP", weights=weights))
    refused(crgan("eval", clip), f"names extractor.weights={net}", "run code")
    vgg = tampered(scored, tmp_path / "b", lambda c: take_extractor(c, "VGG16", weights=weights))
    code, _, err = crgan("eval", vgg)  # read as tensors, said, and refused as such
    assert code == 2
    assert f"extractor.weights={net} is read, as {vgg}" in err
    assert "cannot be read as a file of weights" in err or "does not hold the weights" in err
    assert not trace.exists()


def test_nothing_is_made_where_a_checkpoint_says(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    """A data set that is not there would be downloaded to that place."""
    root = tmp_path / "victim"
    run = tampered(
        scored,
        tmp_path / "run",
        lambda c: c.update(
            dataset=c["dataset"] | {"_target_": "crgan_cli.data.Mnist", "root": str(root)}
        ),
    )
    for words in (("eval", run), ("artefacts", run, "leakage"), ("train", "--from", run)):
        refused(crgan(*words), f"names dataset.root {root}", "Type dataset.root=PATH")
    assert not root.exists()


def test_the_environment_is_not_read_for_a_checkpoint(
    scored: Path, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET", "hunter2")
    secret = {"source": "${oc.env:AWS_SECRET}", "fid": None}
    run = tampered(scored, tmp_path / "run", lambda c: c.update(published=secret))
    for words in (("eval", run), ("sample", run), ("train", "--from", run)):
        answer = crgan(*words)
        refused(answer, "published.source is ${oc.env:AWS_SECRET}", "did not resolve it")
        assert "hunter2" not in "".join(map(str, answer))
    assert crgan("report", run, "--format", "md,csv")[0] == 0
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"hunter2" in path.read_bytes()]


def test_a_command_needs_only_the_classes_that_it_builds(
    scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    """Those of the user's packages are not known without CRGAN_PLUGINS."""

    def own(config: Config, *groups: str) -> None:
        for group in groups:
            config[group] = {"_target_": f"mine.{group}", "key": 1}

    training = ("regularizer", "loss", "optimizer")  # the task says which networks there are
    run = tampered(scored, tmp_path / "a", lambda c: own(c, *training, "augment", "dataset"))
    assert crgan("sample", run, "--n", 2)[0] == 0
    refused(crgan("eval", run), "dataset: There is no class 'mine.dataset'", "CRGAN_PLUGINS")
    refused(crgan("train", "--from", run), "mine.regularizer", "mine.loss", "CRGAN_PLUGINS")

    run = tampered(scored, tmp_path / "b", lambda c: own(c, *training, "augment", "extractor"))
    refused(crgan("eval", run), "extractor: There is no class 'mine.extractor'", "CRGAN_PLUGINS")
    typed = ("extractor=efficientnet_lite0", "extractor.resolution=32")
    assert crgan("eval", run, *typed)[0] == 0
    refused(crgan("artefacts", run, "consistency"), "augment: There is no class 'mine.augment'")

    run = tampered(scored, tmp_path / "c", lambda c: own(c, "architecture"))
    refused(crgan("sample", run), "There is no class 'mine.architecture'", "CRGAN_PLUGINS")


def test_what_is_built_is_still_checked(scored: Path, crgan: Crgan, tmp_path: Path) -> None:
    def widen(config: Config) -> None:
        config["architecture"]["width"] = -1

    refused(
        crgan("sample", tampered(scored, tmp_path / "run", widen)), "architecture.width must be"
    )


def test_a_printed_configuration_shows_no_secret(
    crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET", "hunter2")
    typed = 'published.source="${oc.env:AWS_SECRET}"'
    refused(crgan("train", typed, "--cfg", "job", "--resolve"), "is not read")
    assert "source: ${oc.env:AWS_SECRET}" in crgan("train", typed, "--cfg", "job")[1]

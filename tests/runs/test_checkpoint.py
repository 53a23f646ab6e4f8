"""Checkpoints: a stranger's runs no code, a damaged one is named, and none is lost half written."""

import errno
import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from support.run_folders import write_run

from crgan_cli.commands import main
from crgan_cli.commands.artefacts import output_folder
from crgan_cli.config.compose import compose
from crgan_cli.config.stored import to_text
from crgan_cli.errors import NotFinite, RunFailed, UserError
from crgan_cli.runs import checkpoint
from crgan_cli.runs.checkpoint import (
    Content,
    delete_old,
    file_name,
    list_checkpoints,
    load,
    load_latest,
    restore,
    save,
)


def content(step: int = 3, config: str = "seed: 1\n") -> Content:
    """A checkpoint of a very small run."""
    return {
        "format": checkpoint.FORMAT,
        "version": checkpoint.VERSION,
        "step": step,
        "settled": True,
        "seconds": 1.5,
        "random": {"seed": 1, "step": step},
        "config": config,
        "provenance": {"crgan": "0.9"},
        "states": {"task": {"G.weight": torch.arange(100.0)}},
    }


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / file_name(3)
    save(path, content())
    return path


def test_what_is_saved_is_read(good: Path) -> None:
    found = load(good)
    assert torch.equal(found["states"]["task"].pop("G.weight"), torch.arange(100.0))
    assert found == content() | {"states": {"task": {}}}
    assert [path.name for path in good.parent.iterdir()] == ["step_00000003.pt"]


# --- strangers' files ---


class Bomb:
    """What runs code as it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("kind", ["torch", "legacy torch", "pickle"])
def test_a_pickle_that_runs_code_does_not_run_it(kind: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "step_00000001.pt"
    bomb = {**content(), "states": Bomb(marker)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(UserError, match="cannot be read as a crgan checkpoint") as refused:
        load(path)
    assert not marker.exists()
    assert "weights_only" not in str(refused.value)  # torch's advice would be to run it
    torch.load(path, weights_only=False) if kind != "pickle" else pickle.loads(path.read_bytes())
    assert marker.exists()  # the bomb was one


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("architecture._target_", "os.system"), "'os.system'"),
        (
            ("architecture._target_", "crgan_cli.commands.main.os.system"),
            "'crgan_cli.commands.main.os.system'",
        ),
        (("architecture._target_.generator", "subprocess.Popen"), "'subprocess.Popen'"),
        (("architecture._target_.generator", "crgan_cli.runs.folder.FileLock"), "FileLock'"),
        (("architecture._target_.generator", "torch.nn.Linear"), "'torch.nn.Linear'"),
        (
            ("extractor._target_", "crgan_cli.commands.main.run_command"),
            "'crgan_cli.commands.main.run_command'",
        ),
        (("engine._target_", "pathlib.Path"), "'pathlib.Path'"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "sample"])
def test_a_configuration_that_names_other_code_is_refused(
    command: str,
    change: tuple[str, str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ran(*args: object, **kwargs: object) -> None:
        pytest.fail("a stranger's code ran")

    monkeypatch.setattr(os, "system", ran)
    monkeypatch.setattr("subprocess.Popen.__init__", ran)
    monkeypatch.chdir(tmp_path)
    config = compose(["device=cpu"])
    key, target = change
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = target
    save(tmp_path / "theirs.pt", content(config=to_text(config)))
    assert main.run_command([command, "theirs.pt"]) == 2
    err = capsys.readouterr().err
    assert said in err or (command, key) == ("sample", "extractor._target_")  # builds none
    assert "theirs.pt" in err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pt"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "- 1",
        "a: [",
        "a: ${b}",
        "a: ${oc.nothing:1}",
        "a: !!python/name:os.system",
    ],
)
def test_a_configuration_that_is_none_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "theirs.pt", content(config=text))
    assert main.run_command(["sample", str(tmp_path / "theirs.pt")]) == 2
    assert "theirs.pt" in capsys.readouterr().err


# --- files that are something else, or damaged ---


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("image.png", "")


SOMETHING_ELSE = {
    "text": lambda path: path.write_text("step 3\nloss 1.2\n"),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(2000)),
    "a zip": zipped,
    "a folder's name": lambda path: path.mkdir(),
    "a model": lambda path: torch.save(torch.nn.Linear(2, 2), path),
}


@pytest.mark.parametrize("kind", SOMETHING_ELSE)
def test_something_else_is_named_in_words(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "this.pt"
    SOMETHING_ELSE[kind](path)
    with pytest.raises(UserError, match=r"this.pt cannot be read as a crgan checkpoint.* folder"):
        load(path)


@pytest.mark.parametrize("value", [{"weight": torch.ones(2)}, torch.ones(2), [1], "crgan"])
def test_a_plain_torch_file_is_no_checkpoint(value: object, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "this.pt")
    with pytest.raises(UserError, match="a PyTorch file, but not a crgan checkpoint"):
        load(tmp_path / "this.pt")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_named(share: float, good: Path) -> None:
    whole = good.read_bytes()
    good.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="damaged, truncated"):
        load(good)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*gone.pt. Give a checkpoint"):
        load(tmp_path / "gone.pt")


@pytest.mark.parametrize("version", [1, 3, None, "2"])
def test_another_version_names_the_crgan_that_wrote_it(version: object, tmp_path: Path) -> None:
    torch.save({**content(), "version": version}, tmp_path / "new.pt")
    with pytest.raises(UserError, match=rf"checkpoint version {version}; .*'crgan': '0.9'"):
        load(tmp_path / "new.pt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", None),
        ("config", {"a": 1}),
        ("states", [1]),
        ("step", "3"),
        ("class_names", "cat"),
    ],
)
def test_a_part_that_is_missing_or_of_another_kind_is_named(
    key: str, value: object, tmp_path: Path
) -> None:
    torch.save({**content(), key: value}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=f"odd.pt is damaged: {key} is missing"):
        load(tmp_path / "odd.pt")


# --- a run's checkpoints ---


def test_the_newest_good_one_is_found_and_the_others_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (2, 9, 10, 11):
        save(tmp_path / file_name(step), content(step))
    (tmp_path / file_name(11)).write_bytes(b"")
    (tmp_path / file_name(10)).write_bytes((tmp_path / file_name(10)).read_bytes()[:500])
    (tmp_path / "step_99.pt.partial").write_bytes(b"half")
    (tmp_path / "step_x.pt").write_bytes(b"mine")
    found = load_latest(tmp_path)
    assert found is not None
    assert (found.path.name, found.content["step"]) == (file_name(9), 9)
    skipped = [record.getMessage() for record in caplog.records]
    assert len(skipped) == 2
    assert file_name(11) in skipped[0]
    assert file_name(10) in skipped[1]
    for step in (2, 9):
        (tmp_path / file_name(step)).write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 4 checkpoints.*nothing was changed"):
        load_latest(tmp_path)
    assert load_latest(tmp_path / "nowhere") is None


def test_the_best_is_taken_where_no_other_can_be_read(tmp_path: Path) -> None:
    save(tmp_path / "best.pt", content(7))
    (tmp_path / file_name(9)).write_bytes(b"")
    found = load_latest(tmp_path)
    assert found is not None
    assert found.content["step"] == 7


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 5):  # one digit more than the name has room for
        (tmp_path / file_name(step)).touch()
    assert [int(path.stem[5:]) for path in list_checkpoints(tmp_path)] == [
        100_000_000,
        99_999_999,
        5,
    ]


def test_thinning_keeps_the_last_k_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path / file_name(step), content(step))
    checkpoint.link_or_copy(tmp_path / file_name(1), tmp_path / "best.pt")
    (tmp_path / "step_00000006.pt.partial").touch()
    (tmp_path / "notes.txt").touch()
    delete_old(tmp_path, 2, step=10**6)
    names = {file_name(4), file_name(5), "best.pt", "notes.txt"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert load(tmp_path / "best.pt")["step"] == 1


def test_the_best_is_replaced_whole_and_apart_from_its_source(tmp_path: Path) -> None:
    best = tmp_path / "best.pt"
    for step in (1, 2):
        save(tmp_path / file_name(step), content(step))
        checkpoint.link_or_copy(tmp_path / file_name(step), best)
    save(tmp_path / file_name(2), content(7))  # a resumed run writes a step's file again
    assert load(best)["step"] == 2
    assert not list(tmp_path.glob("*.partial"))


def test_the_best_is_copied_where_there_are_no_links(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*args: object) -> None:
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    checkpoint.link_or_copy(good, good.with_name("best.pt"))
    assert good.with_name("best.pt").read_bytes() == good.read_bytes()


@pytest.mark.parametrize("where", ["torch.save", "os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("short")])
def test_a_write_that_fails_leaves_what_was_there(
    where: str, error: Exception, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = good.read_bytes()

    def full(*args: object) -> None:
        raise error

    monkeypatch.setattr(where, full)
    with pytest.raises(RunFailed, match=r"step_00000003.pt could not be written \(.*--from"):
        save(good, content(4))
    assert good.read_bytes() == before
    assert [path.name for path in good.parent.iterdir()] == [good.name]


def test_a_folder_that_cannot_be_made_is_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(RunFailed, match="could not be written"):
        save(tmp_path / "checkpoints" / file_name(1), content())


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path, layer = tmp_path / "a.pt", torch.nn.Linear(3, 1)
    with pytest.raises(UserError, match=r"differ in the parts \['ema', 'task'\]"):
        restore(content(), {"ema": layer}, path)
    with pytest.raises(
        UserError, match=r"a.pt does not fit this configuration: task \(Linear\): .*crgan info"
    ):
        restore(content(), {"task": layer}, path)


@pytest.mark.parametrize("part", ["task", "ema"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_not_saved(part: str, value: float) -> None:
    bad = content(5)
    bad["states"][part] = {"w": torch.tensor([0.0, value]), "n": torch.tensor(3)}
    with pytest.raises(NotFinite, match=rf"{part}\.w is not finite after step 5"):
        checkpoint.require_finite_states(bad)
    checkpoint.require_finite_states(content())


def test_thinning_never_takes_the_checkpoint_that_a_run_went_on_from(tmp_path: Path) -> None:
    """Damaged ones that are newer do not count among the last k."""
    for step in (1000, 1500, 2000, 3000):
        (tmp_path / file_name(step)).touch()
    delete_old(tmp_path, 2, step=1500)
    assert [path.name for path in list_checkpoints(tmp_path)] == [file_name(1500), file_name(1000)]


# --- damage to the last bit ---


def flip_bit(path: Path, whole: bytes, chance: random.Random) -> None:
    """Damage one random bit of a file."""
    place = chance.randrange(len(whole) * 8)
    damaged = bytearray(whole)
    damaged[place // 8] ^= 1 << place % 8
    path.write_bytes(damaged)


def test_any_flipped_bit_is_noticed_and_an_older_checkpoint_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, newest = tmp_path / file_name(3), tmp_path / file_name(4)
    save(older, content(3))
    save(newest, content(4))
    whole, chance = newest.read_bytes(), random.Random(0)
    for count in range(1, 101):
        flip_bit(newest, whole, chance)
        found = load_latest(tmp_path)
        assert found is not None
        assert found.path == older
        assert caplog.text.count("skipping a damaged checkpoint") == count
    newest.write_bytes(whole)
    assert load(newest)["step"] == 4


def test_a_checkpoint_from_before_digests_is_read_and_never_believed_damaged(
    tmp_path: Path,
) -> None:
    """Its CRCs cover the tensors, and no flip elsewhere changes what is loaded."""
    path, expected = tmp_path / file_name(3), content(3)
    torch.save(expected, path)
    whole, chance, noticed = path.read_bytes(), random.Random(0), 0
    assert load(path)["step"] == 3
    for _ in range(100):
        flip_bit(path, whole, chance)
        try:
            found = load(path)
        except UserError:
            noticed += 1
        else:
            assert torch.equal(found["states"]["task"].pop("G.weight"), torch.arange(100.0))
            assert found == expected | {"states": {"task": {}}}
    assert noticed > 30


def test_a_checkpoint_is_still_a_file_of_torch(good: Path) -> None:
    assert torch.load(good, weights_only=True)["step"] == 3
    with zipfile.ZipFile(good) as archive:
        assert archive.testzip() is None


def test_the_last_bytes_are_part_of_a_checkpoint(good: Path) -> None:
    whole = good.read_bytes()
    for damaged in (whole[:-1], whole + b"\n", whole + whole):
        good.write_bytes(damaged)
        with pytest.raises(UserError, match="is not as it was written"):
            load(good)


def test_thinning_deletes_nothing_behind_a_link(tmp_path: Path) -> None:
    """A link among the checkpoints goes; what it points to stays."""
    folder, mine = tmp_path / "checkpoints", tmp_path / file_name(1)
    folder.mkdir()
    mine.touch()
    (folder / mine.name).symlink_to(mine)
    save(folder / file_name(2), content(2))
    delete_old(folder, 1, 2)
    assert mine.exists()
    assert [path.name for path in folder.iterdir()] == [file_name(2)]


@pytest.mark.parametrize("command", ["eval", "report"])
def test_other_commands_write_through_no_link_of_a_run(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, outside = write_run(tmp_path / "run", {300: 5.0}), tmp_path / "outside"
    save(run / "checkpoints" / file_name(3), content())
    outside.mkdir()
    name = {"eval": "evaluations.jsonl", "report": "report"}[command]
    (run / name).symlink_to(outside / name if command == "eval" else outside)
    assert main.run_command([command, str(run)]) == 2
    assert f"{run / name} is a symbolic link to {outside}" in capsys.readouterr().err
    assert list(outside.iterdir()) == []


def test_artefacts_are_not_written_through_a_link(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {300: 5.0})
    assert output_folder(run / "checkpoints/best.pt", 3, "raw").parent == run / "artefacts"
    (run / "artefacts").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is a symbolic link"):
        output_folder(run / "checkpoints/best.pt", 3, "raw")


def test_a_file_that_cannot_be_read_now_is_not_replaced_by_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "step_00000002.pt").write_bytes(b"older")
    (tmp_path / "step_00000004.pt").write_bytes(b"newer")

    def fail(file: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(checkpoint, "require_undamaged", fail)
    with pytest.raises(RunFailed, match=r"step_00000004\.pt could not be read.*Stale file handle"):
        checkpoint.load_latest(tmp_path)

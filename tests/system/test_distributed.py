"""A run by two processes is the run of one, whoever began it; on the CPU, through Gloo."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from support.ranks import in_processes
from support.runs import DEMO, Crgan, environment, leaves, lines, refused, tiny, train, unmeasured

from crgan_cli.commands import main
from crgan_cli.commands import train as command
from crgan_cli.errors import UserError
from crgan_cli.system.distributed.world import world

# Batch norm in G, spectral norm in D, four kinds of random numbers in a turn, lazy turns, an
# average, an evaluation whose last batch is a part of one. Adam with a large eps: with the usual
# one it makes steps of the rounding in gradients that are 0, as of biases before batch norm.
KIND = (
    "architecture=resnet_sngan",
    "regularizer=icr",
    "regularizer.every=2",
    "optimizer.n_dis=2",
    "optimizer.eps=0.01",
    "ema.decay=0.5",
    "steps=4",
    "log.every=1",
    "samples.every=4",
    "metrics.every=2",
    "metrics.num_samples=22",
    "metrics.batch_size=4",
    "metrics.measures=[fid,kid,swd,ms_ssim]",
    "metrics.swd_directions=16",
    "metrics.ms_ssim_pairs=20",
    "engine=eager",
    "engine.precision=fp32",
    "engine.fold=never",
)
FIRST, LAST = (f"checkpoints/step_{step:08d}.pt" for step in (2, 4))


def torchrun(*words: str) -> list[str]:
    """The command line that trains with two processes."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    return [*launcher, "--nproc-per-node", "2", "-m", "crgan_cli", "train", *words]


def cut(run: Path, to: Path) -> Path:
    """A copy of a run that was killed after its first checkpoint."""
    shutil.copytree(run, to)
    (to / LAST).unlink()
    result = json.loads((to / "result.json").read_text())
    (to / "result.json").write_text(json.dumps({**result, "status": "running"}))
    return to


def two_runs(new: Path, begun: Path) -> None:
    """In each of two processes: a run from its start, and one that another process has begun."""
    train(new, *KIND)
    train(begun, *KIND)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs by one process, by two, and by one and two after each other."""
    root = tmp_path_factory.mktemp("runs")
    names = ("one", "two", "two after one", "one after two")
    found = {name: root / name for name in names}
    train(found["one"], *KIND)
    cut(found["one"], found["two after one"])
    in_processes(2, partial(two_runs, found["two"], found["two after one"]))
    train(cut(found["two"], found["one after two"]), *KIND)
    return found


@pytest.mark.parametrize("name", ["two", "two after one", "one after two"])
def test_two_processes_train_as_one(folders: dict[str, Path], name: str) -> None:
    one, other = folders["one"], folders[name]
    for kind in ("train", "eval"):
        expected, found = lines(one, kind), lines(other, kind)
        assert [line["step"] for line in found] == [line["step"] for line in expected]
        for a, b in zip(expected, found, strict=True):
            assert b.pop("kind") == a.pop("kind")
            assert b == pytest.approx(a, rel=1e-3, abs=1e-5)
    a, b = (torch.load(each / LAST, weights_only=True) for each in (one, other))
    assert a["states"].keys() == b["states"].keys()
    for part in ("task", "ema"):
        expected, found = leaves(a["states"][part]), leaves(b["states"][part])
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_one_process_writes_for_both(folders: dict[str, Path]) -> None:
    one, two = folders["one"], folders["two"]
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (one, two)]
    assert [[n for n in each if "tfevents" not in n] for each in names] == [
        [n for n in names[0] if "tfevents" not in n]
    ] * 2
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert json.loads((two / "result.json").read_text())["images_seen"] == 4 * 2 * 4
    assert (two / "train.log").read_text().count("resuming from") == 0
    assert (folders["two after one"] / "train.log").read_text().count("resuming from") == 1


def test_a_signal_stops_and_saves_all_processes_after_the_same_step(tmp_path: Path) -> None:
    out = tmp_path / "run"
    typed = unmeasured(tiny(*KIND, f"out={out}", "steps=100000"))
    pipe = subprocess.PIPE
    running = subprocess.Popen(
        torchrun(*typed), env=environment(), stdout=pipe, stderr=pipe, text=True
    )
    try:
        waited = time.monotonic() + 600
        while not (out / FIRST).exists() and running.poll() is None:
            assert time.monotonic() < waited
            time.sleep(0.1)
        os.kill(running.pid, signal.SIGTERM)
        _, err = running.communicate(timeout=300)
    finally:
        running.kill()
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "interrupted", err
    assert err.count("crgan train: stopped.") == 1, err
    assert err.count("Saved and stopped") == 1
    newest = max((out / "checkpoints").glob("step_*.pt"))
    steps = torch.load(newest, weights_only=True)["step"] + 1
    assert main.run_command(["train", "--from", str(out), f"steps={steps}"]) == 0
    assert json.loads((out / "result.json").read_text())["step"] == steps


def test_what_is_wrong_in_all_processes_is_said_once(tmp_path: Path) -> None:
    typed = tiny(*KIND, "batch_size=3", f"out={tmp_path / 'run'}")
    done = subprocess.run(
        torchrun(*typed),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.count("batch_size=3 is of all processes together") == 1, done.stderr
    assert not (tmp_path / "run").exists()


def refusal(out: Path) -> str:
    """What is said to a process whose images are others than those of the other process."""
    try:
        train(out, *KIND, f"dataset.fraction={0.005 * (1 + world().rank)}")
    except UserError as error:
        return str(error)
    return ""


def test_processes_with_different_images_do_not_begin(tmp_path: Path) -> None:
    for said in in_processes(2, partial(refusal, tmp_path / "run")):
        assert "different training images" in str(said)
    assert not (tmp_path / "run").exists()


def test_torchrun_trains_one_run_and_no_sweep(
    crgan: Crgan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "is_torchrun", lambda: True)
    refused(crgan("train", "-m", *DEMO, "seed=1,2"), "without torchrun", "tasks_per_node=8")

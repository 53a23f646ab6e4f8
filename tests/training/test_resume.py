"""A run that stops anywhere and is started again ends as one that never stopped: bit by bit."""

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from support.kills import Killed, kill, nth_call
from support.runs import command, different, environment, lines, tiny, unmeasured
from support.runs import train as start

from crgan_cli.commands.main import run_command
from crgan_cli.config.compose import compose
from crgan_cli.errors import Interrupted, RunFailed, UserError
from crgan_cli.evaluation.sampler import Sampler
from crgan_cli.runs.folder import RunDir
from crgan_cli.training.hooks import CheckpointManager, DrawSamples, Evaluate
from crgan_cli.training.start import train_run
from crgan_cli.training.trainer import Trainer

LAST = "checkpoints/step_00000006.pt"
# what has state: lazy turns, an average, batch norm, spectral norm, two moments in Adam, the
# window, LeCam's averages, ADA's p
KIND = (
    "regularizer=[icr,lecam]",
    "regularizer.start=2",
    "augment_both=ada",
    "augment_both.ramp_images=40",
    "regularizer.every=2",
    "architecture=resnet_sngan",
    "optimizer.n_dis=2",
    "ema.decay=0.9",
    "log.every=4",
    "engine.fold=always",
)

QUICK = "metrics.measures=[kid]"  # a Frechet distance of 1280 features takes longer than all steps


def train(out: Path, *overrides: str) -> float | None:
    """A tiny run with the quicker of the demo's two metrics."""
    return start(out, QUICK, *overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole")
    train(out, *KIND)
    return out


def assert_same_end(out: Path, whole: Path) -> None:
    assert different(out / LAST, whole / LAST) == []
    assert different(out / "checkpoints/best.pt", whole / "checkpoints/best.pt") == []
    for kind in ("train", "eval"):
        assert lines(out, kind) == lines(whole, kind)
    for picture in (whole / "samples").iterdir():
        assert (out / "samples" / picture.name).read_bytes() == picture.read_bytes()


PLACES = {
    "before_the_first_checkpoint": (Trainer, "train_step", 2),
    "between_checkpoints": (Trainer, "train_step", 4),
    "after_a_checkpoint": (Trainer, "train_step", 3),
    "before_samples": (DrawSamples, "__call__", 1),
    "before_metrics": (Evaluate, "__call__", 1),
    "between_the_best_and_its_second_name": (CheckpointManager, "link_best", 2),
    "after_metrics_before_the_last_checkpoint": (CheckpointManager, "save", 3),
}


@pytest.mark.parametrize("place", PLACES)
def test_killed_and_started_again_is_never_stopped(
    place: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, n = PLACES[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, nth_call(n, getattr(owner, name), kill))
        with pytest.raises(Killed):
            train(tmp_path, *KIND)
    assert not (tmp_path / LAST).exists()
    train(tmp_path, *KIND)
    assert_same_end(tmp_path, whole)


def test_gradient_descent_and_dropout_resume_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = ("architecture=mlp_maxout", "optimizer=goodfellow", "optimizer.momentum_steps=5")

    def descend(name: str) -> Path:
        typed = unmeasured(tiny(*kind, f"out={tmp_path / name}"))
        train_run(compose(typed), typed, {}, None)
        return tmp_path / name / LAST

    whole = descend("whole")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", nth_call(4, Trainer.train_step, kill))
        with pytest.raises(Killed):
            descend("killed")
    assert different(descend("killed"), whole) == []


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_terminal_that_closes_saves_as_well_but_not_under_nohup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang_up() -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    take_step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", nth_call(2, take_step, hang_up))
    with pytest.raises(Interrupted):
        train(tmp_path / "run")
    assert (tmp_path / "run/checkpoints/step_00000002.pt").exists()
    monkeypatch.setattr(Trainer, "train_step", nth_call(2, take_step, hang_up))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train(tmp_path / "run")
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("owner", "name", "n"), [(Trainer, "train_step", 2), (Sampler, "draw", 2)])
def test_sigterm_saves_at_once_and_the_rest_comes_later(
    owner: type, name: str, n: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second drawing is an evaluation's first: its step is saved, its metrics are not."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, nth_call(n, getattr(owner, name), terminate))
        with pytest.raises(Interrupted) as stopped:
            train(tmp_path, *KIND)
    assert stopped.value.signum == signal.SIGTERM
    saved = sorted((tmp_path / "checkpoints").glob("step_*.pt"))[-1]
    assert torch.load(saved, weights_only=True)["step"] == {"train_step": 2, "draw": 3}[name]
    train(tmp_path, *KIND)
    assert_same_end(tmp_path, whole)


def test_a_real_kill_and_then_from(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 on the real command at whatever step it is in, then `crgan train --from` here."""
    typed = tiny(*KIND, QUICK, f"out={tmp_path / 'run'}")
    running = subprocess.Popen(command("train", *typed), cwd=tmp_path, env=environment())
    first = tmp_path / "run/checkpoints/step_00000002.pt"
    deadline = time.monotonic() + 600
    while not first.exists() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert first.exists()
    monkeypatch.chdir(tmp_path)
    assert run_command(["train", "--from", "run"]) == 0
    assert_same_end(tmp_path / "run", whole)


def test_a_damaged_last_checkpoint_costs_only_its_steps(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, *KIND, "steps=4")
    newest = tmp_path / "checkpoints/step_00000004.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    train(tmp_path, *KIND)
    assert "skipping a damaged checkpoint" in (tmp_path / "train.log").read_text()
    assert different(tmp_path / LAST, whole / LAST) == []


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    train(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("checkpoints/*")}
    with pytest.raises(UserError, match=r"regularizer.lambda_cr: 10 -> 5") as refused:
        train(tmp_path, "regularizer.lambda_cr=5.0")
    assert "out=FOLDER" in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("checkpoints/*")} == before
    with pytest.raises(UserError, match="resume=never"):
        train(tmp_path, "resume=never")


def test_the_best_step_is_not_looked_for_across_protocols(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, "steps=3")
    before = json.loads((tmp_path / "result.json").read_text())
    train(tmp_path, "metrics.reference=train", "resume=force", "steps=6")
    after = json.loads((tmp_path / "result.json").read_text())
    assert (before["best"]["step"], after["best"]["step"]) == (3, 6)
    assert before["best"].keys() == after["best"].keys()  # the very same names
    assert "another protocol than before (reference_sha256: " in caplog.text


def test_force_goes_on_with_what_was_changed(tmp_path: Path) -> None:
    train(tmp_path)
    train(tmp_path, "regularizer.lambda_cr=5.0", "optimizer.beta1=0.9", "resume=force", "steps=8")
    assert lines(tmp_path, "train")[-1]["step"] == 8
    saved = torch.load(tmp_path / "checkpoints/step_00000008.pt", weights_only=True)
    assert saved["states"]["optimizer_d"]["param_groups"][0]["betas"] == (0.9, 0.999)


def test_other_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path)
    monkeypatch.setattr("crgan_cli.training.build.fingerprint_sets", lambda images: "0" * 64)
    with pytest.raises(UserError, match="other images"):
        train(tmp_path, "steps=8")


def test_evaluation_and_samples_leave_training_alone(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, *KIND, "metrics.every=1000", "samples.every=1000")
    changed = [
        name for name in different(tmp_path / LAST, whole / LAST) if "/evaluate/" not in name
    ]
    assert changed == []


def test_data_are_found_again_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "run", "steps=2", "data_root=here")
    assert f"data_root: {tmp_path / 'here'}" in (tmp_path / "run/config.yaml").read_text()


def test_a_run_without_a_readable_checkpoint_is_not_begun_anew(tmp_path: Path) -> None:
    train(tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"gone")
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match="nothing was changed"):
        train(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def is_kept(path: Path) -> bool:
    return path.is_file() and path.name not in ("train.log", ".lock")


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    metric = train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if is_kept(path)}
    assert train(tmp_path) == metric
    with pytest.raises(UserError, match=r"has 6 steps already, and steps=4\. .* steps=12"):
        train(tmp_path, "steps=4")
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if is_kept(path)}
    assert before.keys() == after.keys()
    assert [str(path) for path in before if before[path] != after[path]] == []


def test_a_run_killed_between_its_last_checkpoint_and_its_result_gets_the_result(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_result = RunDir.write_result
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_result", nth_call(2, write_result, kill))
        with pytest.raises(Killed):
            train(tmp_path, *KIND)
    assert (tmp_path / LAST).exists()
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "running"
    metric = train(tmp_path, *KIND)
    assert_same_end(tmp_path, whole)
    result, expected = (json.loads((run / "result.json").read_text()) for run in (tmp_path, whole))
    for key in ("status", "step", "images_seen", "last", "best", "protocol"):
        assert result[key] == expected[key]
    assert metric == expected["last"][expected["protocol"]["headline"]]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with RunDir(tmp_path).lock(), pytest.raises(UserError, match="another crgan is training"):
        train(tmp_path)


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"thesis.tex.*out=FOLDER"):
        train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] in (["thesis.tex"], ["thesis.tex", ".lock"])


def test_the_error_comes_through_where_its_record_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(run: RunDir, result: dict) -> None:
        if result["status"] != "running":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunDir, "write_result", full)
    monkeypatch.setattr(Trainer, "train_step", nth_call(2, Trainer.train_step, terminate))
    with pytest.raises(Interrupted):
        train(tmp_path)


def test_a_loss_that_is_not_finite_names_term_and_step(tmp_path: Path) -> None:
    """Step 2 is saved before the rate explodes; what comes after is not."""
    train(tmp_path, "steps=2")
    with pytest.raises(RunFailed, match=r"terms/adversarial/. became (nan|inf) at step \d"):
        train(tmp_path, "optimizer.lr_g=1e30", "optimizer.lr_d=1e30", "resume=force", "steps=40")
    left = torch.load(tmp_path / "checkpoints/step_00000002.pt", weights_only=True)
    assert all(v.isfinite().all() for v in left["states"]["task"].values() if v.is_floating_point())
    assert '"failed"' in (tmp_path / "result.json").read_text()


def test_a_full_disk_fails_in_words_and_keeps_what_there_was(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the end of the disk."""
    resource = pytest.importorskip("resource")
    typed = command("train", *unmeasured(tiny(f"out={tmp_path / 'run'}")))
    assert run_command([*typed[typed.index("train") :], "steps=2"]) == 0
    size = (tmp_path / "run/checkpoints/step_00000002.pt").stat().st_size // 2
    done = subprocess.run(
        typed,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )
    assert done.returncode == 1, done.stderr
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run/checkpoints/step_00000002.pt").exists()
    assert not list((tmp_path / "run/checkpoints").glob("*.partial"))
    assert run_command(["train", "--from", str(tmp_path / "run")]) == 0


def test_the_best_checkpoint_is_the_one_whose_metrics_are_reported(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    best = torch.load(whole / "checkpoints/best.pt", weights_only=True)
    assert best["step"] == result["best"]["step"]

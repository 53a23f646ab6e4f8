"""Reading run folders: whole, half-finished, damaged, and none."""

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from filelock import FileLock
from support.run_folders import ICR, PROTOCOL, write_run

from crgan_cli.errors import UserError
from crgan_cli.report.collect import collect
from crgan_cli.report.read import KILLED, MAX_TRAIN_LINES, guess_primary_metric, read_run


def test_a_finished_run_is_read_whole(tmp_path: Path) -> None:
    settings = {"published.fid": 18.72, "published.source": "arXiv:2002.04724", "out": "x"}
    run = write_run(tmp_path / "a", {100: 60.0, 300: 50.0}, seed=7, settings=settings)
    (run / "samples").mkdir()
    for step in (100, 300):
        (run / "samples" / f"step_{step:08d}.png").touch()
    (found,) = collect([run])
    assert (found.path, found.status, found.error) == (run, "finished", "")
    assert (found.step, found.steps, found.seed, found.headline) == (300, 300, 7, "fid")
    assert [line["fid"] for line in found.evals] == [60.0, 50.0]
    assert [line["step"] for line in found.train] == [100, 200, 300]
    assert "kind" not in found.train[0]
    assert found.config["regularizer.lambda_cr"] == 10.0
    number = {"fid": 18.72, "source": "arXiv:2002.04724", "protocol": None}
    assert found.published == number
    assert (found.seconds, found.peak_memory_bytes, found.device) == (36.0, 1000, "cpu (1 threads)")
    assert found.images_per_second == 200.0  # the median of 100, 200, 300
    assert found.samples == run / "samples" / "step_00000300.png"


def test_runs_anywhere_below_are_found_once_and_in_order(tmp_path: Path) -> None:
    for name in ("sweep/1_b", "sweep/0_a", "deep/down/c"):
        write_run(tmp_path / name, {300: 50.0})
    shutil.copytree(tmp_path / "deep", tmp_path / ".hidden")
    (tmp_path / "sweep" / "multirun.yaml").touch()
    found = collect([tmp_path, tmp_path / "sweep", tmp_path / "sweep" / "0_a"])
    names = [run.path.relative_to(tmp_path).as_posix() for run in found]
    assert names == ["deep/down/c", "sweep/0_a", "sweep/1_b"]


def test_a_line_cut_short_and_one_in_the_middle_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_run(tmp_path / "a", {100: 60.0, 200: 50.0})
    file = run / "metrics.jsonl"
    whole = file.read_text().splitlines()
    file.write_text("\n".join([*whole[:-1], "what?", whole[-1], '{"kind": "eval", "step": 3']))
    (found,) = collect([run])
    assert [line["fid"] for line in found.evals] == [60.0, 50.0]
    assert len(found.train) == 3
    (said,) = caplog.messages
    assert "a line that cannot be read is left out: 'what?'" in said


def test_a_run_at_half_its_way_is_read_from_its_log(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {100: 60.0}, settings={"steps": 900}, status="running")
    with FileLock(run / ".lock"):
        (found,) = collect([run])
    assert (found.status, found.step, found.steps) == ("running", 300, 900)
    assert (found.protocol, found.headline) == ({}, "fid")
    assert found.seconds == 1600 / 100 + 1600 / 200 + 1600 / 300


def test_the_time_of_a_run_is_that_of_each_line_and_of_repeated_steps_once(tmp_path: Path) -> None:
    """A short log, which is read whole, and a long one, of which every tenth line is kept."""
    run = write_run(tmp_path / "a", {}, status="running")
    for steps in (4, 5000):
        logged = [(step, 100.0 if step % 10 == 1 else 4.0) for step in (1, 2, *range(2, steps + 1))]
        lines = [
            {"kind": "train", "step": n, "images_seen": 8 * n, "speed/images_per_second": speed}
            for n, speed in logged
        ]
        lines[1]["speed/images_per_second"] = 0.5  # before a crash: step 2 was trained again
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        fast = -(-steps // 10)
        (found,) = [read_run(run)]
        assert found.seconds == pytest.approx(fast * 8 / 100 + (steps - fast) * 8 / 4)


def test_a_run_that_says_it_runs_and_holds_no_lock_was_killed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {100: 60.0}, status="running")
    (run / ".lock").touch()
    (found,) = collect([run])
    assert (found.status, found.error) == ("interrupted", KILLED)


def test_a_failed_run_keeps_its_error(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0})
    error = "RunFailed: loss/d became nan at step 7."
    write_run(tmp_path / "b", {}, status="failed", more={"error": error})
    assert [run.error for run in collect([tmp_path])] == ["", error]


@pytest.mark.parametrize("lost", ["result.json", "metrics.jsonl", "overrides.txt"])
def test_missing_files_are_no_obstacle(tmp_path: Path, lost: str) -> None:
    write_run(tmp_path / "a", {300: 50.0})
    run = write_run(tmp_path / "b", {300: 51.0})
    (run / lost).unlink()
    found = collect([tmp_path])
    assert len(found) == 2
    assert found[1].step == 300


def test_a_result_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {300: 50.0})
    (run / "result.json").write_text('{"status": "fini')
    (found,) = collect([run])
    assert (found.status, found.protocol, len(found.evals)) == ("interrupted", {}, 1)


def test_a_long_log_is_thinned_evenly_and_keeps_its_end(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {300: 50.0})
    lines = [json.dumps({"kind": "train", "step": step}) + "\n" for step in range(1, 5001)]
    (run / "metrics.jsonl").write_text("".join(lines) + '{"kind": "eval", "step": 5000, "fid": 1}')
    (found,) = collect([run])
    steps = [line["step"] for line in found.train]
    assert (steps[0], steps[-1]) == (1, 5000)
    assert len(steps) <= MAX_TRAIN_LINES + 1
    assert {b - a for a, b in pairwise(steps[:-1])} == {10}


def test_choices_are_those_written_down_or_those_whose_file_builds_the_same(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 5.0}, more={"choices": {"regularizer": "mine"}})
    write_run(tmp_path / "b", {300: 5.0}, settings=ICR)
    write_run(tmp_path / "c", {300: 5.0}, settings={"regularizer._target_.cr": "else.where.X"})
    both = {"classification": "Classification", "bcr": "BalancedConsistency"}
    settings = {f"regularizer._target_.{key}": f"crgan_cli.gan.{both[key]}" for key in both}
    unset = {"regularizer._target_.cr": None}
    more = {"choices": {"experiment": "demo_stargan"}}  # Hydra records no sum of a file
    write_run(tmp_path / "d", {300: 5.0}, settings={**unset, **settings}, more=more)
    told, icr, unknown, summed = collect([tmp_path])
    assert told.choices["regularizer"] == "mine"
    assert summed.choices["regularizer"] == "[bcr,classification]"
    assert summed.choices["experiment"] == "demo_stargan"
    assert icr.choices["regularizer"] == "icr"
    assert icr.choices["architecture"] == "sndcgan"
    assert "regularizer" not in unknown.choices


def test_the_newest_artefacts_count(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {300: 50.0})
    for at, (step, weights) in enumerate([(300, "ema"), (300, "raw"), (200, "ema")]):
        folder = run / "artefacts" / f"step_{step}_{weights}"
        folder.mkdir(parents=True)
        file = folder / "leakage.json"
        file.write_text(json.dumps({"step": step, "generator_weights": weights}))
        os.utime(file, (at, at))
    (found,) = collect([run])
    assert found.artefacts == {"leakage": {"step": 300, "generator_weights": "raw"}}


# --- numbers of crgan eval ---


def evaluation(step: int, **values: object) -> str:
    return json.dumps({"checkpoint": "x.pt", "step": step, "protocol": PROTOCOL, **values}) + "\n"


def test_a_run_without_metrics_has_those_of_crgan_eval(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {})
    lines = [evaluation(300, fid=9.0), evaluation(100, fid=30.0), evaluation(300, fid=8.0)]
    (run / "evaluations.jsonl").write_text("".join(lines))
    (found,) = collect([run])
    assert [(line["step"], line["fid"]) for line in found.evals] == [(100, 30.0), (300, 8.0)]
    assert (found.protocol, found.headline) == (PROTOCOL, "fid")


def test_checkpoints_on_the_way_up_are_of_one_protocol(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {})
    small = {**PROTOCOL, "generator_side": "8 of 32 pixels"}
    (run / "evaluations.jsonl").write_text(
        evaluation(100, fid=30.0, protocol=small) + evaluation(300, fid=8.0)
    )
    (found,) = collect([run])
    assert [line["step"] for line in found.evals] == [100, 300]


def test_a_metric_that_training_has_not_is_taken_from_crgan_eval(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {300: 50.0})
    another = {**PROTOCOL, "num_samples": 5000}
    (run / "evaluations.jsonl").write_text(
        evaluation(300, recall=0.5, protocol=another) + evaluation(300, fid=8.0)
    )
    (plain,) = collect([run])
    assert plain.evals[0]["fid"] == 50.0
    (found,) = collect([run], "recall")
    assert (found.evals[0]["recall"], found.protocol["num_samples"]) == (0.5, 5000)


def test_the_headline_is_guessed_from_the_names() -> None:
    assert (
        guess_primary_metric([{"step": 1, "is": 3.0, "is_std": 0.1, "fid": 4.0, "kid": 5.0}])
        == "fid"
    )
    assert (
        guess_primary_metric([{"kid_std_x_n5": 1.0, "fd_infinity_x_n5": 1.0}]) == "fd_infinity_x_n5"
    )
    assert guess_primary_metric([{"step": 1, "precision": 0.5}]) == ""
    assert guess_primary_metric([]) == ""


# --- what is refused ---


def test_nothing_a_file_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is nothing at .*gone"):
        collect([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is empty: .*Give the folders of runs"):
        collect([tmp_path / "empty"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file: give its run's folder"):
        collect([tmp_path / "file"])
    (tmp_path / "other" / "conf").mkdir(parents=True)
    (tmp_path / "other" / "conf" / "config.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match="other contains no run"):
        collect([tmp_path / "other"])


def test_runs_without_metrics_are_refused_with_what_to_type(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {}, settings={"metrics._target_": {}, "architecture.z_dim": 8})
    with pytest.raises(UserError, match=rf"has metrics.*\(crgan eval {run} metrics=demo\)"):
        collect([run])


def test_runs_before_their_first_evaluation_are_told_to_wait(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {}, status="running")
    with pytest.raises(UserError, match=r"has been evaluated yet .*at step 300.*Wait"):
        collect([run])


@pytest.mark.parametrize("text", ["", "- 1", "seed: [", "seed: x\nsteps: 3", "steps: 3", "a: \x00"])
def test_a_configuration_of_something_else_is_refused_with_its_version(
    tmp_path: Path, text: str
) -> None:
    run = write_run(tmp_path / "a", {300: 5.0}, more={"provenance": {"crgan": "9.9"}})
    (run / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config.yaml cannot be read.*made by crgan 9\.9\. Leave"):
        collect([run])


def test_commands_to_copy_quote_the_path(tmp_path: Path) -> None:
    quoted = f"crgan eval '{tmp_path / 'my run'}'"
    settings: dict[str, object] = {"architecture.z_dim": 8}
    for name, said in ((None, f"({quoted} metrics=demo)"), ("some.Evaluator", quoted)):
        settings["metrics._target_"] = name
        shutil.rmtree(tmp_path / "my run", ignore_errors=True)
        write_run(tmp_path / "my run", {}, settings=settings)
        with pytest.raises(UserError) as caught:
            collect([tmp_path])
        assert said in str(caught.value)

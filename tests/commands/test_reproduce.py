"""`crgan reproduce`: the tables compose, are costed, and are run, resumed and reported."""

import csv
import itertools
import json
import math
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from support.published import PUBLISHED
from support.runs import HEADLINE, Crgan, command, environment, refused, tiny

from crgan_cli.commands import main
from crgan_cli.config.compose import compose
from crgan_cli.config.messages import hydra_quoted
from crgan_cli.config.resolve import to_plain
from crgan_cli.config.stored import to_text
from crgan_cli.errors import UserError
from crgan_cli.experiments import paper_tables, plan, run_table
from crgan_cli.experiments.job import count_steps_done
from crgan_cli.experiments.paper_tables import PaperRow, Scale, load_scale, load_table
from crgan_cli.experiments.plan import TableJob, plan_jobs
from crgan_cli.experiments.preview import compose_for_cost, format_head, minutes_left
from crgan_cli.gan.stages import Stages
from crgan_cli.runs.folder import RunDir
from crgan_cli.training import costs

ABLATION = {
    "gaussian_noise": 21.91,
    "flip_shift": 16.04,
    "cutout": 17.10,
    "cutout_flip_shift": 19.46,
}
"""FID of CR with each T: arXiv:1910.12027 [unverified, low confidence]."""

TABLES = (
    "biggan",
    "celeba_hq",
    "cr_augmentation_ablation",
    "imagenet",
    "loss_by_regularizer",
    "small_models",
)
OURS = ("cifar10_cpu", "cifar10_cpu_tenth", "translation")
"""Tables that no paper has."""

EMPTY = ("fid", "source", "protocol", "settings")

PAIR = """
title: None and CR
protocol: of nobody
rows:
  - {name: none, label: W/O, experiment: none_cifar10_sndcgan}
  - {name: cr, label: CR, experiment: cr_cifar10_sndcgan, overrides: [loss=hinge]}
"""
SIZE = ("dataset=demo", "metrics=demo", *tiny("steps=2", "samples.every=2", "metrics.every=2"))


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table "pair" of two rows, and its scale "tiny"."""
    folder = tmp_path / "tables"
    (folder / "scale").mkdir(parents=True)
    (folder / "pair.yaml").write_text(PAIR)
    (folder / "scale" / "full.yaml").write_text("title: ''\nseeds: [1, 2, 3]\noverrides: []\n")
    overrides = "".join(f"  - {word}\n" for word in SIZE)
    (folder / "scale" / "tiny.yaml").write_text(
        f"title: tiny\nseeds: [1]\ncpu_minutes: 0.5\noverrides:\n{overrides}"
    )
    monkeypatch.setattr(paper_tables, "TABLES", folder)


def jobs_of(name: str, scale: str, *typed: str) -> list[TableJob]:
    """One per row; of the grid of losses every fourth of 18, with all losses."""
    table = load_table(name)
    some = table._replace(rows=table.rows[::4] if name == "loss_by_regularizer" else table.rows)
    return plan_jobs(some, load_scale(scale), (1,), typed, Path("nowhere"))


# --- the tables -----------------------------------------------------------------------------------


def test_the_tables_are_the_papers() -> None:
    assert set(paper_tables.table_names()) == {*TABLES, *OURS}
    experiments = {name: [row.experiment for row in load_table(name).rows] for name in TABLES}
    papers = [experiments[name] for name in ("small_models", "celeba_hq", "biggan", "imagenet")]
    assert sorted(itertools.chain(*papers)) == sorted(PUBLISHED)
    assert set(experiments["cr_augmentation_ablation"]) == {"cr_cifar10_sndcgan"}
    grid = {name: name.removesuffix("_cifar10_sndcgan") for name in experiments["small_models"]}
    methods = [method for name, method in grid.items() if method != name]
    losses = ("non_saturating", "hinge", "wasserstein")
    rows = [row.name for row in load_table("loss_by_regularizer").rows]
    assert rows == [f"{method}_{loss}" for loss in losses for method in methods]


@pytest.mark.parametrize("name", TABLES)
def test_a_row_is_its_experiment_with_its_published_number(name: str) -> None:
    for job in jobs_of(name, "full"):
        own = to_plain(compose([f"experiment={job.row.experiment}"]))
        if name == "loss_by_regularizer":
            loss = to_plain(compose([f"loss={job.row.name.split('_', 1)[1]}"]))["loss"]
            own |= {"loss": loss, "published": dict.fromkeys(EMPTY)}
        elif name == "cr_augmentation_ablation":
            T = to_plain(compose([f"augment={job.row.name}"]))["augment"]
            own |= {"augment": T, "published": job.config["published"]}
            assert job.config["published"]["fid"] == ABLATION[job.row.name]
            assert job.config["published"]["settings"] == f"augment={job.row.name}"
            assert "[unverified, low confidence]" in job.config["published"]["source"]
        else:
            assert job.config["published"]["fid"] == PUBLISHED[job.row.experiment]
        assert job.config == own


@pytest.mark.parametrize("name", [*TABLES, *OURS])
def test_at_the_demo_scale_every_row_is_small_and_needs_no_download(name: str) -> None:
    for job in jobs_of(name, "demo"):
        assert job.config["dataset"]["_target_"].rpartition(".")[2].startswith("Demo")
        assert job.config["extractor"]["_target_"].endswith("EfficientNetLite0")
        # the demos of translation are narrow by a setting of another name
        assert name == "translation" or job.config["architecture"]["width"] <= 0.125
        assert job.config["steps"] <= 1000
        assert job.config["steps"] % job.config["metrics"]["every"] == 0
        assert job.config["engine"]["threads"] == 1


@pytest.mark.parametrize("scale", ["full", "demo"])
def test_translation_has_each_system_without_with_cr_and_with_bcr(scale: str) -> None:
    """No paper has this table: its rows are the demos, on the included images at both scales."""
    jobs = jobs_of("translation", scale)
    tasks = [job.config["task"]["_target_"].rpartition(".")[2] for job in jobs]
    assert tasks == [name for name in ("Pix2Pix", "CycleGAN", "StarGAN") for _ in range(3)]
    parts = [set(job.config["regularizer"]["_target_"]) - {"classification"} for job in jobs]
    assert parts == [set(), {"cr"}, {"bcr"}] * 3
    assert {job.config["published"]["fid"] for job in jobs} == {None}
    assert all(job.config["steps"] == 200 for job in jobs) == (scale == "demo")


def test_the_study_for_a_cpu_varies_the_regularizer_alone() -> None:
    jobs = jobs_of("cifar10_cpu", "full")
    parts = [" ".join(sorted(job.config["regularizer"]["_target_"])) for job in jobs]
    assert parts == ["", "cr", "bcr", "bcr zcr", "zcr", "gp", "bcr zcr"]
    published, low = (jobs[index].config["regularizer"] for index in (3, 6))
    for weight in ("lambda_real", "lambda_fake", "lambda_dis", "lambda_gen"):
        assert low[weight] == pytest.approx(published[weight] / 5)
    rest = [{**job.config, "regularizer": None} for job in jobs]
    assert all(each == rest[0] for each in rest)
    assert rest[0]["extractor"]["_target_"].endswith("EfficientNetLite0")  # no download


def test_the_study_on_a_tenth_is_that_of_the_whole_set_on_fewer_images() -> None:
    whole = {job.row.name: job.config for job in jobs_of("cifar10_cpu", "full")}
    tenth = {job.row.name: job.config for job in jobs_of("cifar10_cpu_tenth", "full")}
    assert [each["dataset"].pop("fraction") for each in tenth.values()] == [0.1] * len(tenth)
    for name in ("none", "cr", "icr"):
        whole[name]["dataset"].pop("fraction")
        for part in (whole[name], tenth[name]):
            del part["published"]
        assert tenth[name] == whole[name]
    augmented = tenth["diffaugment"].pop("augment_both")
    assert list(augmented["_target_"]) == ["diffaugment"]
    del tenth["none"]["augment_both"], tenth["diffaugment"]["published"]
    assert tenth["diffaugment"] == tenth["none"]


def test_no_two_rows_share_a_folder() -> None:
    for name in (*TABLES, *OURS):
        rows = [row.name for row in load_table(name).rows]
        assert len(set(rows)) == len(rows)


def test_what_is_typed_last_counts() -> None:
    row = PaperRow("a", "A", "cr_cifar10_resnet", ("steps=1", "seed=3"))
    scale = Scale("s", "", (1,), ("steps=2",), {"resnet": ("steps=3",), "sndcgan": ("x=1",)}, None)
    assert plan.job_overrides(row, scale, ["batch_size=4"]) == (
        *("experiment=cr_cifar10_resnet", "steps=3", "seed=3", "batch_size=4"),
    )


@pytest.mark.parametrize(
    ("name", "word", "rows"),
    [
        ("small_models", "regularizer=gp", "none_sndcgan and gp_sndcgan"),
        ("loss_by_regularizer", "loss=hinge", "none_non_saturating and "),
        ("cr_augmentation_ablation", "augment=cutout", "gaussian_noise and flip_shift"),
        ("cifar10_cpu_tenth", "augment_both=diffaugment", "none and diffaugment"),
        ("biggan", "architecture=biggan_lite", "sngan and none_biggan"),
        ("translation", "dataset=demo", "none_pix2pix and none_cyclegan"),
    ],
)
def test_no_row_is_trained_with_the_method_of_another(name: str, word: str, rows: str) -> None:
    table = load_table(name)
    with pytest.raises(UserError, match=rf"^'{word}': .* {rows}.*crgan train experiment=.* {word}"):
        plan_jobs(table, load_scale("demo"), (1,), ["steps=2", word], Path("nowhere"))


def test_what_the_rows_share_can_be_typed() -> None:
    words = ("steps=2", "batch_size=4", "optimizer.n_dis=1", "architecture.width=0.02")
    jobs = jobs_of("biggan", "full", *words, "dataset=demo", "metrics=demo", "loss=wasserstein")
    assert {job.config["dataset"]["_target_"] for job in jobs} == {"crgan_cli.data.Demo"}
    assert {job.config["loss"]["_target_"] for job in jobs} == {"crgan_cli.gan.Wasserstein"}
    assert {job.config["batch_size"] for job in jobs} == {4}


@pytest.mark.parametrize(
    "value", ["a", "1.5", "Null", "../b", "a b", "it's", "a\\", "é, [x] = 'y'", "C:\\'d"]
)
def test_a_value_is_read_as_it_was(value: str) -> None:
    assert str(compose([f"published.source={hydra_quoted(value)}"]).published.source) == value


# --- what it costs --------------------------------------------------------------------------------


def test_minutes_are_the_model_by_hand() -> None:
    small = compose(["experiment=none_cifar10_sndcgan", "batch_size=16"])
    scoring = 40 * 30000 * 3e-4
    # 250 launches take 0.63 ms, and the 68 GFLOP of 16 images 0.34
    by_hand = (200000 * 250 * 2.5e-6 + scoring) / 60
    assert costs.gpu_minutes(small, 200000) == pytest.approx(by_hand)
    large = compose(["experiment=icr_cifar10_resnet"])
    d, g = 0.656, 4.772  # GFLOP of a pass: three 3x3 convolutions a block, of 128 and 256 channels
    d_turn = (g + 6 * d) + 6 * d + (3 * d + g)
    g_turn = (3 * g + 2 * d) + 3 * g
    seconds = 200000 * 64 * (5 * d_turn + g_turn) / 200e3 + scoring
    assert costs.gpu_minutes(large, 200000) == pytest.approx(seconds / 60, rel=1e-3)


def test_a_run_that_grows_costs_the_sum_of_its_stages() -> None:
    words = ["experiment=pggan_cifar10", "metrics=none", "task.fade_images=160"]
    config = compose([*words, "task.stable_images=160"])  # 10 steps, then twice 20, then 32 pixels
    sides = {4: 10, 8: 20, 16: 20, 32: 50}
    seconds = 0.0
    for side, steps in sides.items():
        stage = next(each for each in Stages.from_settings(config) if each.resolution == side)
        flop = costs.estimate_step_flops(config, stage)
        assert flop is not None
        # every stage with its own images, and each costs more than the one before
        seconds += steps * costs.seconds_per_step(config, flop)
    assert costs.gpu_minutes(config, 100) == pytest.approx(seconds / 60)
    half = costs.gpu_minutes(config, 100, done=50)
    assert half == pytest.approx(50 * costs.seconds_per_step(config, flop) / 60)
    firsts, each = zip(*costs.relative_costs(config, "cpu"), strict=True)
    assert firsts == (0, 10, 30, 50)
    assert list(each) == sorted(each)
    assert costs.relative_costs(compose([]), "cpu") == [(0, 1.0)]


def test_networks_that_cannot_be_counted_have_no_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert costs.gpu_minutes(compose(["architecture=dcgan"]), 100) is not None

    def looks_at_numbers(self: object, x: torch.Tensor, y: object) -> torch.Tensor:
        return x if x.sum().item() > 0 else -x

    monkeypatch.setattr("crgan_cli.networks.dcgan.DCGANDiscriminator.forward", looks_at_numbers)
    small = compose(["architecture=dcgan", "architecture.width=0.3"])
    assert costs.gpu_minutes(small, 100) is None


def test_disk_is_the_checkpoints_by_hand() -> None:
    config = compose(["experiment=none_cifar10_sndcgan"])
    assert costs.disk_bytes(config) == 4 * 3 * (3828739 + 5860865) * (3 + 1)
    with_average = compose(["experiment=none_cifar10_sndcgan", "ema.decay=0.9"])
    assert costs.disk_bytes(with_average) - costs.disk_bytes(config) == 4 * 3828739 * 4


# --- the command ----------------------------------------------------------------------------------


def test_a_table_is_run_gone_on_with_and_reported(pair: None, crgan: Crgan, tmp_path: Path) -> None:
    """The second row fails at first: something else lies in its folder."""
    stray = tmp_path / "out" / "cr_s1" / "notes.txt"
    stray.parent.mkdir(parents=True)
    stray.write_text("mine")
    words = ("reproduce", "pair", "--scale", "tiny", "--out", "out")
    code, out, err = crgan(*words)
    assert code == 2, err
    assert out.startswith("None and CR – tiny\n")
    failed = "out/cr_s1 failed with exit code 2: CR, seed 1"
    assert err.splitlines() == [
        "[1 of 2] W/O, seed 1: new",
        "[2 of 2] CR, seed 1: new",
        f"{failed}; the other runs continue",
        f"crgan reproduce: {failed}",
        "To train the failed runs again and skip the finished ones: "
        "crgan reproduce pair --scale tiny --out out",
    ]
    before = (tmp_path / "out/none_s1/result.json").read_bytes()
    stray.unlink()
    code, out, err = crgan(*words)
    assert code == 0, err
    assert err.splitlines()[:2] == ["[1 of 2] W/O, seed 1: finished", "[2 of 2] CR, seed 1: new"]
    assert (tmp_path / "out/none_s1/result.json").read_bytes() == before
    assert re.search("^CR +[0-9]", out, re.MULTILINE)
    page = (tmp_path / "out/report/report.html").read_text(encoding="utf-8")
    assert "regularizer=cr" in page
    assert "W/O" in page
    assert "24.73" not in out, "it belongs to CIFAR-10, and these are the demo's images"
    assert HEADLINE in out
    written = {path.name for path in (tmp_path / "out" / "report").iterdir()}
    assert {"report.md", "report.html", "table.tex", "runs.csv"} <= written
    preview = crgan(*words, "--dry-run")[1]
    assert preview.count("finished") == 3  # two rows, and their sum
    assert "left: 0 s" in preview


def test_a_dry_run_says_what_there_is_to_do(pair: None, crgan: Crgan, tmp_path: Path) -> None:
    code, out, err = crgan("reproduce", "pair", "--dry-run", "--seeds", "4,5", "batch_size=64")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["None and CR", "published: of nobody"]
    assert lines[3].split() == ["run", "row", "seed", "state", "left", "command"]
    assert [line.split()[0] for line in lines[4:8]] == ["none_s4", "cr_s4", "none_s5", "cr_s5"]
    assert lines[5].endswith(
        "crgan train experiment=cr_cifar10_sndcgan loss=hinge batch_size=64 seed=4 "
        "out=outputs/reproduce/pair/cr_s4"
    )
    left = [line.partition(" crgan")[0].split()[-2:] for line in lines[4:6]]
    assert left == [["11", "min"], ["12", "min"]]
    assert "4 runs, 0 finished" in lines[-2]
    assert "performance model, not measured" in lines[-2]
    assert lines[-1] == "disk: 1.73 GiB of checkpoints"
    assert not (tmp_path / "outputs").exists()


def test_the_list_has_every_row_with_its_number_and_its_cost(pair: None, crgan: Crgan) -> None:
    table = paper_tables.TABLES / "pair.yaml"
    third = "{name: own, label: Own, experiment: cr_cifar10_sndcgan, published: null}"
    table.write_text(f"{PAIR}  - {third}\n".replace("{name: cr,", "{name: cr, cpu_minutes: 30,"))
    code, out, err = crgan("reproduce", "--list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["pair: None and CR", "published: of nobody"]
    assert [" ".join(line.split()) for line in lines[3:7]] == [
        "row method published a run",
        "none W/O 24.73 11 min GPU",
        "cr CR 18.72 30 min CPU",
        "own Own - 12 min GPU",
    ]
    assert "performance model, not measured" in lines[-1]
    assert crgan("reproduce", "pair", "--list", "--scale", "tiny")[1].count("30 s CPU") == 3


def test_a_table_that_fits_no_gpu_says_what_to_type() -> None:
    table = load_table("imagenet")
    published, note, _ = format_head(table, load_scale("full"))
    assert published == f"published: {table.protocol}"
    assert "accumulate=32" in note
    assert "torchrun --nproc-per-node 8 -m crgan_cli" in note
    assert len(format_head(table, load_scale("demo"))) == 2, "tiny networks fit"
    (job, *_) = jobs_of("imagenet", "full", "accumulate=32")[1:]
    assert job.config["batch_size"] / job.config["accumulate"] == 64


def test_what_is_left_out_of_the_list_changes_no_cost() -> None:
    """The list composes rows that differ in these alone once."""
    rows = load_table("loss_by_regularizer").rows[::6] + load_table("cr_augmentation_ablation").rows
    for row in (rows[1], rows[2], rows[4], rows[6]):
        whole = to_plain(compose(plan.job_overrides(row, load_scale("full"), ())))
        part = compose_for_cost(row, load_scale("full"))
        assert costs.gpu_minutes(whole, 1000) == costs.gpu_minutes(part, 1000)


def test_a_row_alone_is_trained_and_costed_by_its_own_minutes(pair: None, crgan: Crgan) -> None:
    words = ("reproduce", "pair", "--dry-run", "--seeds", "4,5", "--rows", "cr")
    out = crgan(*words)[1]
    assert [line.split()[0] for line in out.splitlines()[4:6]] == ["cr_s4", "cr_s5"]
    assert "2 runs, 0 finished" in out
    table = paper_tables.TABLES / "pair.yaml"
    table.write_text(PAIR.replace("{name: cr,", "{name: cr, cpu_minutes: 30,"))
    out = crgan(*words)[1]
    assert "left: 1 h 0 min on one CPU thread [measured, or derived from that" in out


def test_a_report_has_all_rows_and_seeds_that_have_begun(
    pair: None, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_here(self: run_table.ProcessRunner, argv: Sequence[str]) -> int:
        return main.run_command(list(argv))

    monkeypatch.setattr(run_table.ProcessRunner, "run", run_here)
    words = ("reproduce", "pair", "--scale", "tiny", "--out", "out")
    assert crgan(*words, "--rows", "none")[0] == 0
    code, _, err = crgan(*words, "--seeds", "2")
    assert code == 0, err
    assert "[2 of 2] CR, seed 2" in err
    with (tmp_path / "out/report/rows.csv").open(encoding="utf-8") as file:
        runs = {line["row"]: line["n"] for line in csv.DictReader(file)}
    assert runs == {"W/O": "2", "CR": "1"}
    other = crgan(*words, "--rows", "cr", "--seeds", "3", "batch_size=5", "--dry-run")
    refused(other, "none_s1 holds a run with other settings", "batch_size: 4 -> 5")


def test_a_run_that_another_begins_at_the_same_time_is_no_failure(
    pair: None, crgan: Crgan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def beside_another(self: run_table.ProcessRunner, argv: Sequence[str]) -> int:
        """The first run's folder is taken after it was found to be new."""
        if "experiment=none_cifar10_sndcgan" in argv:
            (tmp_path / "out" / "none_s1").mkdir(parents=True)
            held.acquire()
        return main.run_command(list(argv))

    held = FileLock(tmp_path / "out" / "none_s1" / ".lock")
    monkeypatch.setattr(run_table.ProcessRunner, "run", beside_another)
    code, _, err = crgan("reproduce", "pair", "--scale", "tiny", "--out", "out")
    held.release()
    assert code == 0, err
    assert "another crgan is training in out/none_s1 now" in err
    assert "[1 of 2] W/O, seed 1: running elsewhere, where it began first" in err
    assert "[2 of 2] CR, seed 1: new" in err
    assert "failed" not in err


def test_ctrl_c_saves_the_run_and_says_how_to_go_on(tmp_path: Path) -> None:
    """The real command, in a process of its own."""
    sizes = tiny("steps=100000", "metrics.every=50000", "samples.every=50000", "log.every=1")
    words = ("reproduce", "cr_augmentation_ablation", "--scale", "demo", "--out", "out", *sizes)
    running = subprocess.Popen(
        command(*words), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    )
    run = RunDir(tmp_path / "out" / "gaussian_noise_s1")
    deadline = time.monotonic() + 600
    while not run.metrics.exists() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=300)
    assert running.returncode == 130, err
    assert err.splitlines()[-1].startswith(
        "crgan reproduce: stopped. Resume with: crgan reproduce cr_augmentation_ablation "
    )
    assert err.splitlines()[-1].endswith("--scale demo --out out")
    result = run.read_result()
    assert (result["status"], result["signal"]) == ("interrupted", signal.SIGINT)
    assert list(run.checkpoints.glob("step_*.pt"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["gaussian_noise_s1"]


# --- what a folder holds --------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path) -> TableJob:
    """One of a table, with what a finished run of it leaves."""
    (first, *_) = plan_jobs(load_table("biggan"), load_scale("demo"), (1,), (), tmp_path / "out")
    first.folder.mkdir(parents=True)
    config = compose([*first.overrides, "seed=1"])
    RunDir(first.folder).config.write_text(to_text(config))
    result = {"status": "finished", "step": first.config["steps"]}
    RunDir(first.folder).result.write_text(json.dumps(result))
    return first


def test_a_run_is_told_by_its_folder(job: TableJob, tmp_path: Path) -> None:
    run = RunDir(job.folder)
    assert run_table.job_state(job) == "finished"
    assert run_table.job_state(job._replace(folder=tmp_path / "gone")) == "new"
    run.result.write_text(json.dumps({"status": "failed"}))
    assert run_table.job_state(job) == "resume"
    longer = {**job.config, "steps": 10 * job.config["steps"]}
    run.result.write_text(json.dumps({"status": "finished", "step": job.config["steps"]}))
    assert run_table.job_state(job._replace(config=longer)) == "resume"
    with FileLock(job.folder / ".lock"):
        assert run_table.job_state(job) == "running elsewhere"


def test_a_run_of_other_settings_is_refused(job: TableJob, crgan: Crgan, tmp_path: Path) -> None:
    words = ("reproduce", "biggan", "--scale", "demo", "--out", "out", "--dry-run")
    changed = crgan(*words, "batch_size=8")
    refused(changed, "sngan_s1 holds a run with other settings", "batch_size: 16 -> 8")
    refused(crgan(*words, "steps=50"), "steps: 200 -> 50", "--out FOLDER")
    refused(crgan(*words[:2], "--out", "out", "--dry-run"), "holds a run with other settings")


def test_steps_that_are_saved_count_as_done(job: TableJob) -> None:
    checkpoints = RunDir(job.folder).checkpoints
    checkpoints.mkdir()
    for step in (50, 100):
        (checkpoints / f"step_{step:08d}.pt").touch()
    assert count_steps_done(job.folder) == 100
    half = minutes_left(job, load_scale("demo"), "resume")
    assert half == pytest.approx((load_scale("demo").cpu_minutes or math.nan) / 2)


def test_minutes_on_a_cpu_follow_what_is_typed(tmp_path: Path) -> None:
    def minutes(name: str, scale: str, *typed: str) -> float | None:
        table = load_table(name)
        own = plan.choose_scale(table, load_scale(scale))
        table = table._replace(rows=table.rows[:1])
        (job,) = plan_jobs(table, own, (1,), typed, tmp_path / "out")
        return minutes_left(job, own, "new")

    assert minutes("cifar10_cpu", "full") == 45
    assert minutes("cifar10_cpu", "full", "steps=300") == pytest.approx(0.45)
    assert minutes("cifar10_cpu", "full", "steps=300", "batch_size=96") == pytest.approx(1.35)
    wide = minutes("cifar10_cpu", "full", "architecture.width=1")  # 4 * 4, but at the ends 4
    assert wide is not None
    assert 10 * 45 < wide < 16 * 45
    assert minutes("translation", "demo", "steps=100", "device=cpu") == pytest.approx(0.5)
    assert minutes("translation", "demo", "batch_size=4") is None  # FLOP of images not counted


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("small_model",), "Unknown table 'small_model'. Did you mean 'small_models'?"),
        (("x",), "Tables: biggan, celeba_hq, cifar10_cpu, cifar10_cpu_tenth, cr_augm"),
        ((), "required: TABLE"),
        (("--list", "--rows", "cr"), "--list prints what the tables are"),
        (("biggan", "--rows", "icr"), "Unknown row 'icr' in the table biggan. Rows: sngan"),
        (("biggan", "--scale", "big"), "invalid choice: 'big'"),
        (("biggan", "--seeds", "1,b"), "a whole number from 0 on"),
        (("biggan", "--seeds", "-1"), "--seeds"),
        (("biggan", "lambda=3"), "'lambda'"),
        (("biggan", "regularizer.lambda_cr=3"), "(in the row sngan)"),
        (("biggan", "seed=3"), "give --seeds 1,2,3"),
        (("biggan", "out=x"), "give --out FOLDER"),
        (("biggan", "hydra.mode=RUN"), "not started by Hydra"),
        (("biggan", "steps=1,2"), "several values"),
        (("biggan", "--out", "file"), "file is a file"),
        (("biggan", "--out", "full"), "full holds other things (thesis.tex) and no run"),
    ],
)
def test_what_cannot_be_used_is_said(
    words: tuple[str, ...], said: str, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    refused(crgan("reproduce", *words, "--dry-run"), said)
    assert not (tmp_path / "outputs").exists()

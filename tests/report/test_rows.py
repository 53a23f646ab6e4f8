"""Runs become rows: what a row is called, which numbers it has, and in which order rows stand."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.run_folders import ICR, PROTOCOL, write_run

from crgan_cli.config.resolve import format_setting
from crgan_cli.errors import UserError
from crgan_cli.report.collect import collect
from crgan_cli.report.model import Report
from crgan_cli.report.read import KILLED
from crgan_cli.report.rows import build_report
from crgan_cli.runs.status import Status

Weight = Mapping[str, object]


def weight(value: float) -> Weight:
    return {"regularizer.lambda_cr": value}


def sweep(folder: Path, fids: Mapping[float, list[float]]) -> None:
    """Runs of some weights of CR, each with its FID of the seeds 1, 2 and so on."""
    for value, scores in fids.items():
        for seed, fid in enumerate(scores, start=1):
            name = folder / f"lambda_cr={value:g},seed={seed}"
            write_run(name, {100: fid + 30, 300: fid}, seed=seed, settings=weight(value))


def reported(folder: Path, **words: object) -> Report:
    return build_report(collect([folder]), **words)  # type: ignore[arg-type]


def labels(report: Report) -> list[str]:
    return [row.label for row in report.rows]


def test_rows_are_runs_that_differ_in_their_seed_alone_best_first(tmp_path: Path) -> None:
    sweep(tmp_path, {1: [60, 62, 64], 10: [40, 42, 44], 5: [42, 44, 46]})
    report = reported(tmp_path)
    assert labels(report) == ["lambda_cr=10", "lambda_cr=5", "lambda_cr=1"]
    best = report.rows[0]
    assert best.numbers["fid"].values == (40, 42, 44)
    assert (best.numbers["fid"].mean, best.numbers["fid"].deviation) == (42, 2)
    assert best.settings == {"regularizer.lambda_cr": 10}
    assert best.cost_hours == pytest.approx(3 * 36 / 3600)
    assert (best.steps, best.note) == ((300,), "")
    assert (report.varied, report.swept) == (("regularizer.lambda_cr",), "regularizer.lambda_cr")
    assert report.headline == "fid"
    assert report.protocols == (PROTOCOL,)
    assert report.warnings == ()


def test_what_does_not_change_numbers_does_not_make_a_row(tmp_path: Path) -> None:
    silent = {"out": "x", "device": "cuda", "log.every": 7, "published.fid": 3.0}
    write_run(tmp_path / "a", {300: 50.0}, seed=1)
    write_run(tmp_path / "b", {300: 52.0}, seed=2, settings=silent)
    write_run(tmp_path / "c", {300: 54.0}, seed=3, settings={"steps": 600})
    report = reported(tmp_path)
    assert labels(report) == ["steps=300", "steps=600"]
    assert len(report.rows[0].runs) == 2


def test_a_run_from_before_a_key_existed_is_in_the_row_of_the_keys_default(tmp_path: Path) -> None:
    write_run(tmp_path / "old", {300: 50.0}, seed=1)
    write_run(tmp_path / "new", {300: 52.0}, seed=2, settings={"regularizer.classes": False})
    write_run(tmp_path / "other", {300: 54.0}, seed=1, settings={"regularizer.classes": True})
    report = reported(tmp_path)
    assert labels(report) == ["classes=false", "classes=true"]
    assert len(report.rows[0].runs) == 2


def test_comparisons_with_the_best_are_welchs_and_are_noted(tmp_path: Path) -> None:
    sweep(tmp_path, {1: [60, 62, 64], 10: [40, 42, 44], 5: [42, 44, 46], 2: [99]})
    report = reported(tmp_path)
    # both variances are 4: t = 2 / sqrt(8 / 3) with 4 degrees of freedom, whose p is
    # 1 - sin(u) (1 + cos(u)^2 / 2) with tan(u) = t / 2: 0.2879
    assert [(each.other, each.words) for each in report.comparisons] == [
        ("lambda_cr=5", "within the noise of the best (p = 0.29)"),
        ("lambda_cr=1", "worse than the best (p < 0.001)"),
        ("lambda_cr=2", "n=1: no statement"),
    ]
    assert {each.best for each in report.comparisons} == {"lambda_cr=10"}
    assert report.rows[1].note == report.comparisons[0].words
    assert report.comparisons[2].p_value is None


def test_a_row_of_one_seed_that_comes_first_leaves_the_others_their_test(tmp_path: Path) -> None:
    sweep(tmp_path, {2: [30], 10: [40, 42, 44], 5: [42, 44, 46], 1: [60, 62, 64]})
    report = reported(tmp_path)
    assert labels(report)[0] == "lambda_cr=2"
    assert {each.best for each in report.comparisons} == {"lambda_cr=10"}
    assert [(each.other, each.words) for each in report.comparisons] == [
        ("lambda_cr=2", "n=1: no statement"),
        ("lambda_cr=5", "within the noise of the best of several seeds (p = 0.29)"),
        ("lambda_cr=1", "worse than the best of several seeds (p < 0.001)"),
    ]
    assert [row.note for row in report.rows[:2]] == ["n=1: no statement", ""]


def test_where_nothing_can_be_tested_rows_are_beside_the_first(tmp_path: Path) -> None:
    sweep(tmp_path, {2: [30], 10: [40, 42]})
    only = reported(tmp_path).comparisons
    assert [(each.best, each.words) for each in only] == [("lambda_cr=2", "n=1: no statement")]


# --- which step, which number ---


def test_the_best_step_is_each_runs_own(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {100: 40.0, 300: 50.0}, seed=1)
    write_run(tmp_path / "b", {100: 60.0, 300: 44.0}, seed=2)
    last, best = reported(tmp_path), reported(tmp_path, step="best")
    assert last.rows[0].numbers["fid"].values == (50.0, 44.0)
    assert best.rows[0].numbers["fid"].values == (40.0, 44.0)
    assert best.rows[0].steps == (100, 300)
    assert best.rows[0].note == "at steps 100, 300"


def test_at_one_step_all_runs_count_that_were_measured_at_it(tmp_path: Path) -> None:
    going: dict = {"more": {"status": Status.INTERRUPTED}}
    write_run(tmp_path / "a1", {100: 40.0, 300: 50.0}, seed=1, settings=weight(1))
    write_run(tmp_path / "a2", {100: 44.0, 200: 60.0}, seed=2, settings=weight(1), **going)
    write_run(tmp_path / "a3", {300: 20.0}, seed=3, settings=weight(1))
    write_run(tmp_path / "b1", {100: 30.0}, seed=1, settings=weight(2), **going)
    write_run(tmp_path / "b2", {100: NAN}, seed=2, settings=weight(2))
    write_run(tmp_path / "c", {200: 1.0}, settings=weight(3), **going)
    report = reported(tmp_path, step=100)
    assert labels(report) == ["lambda_cr=2", "lambda_cr=1", "lambda_cr=3"]
    assert [row.numbers["fid"].values for row in report.rows[:2]] == [(30.0,), (40.0, 44.0)]
    assert [row.steps for row in report.rows] == [(100,), (100,), ()]
    assert report.at_step == "at step 100"
    assert [row.note for row in report.rows] == [
        "1 of 2 not finite, left out",
        "1 of 3 without numbers; n=1: no statement",
        "1 of 1 interrupted, no numbers",
    ]
    said = "--step 250: no run has fid at this step. The nearest evaluations are at 200 and 300, "
    with pytest.raises(UserError, match=f"{said}from 100 to 300 in all"):
        reported(tmp_path, step=250)


def test_another_metric_can_be_asked_for_and_may_be_better_when_higher(tmp_path: Path) -> None:
    for name, score in {"a": 5.0, "b": 7.0}.items():
        settings = weight(score)
        write_run(tmp_path / name, {300: score}, settings=settings, others={"is": score, "kid": 1})
    assert labels(reported(tmp_path)) == ["lambda_cr=5", "lambda_cr=7"]
    report = reported(tmp_path, metric="is")
    assert labels(report) == ["lambda_cr=7", "lambda_cr=5"]
    assert list(report.rows[0].numbers) == ["is", "fid", "kid"]
    with pytest.raises(UserError, match="--metric recall: no run has this metric"):
        reported(tmp_path, metric="recall")


# --- runs that did not end well ---


def test_unfinished_runs_are_left_out_where_others_finished_and_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {100: 90.0, 300: 50.0}, seed=1)
    write_run(tmp_path / "b", {100: 80.0}, seed=2, status="running")
    error = "RunFailed: loss/d became nan at step 7."
    write_run(tmp_path / "c", {}, seed=3, status="failed", more={"error": error})
    report = reported(tmp_path)
    (row,) = report.rows
    assert row.numbers["fid"].values == (50.0,)
    assert row.note == "1 of 3 interrupted, 1 of 3 failed, left out"
    assert report.warnings == (
        f"{tmp_path / 'b'} interrupted at step 300 of 300: {KILLED}",
        f"{tmp_path / 'c'} failed at step 300 of 300: {error}",
    )


def test_rows_without_finished_runs_and_without_numbers_come_last(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0}, settings=weight(1))
    for seed, steps in {1: {100: 20.0}, 2: {100: 22.0, 200: 24.0}}.items():
        write_run(tmp_path / f"b{seed}", steps, seed=seed, settings=weight(2), status="interrupted")
    write_run(tmp_path / "c", {}, settings=weight(3), status="failed")
    report = reported(tmp_path)
    assert labels(report) == ["lambda_cr=1", "lambda_cr=2", "lambda_cr=3"]
    assert report.rows[1].numbers["fid"].values == (20.0, 24.0)
    said = "2 of 2 interrupted, numbers so far; at steps 100, 200; n=1: no statement"
    assert report.rows[1].note == said
    assert (dict(report.rows[2].numbers), report.rows[2].note) == ({}, "1 of 1 failed, no numbers")


NAN = float("nan")


def test_a_seed_whose_last_number_is_none_is_left_out_and_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a1", {100: 60.0, 300: 50.0}, seed=1, settings=weight(1))
    write_run(tmp_path / "a2", {100: 10.0, 300: NAN}, seed=2, settings=weight(1))
    write_run(tmp_path / "b", {100: 9.0, 300: float("inf")}, settings=weight(2))
    report = reported(tmp_path)
    a, b = report.rows
    assert a.numbers["fid"].values == (50.0,), "not the 10.0 of an earlier step"
    assert (a.steps, [run.seed for run in a.counted]) == ((300,), [1])
    assert a.note == "1 of 2 not finite, left out"
    assert (dict(b.numbers), b.note) == ({}, "no numbers, 1 of 1 not finite, left out")
    assert report.warnings == tuple(
        f"{tmp_path / name} holds numbers that are not finite, which count nowhere: fid at step "
        "300 of metrics.jsonl"
        for name in ("a2", "b")
    )
    best = reported(tmp_path, step="best")
    assert [row.numbers["fid"].values for row in best.rows] == [(9.0,), (50.0, 10.0)]
    assert best.warnings == report.warnings


def test_another_metric_that_is_none_lowers_its_own_n_only(tmp_path: Path) -> None:
    for seed, kid in enumerate([0.5, NAN, 0.3], start=1):
        write_run(tmp_path / str(seed), {300: 40.0}, seed=seed, others={"kid": kid, "is": NAN})
    (row,) = reported(tmp_path).rows
    assert row.numbers["fid"].values == (40.0,) * 3
    assert row.numbers["kid"].values == (0.5, 0.3)
    assert "is" not in row.numbers


def test_numbers_of_every_file_that_are_none_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {300: 40.0}, more={"best": {"kid": NAN}, "seconds": NAN})
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 300, "images_seen": 4800, "loss/d": NaN}\n')
        file.write('{"kind": "eval", "step": NaN, "fid": 1.0}\n')
    (run / "evaluations.jsonl").write_text('{"step": 7, "protocol": {}, "a": -Infinity}\n')
    report = reported(tmp_path)
    (warning,) = report.warnings
    assert warning.endswith(
        ": seconds of result.json, best.kid of result.json, loss/d at step 300 of metrics.jsonl "
        "and 1 more"
    )
    assert report.rows[0].numbers["fid"].values == (40.0,)
    assert report.rows[0].cost_hours == pytest.approx(16 * 300 / 200 / 3600), "from the log"


def test_a_seed_that_ran_twice_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {100: 70.0}, seed=1, status="failed")
    write_run(tmp_path / "b", {300: 50.0}, seed=1)
    write_run(tmp_path / "c", {300: 52.0}, seed=2)
    report = reported(tmp_path)
    assert report.rows[0].numbers["fid"].values == (50.0, 52.0)
    assert len(report.rows[0].runs) == 2
    assert report.warnings[-1] == (
        f"{tmp_path / 'a'} repeats {tmp_path / 'b'} (the same settings and seed 1) and is left out"
    )


def test_a_repeat_with_other_numbers_is_said_to_be_unequal(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {100: 70.0, 200: 50.5}, seed=1, status="failed")
    write_run(tmp_path / "b", {200: 50.0, 300: 40.0}, seed=1)
    assert (
        reported(tmp_path)
        .warnings[-1]
        .endswith("is left out, though unequal: fid is 50.5 and 50 at step 200")
    )


def test_commits_are_shown_where_those_of_a_row_differ(tmp_path: Path) -> None:
    for seed, commit in enumerate(("a" * 40, "b" * 40 + "+", "a" * 40), start=1):
        more = {"provenance": {"commit": commit}}
        write_run(tmp_path / f"run{seed}", {300: 50.0}, seed=seed, more=more)
    (row,) = reported(tmp_path).rows
    assert row.note.endswith("of different commits: aaaaaaa, bbbbbbb+")
    (row,) = build_report(collect([tmp_path / "run1", tmp_path / "run3"])).rows
    assert "commit" not in row.note


def test_settings_that_change_no_number_split_no_row(tmp_path: Path) -> None:
    for seed, every in enumerate((100, 300), start=1):
        more = {"metrics.every": every, "metrics.batch_size": every, "log.every": every}
        write_run(tmp_path / f"run{seed}", {300: 50.0}, seed=seed, settings=more)
    (row,) = reported(tmp_path).rows
    assert len(row.runs) == 2


# --- labels ---


def test_a_choice_stands_for_all_that_comes_with_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0})
    write_run(tmp_path / "b", {300: 40.0}, settings=ICR)
    report = reported(tmp_path)
    assert labels(report) == ["regularizer=icr", "regularizer=cr"]
    assert report.rows[0].settings == {"regularizer": "icr"}
    assert report.swept == ""


def test_a_setting_is_listed_where_rows_of_one_choice_differ_in_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0}, settings=weight(1))
    write_run(tmp_path / "b", {300: 51.0}, settings=weight(10))
    write_run(tmp_path / "c", {300: 52.0}, settings=ICR)
    report = reported(tmp_path)
    assert labels(report) == [
        "regularizer=cr lambda_cr=1",
        "regularizer=cr lambda_cr=10",
        "regularizer=icr",
    ]
    assert report.swept == "regularizer.lambda_cr"


def test_a_sum_of_regularizers_is_named_as_it_was_typed_and_strangers_by_class(
    tmp_path: Path,
) -> None:
    write_run(tmp_path / "a", {300: 50.0}, more={"choices": {"regularizer": "[cr,gp]"}})
    write_run(tmp_path / "b", {300: 51.0}, settings={"regularizer._target_.cr": "mine.Slope"})
    write_run(
        tmp_path / "c", {300: 52.0}, settings={**ICR, "regularizer._target_.zcr": "mine.Near"}
    )
    assert labels(reported(tmp_path)) == [
        "regularizer=[cr,gp]",
        "regularizer=Slope",
        "regularizer=BalancedConsistency+Near",
    ]


def test_what_an_architecture_takes_from_the_data_set_is_not_listed(tmp_path: Path) -> None:
    for size in (32, 64):
        settings = {"dataset.resolution": size, "architecture.resolution": size}
        write_run(tmp_path / str(size), {300: size}, settings=settings)
    assert labels(reported(tmp_path)) == [
        "dataset.resolution=32",
        "dataset.resolution=64",
    ]


def test_an_ending_that_other_keys_have_keeps_its_group(tmp_path: Path) -> None:
    for every in (1, 4):
        write_run(tmp_path / str(every), {300: every}, settings={"regularizer.every": every})
    assert labels(reported(tmp_path)) == ["regularizer.every=1", "regularizer.every=4"]


def test_a_row_alone_is_named_by_what_it_is(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0})
    assert labels(reported(tmp_path)) == ["dataset=demo architecture=sndcgan regularizer=cr"]


def test_several_numbers_that_differ_are_no_sweep_of_one(tmp_path: Path) -> None:
    for value in (1, 2):
        settings = {**weight(value), "batch_size": 8 * value}
        write_run(tmp_path / str(value), {300: value}, settings=settings)
    assert reported(tmp_path).swept == ""


def test_settings_are_written_as_they_are_typed() -> None:
    values = (10.0, 0.0004, 1e-8, 0.1234567, True, None, 3, "[a,b]")
    said = ["10", "0.0004", "1e-08", "0.1234567", "true", "null", "3", "[a,b]"]
    assert [format_setting(value) for value in values] == said


# --- protocols ---


def protocol(**changed: object) -> dict[str, object]:
    return {"protocol": {**PROTOCOL, **changed}}


def test_numbers_of_two_protocols_are_refused_unless_forced(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0}, settings=weight(1))
    write_run(tmp_path / "b", {300: 40.0}, settings=weight(2), more=protocol(num_samples=500))
    with pytest.raises(UserError, match=r"num_samples: 10000, 500\n.*--force"):
        reported(tmp_path)
    report = reported(tmp_path, force=True)
    assert report.rows[0].numbers["fid"].mean == 40.0
    (warning,) = report.warnings
    assert warning.startswith("NOT COMPARABLE: the numbers of")
    assert "num_samples: 10000, 500" in warning
    assert len(report.protocols) == 2


def test_a_forced_row_of_another_metric_keeps_its_own_numbers(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0}, settings=weight(1))
    write_run(tmp_path / "a2", {300: 50.0}, settings=weight(1), seed=2)
    run = write_run(tmp_path / "b", {300: 9.0}, settings=weight(2), more=protocol(headline="fd_x"))
    file = run / "metrics.jsonl"
    file.write_text(file.read_text().replace('"fid"', '"fd_x"'))
    result = run / "result.json"
    result.write_text(result.read_text().replace('"inception"', '"x"'))
    report = reported(tmp_path, force=True)
    assert labels(report) == ["lambda_cr=1", "lambda_cr=2"]
    assert dict(report.rows[1].numbers) != {}
    assert report.rows[1].numbers["fd_x"].mean == 9.0


def test_what_is_information_may_differ(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0}, seed=1)
    write_run(tmp_path / "b", {300: 40.0}, seed=2, more=protocol(generator_weights="ema"))
    report = reported(tmp_path)
    assert (len(report.protocols), report.warnings) == (1, ())


def test_a_run_on_its_way_is_compared_by_its_configuration(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0})
    same = {"metrics.every": 50, **weight(2)}
    write_run(tmp_path / "b", {100: 70.0}, settings=same, status="interrupted")
    assert len(reported(tmp_path).rows) == 2
    other = {"metrics.num_samples": 500}
    write_run(tmp_path / "c", {100: 70.0}, settings=other, status="interrupted")
    with pytest.raises(UserError, match=r"metrics.num_samples: 10000, 500"):
        reported(tmp_path)


# --- the published number ---


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "41.5: ours +0.50, within our spread (p = 0.85)"),
        (protocol(protocol="demo_5k_test"), "41.5 (protocol differs)"),
    ],
)
def test_a_published_number_is_compared_by_its_own_protocol_alone(
    tmp_path: Path, more: Mapping[str, object], words: str
) -> None:
    settings = {"published.fid": 41.5, "published.protocol": "demo_10k_test"}
    for seed, fid in enumerate([40.0, 42.0, 44.0]):
        write_run(tmp_path / str(seed), {300: fid}, seed=seed, settings=settings, more=more)
    assert reported(tmp_path).rows[0].published == words


def test_a_published_number_stands_alone_where_there_is_none_of_ours(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {300: 50.0})
    settings = {"published.fid": 41.5, **weight(2)}
    write_run(tmp_path / "b", {}, settings=settings, status="failed")
    assert [row.published for row in reported(tmp_path).rows] == ["", "41.5"]

"""What stands behind a report: the protocols, the runs, and what made it."""

from collections.abc import Mapping
from datetime import UTC, datetime

from crgan_cli import __version__
from crgan_cli.report.markup import Markup, counted, joined, table, tag
from crgan_cli.report.model import Report, RunFiles

STATES = ("failed", "interrupted", "running", "finished")
"""In the order in which a reader has to look at them."""


def protocols(report: Report) -> list[Markup]:
    """How the numbers were measured."""
    parts: list[Markup] = []
    for record in report.protocols:
        pairs = [part for key, value in record.items() for part in described(key, value)]
        parts += [
            tag("p", sentence(record)),
            tag("details", tag("summary", "The whole record"), tag("dl", *pairs)),
        ]
    return parts


def sentence(record: Mapping[str, object]) -> Markup:
    """A protocol in words."""

    def said(key: str, otherwise: str = "unrecorded") -> str:
        return str(record.get(key, otherwise))

    repeats = said("repeats", "1")
    more = "" if repeats == "1" else f", the mean over {repeats} such sets"
    return joined(
        [
            tag("strong", said("protocol", "Unnamed protocol")),
            f": {said('num_samples')} generated images{more}, against {said('num_real')} real ones "
            f"of the split {said('reference_split')}, through the extractor {said('extractor')} "
            "(SHA-256 of its weights ",
            tag("code", said("extractor_sha256")),
            f"). Rounding: {said('rounding')}. Resize: {said('resize')}. "
            f"Weights of the generator: {said('weights')}.",
        ]
    )


def described(key: str, value: object) -> list[Markup]:
    """An entry of a record; one that holds others gives them all."""
    if isinstance(value, Mapping):
        return [part for k, v in value.items() for part in described(f"{key}.{k}", v)]
    return [tag("dt", key), tag("dd", str(value))]


def runs(report: Report) -> Markup:
    """Every run, those that failed first."""
    order = {state: number for number, state in enumerate(STATES)}
    listed = sorted(
        ((run, row) for row in report.rows for run in row.runs),
        key=lambda each: order.get(each[0].status, len(STATES)),
    )
    body = [
        (
            joined([tag("code", str(run.path)), tag("span", run.error, class_="quiet failed")])
            if run.error
            else tag("code", str(run.path)),
            tag("span", run.status, class_=run.status),
            row.label,
            str(run.seed),
            f"{run.step} of {run.steps}",
            f"{run.seconds / 3600:.3g}",
            run.device,
        )
        for run, row in listed
    ]
    states = [run.status for run, _ in listed]
    text = ", ".join(f"{states.count(each)} {each}" for each in STATES if each in states)
    head = ("Folder", "Status", "Row", "Seed", "Step", "Hours", "Device")
    return table("Runs", head, body, numeric=(3, 4, 5), note=f"{text}.")


def made(report: Report) -> list[Markup]:
    """By what, from what, and of when."""
    everything = [run for row in report.rows for run in row.runs]
    newest = max((at for run in everything if (at := written(run))), default=0.0)
    when = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC") if newest else ""
    dated = f" The newest file of these runs is of {when}." if when else ""
    hours = sum(row.cost_hours for row in report.rows)
    devices = sorted({run.device for run in everything if run.device})
    on = f" on {', '.join(devices)}" if devices else ""
    return [
        tag(
            "p",
            "By ",
            tag("code", "crgan report"),
            f" of crgan {__version__}, from the files of {counted(len(everything), 'run')}, which "
            f"cost {hours:.3g} hours{on}.{dated}",
        )
    ]


def written(run: RunFiles) -> float:
    """When a run's newest file was written, in seconds since 1970; 0 where there is none."""
    files = [run.path / name for name in ("config.yaml", "metrics.jsonl", "result.json")]
    files += [run.samples] if run.samples else []
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)

"""The number of a paper beside a run, and whether it belongs there.

It belongs to the settings of the experiment that brings it, and to its own protocol.
"""

import shlex
from collections.abc import Mapping
from functools import cache

from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import flatten
from crgan_cli.config.stored import MAY_CHANGE_ON_RESUME, differing_keys, is_below
from crgan_cli.report.model import ChosenStep, Row, Value
from crgan_cli.report.settings import fill_config, to_value
from crgan_cli.report.statistics import describe_published
from crgan_cli.runs.status import Status

NEUTRAL = (
    "seed",
    "metrics",  # what was measured has its protocol
    "extractor",
    "measure",
    *(key for key in MAY_CHANGE_ON_RESUME if key != "steps"),
)
"""Keys that say where, by what means and how often a run is measured: no number belongs to them."""

BEST_OF = ("loss", "optimizer")
"""Groups over which the papers' numbers are the best [unverified]: another choice is a setting."""


def find_published(config: Mapping[str, Value], choices: Mapping[str, str]) -> dict[str, Value]:
    """Return the published number of a run: fid, source and protocol; empty if it has none.

    The number of an experiment whose regularizer, networks, data set, T or task the user replaced
    is none of the run's. If other settings differ, `changed` names them. A number that was typed
    belongs to the experiment with the published.settings that were typed with it; without these, to
    all that was typed.
    """
    if config.get("published.fid") is None:
        return {}
    experiment = choices.get("experiment")
    belongs = config.get("published.settings")
    own = compose_experiment(experiment, str(belongs or "")) if experiment else {}
    number = {key: config.get(f"published.{key}") for key in ("fid", "source", "protocol")}
    number["protocol"] = number["protocol"] or own.get("published.protocol")
    if experiment and not own:
        more = " with published.settings" if belongs else ""
        return {**number, "changed": f"not known: experiment={experiment}{more} is not here"}
    if not belongs and own.get("published.fid") != number["fid"]:
        return number
    keys = dict.fromkeys([*own, *config])
    expected, found = fill_config(own, keys), fill_config(config, keys)
    changed = [
        key
        for key in differing_keys(expected, found)
        if not is_below(key, NEUTRAL)
        # a key that only an older crgan can lack, as its class is there
        and (key in found or "._target_" in key)
    ]
    if any("._target_" in key and not is_below(key, BEST_OF) for key in changed):
        return {}
    names = dict.fromkeys(key.partition("._target_")[0] for key in changed)
    return {**number, **({"changed": ", ".join(names)} if names else {})}


@cache
def compose_experiment(name: str, more: str) -> dict[str, Value]:
    """Return dotted key -> value of an experiment as it is now, with more settings, typed as in a
    shell; empty if it is not here."""
    try:
        composed = compose([f"experiment={name}", *shlex.split(more)])
        return {key: to_value(value) for key, value in flatten(composed).items()}
    except ValueError:  # a UserError, or shlex's of a quote that is not closed
        return {}


def format_published(row: Row, metric: str, step: ChosenStep) -> str:
    """Return the published FID next to ours, compared only if it is of the same."""
    published = row.runs[0].published
    if not published:
        return ""
    if (fid := comparable_published(row, metric, step)) is not None:
        return describe_published(row.numbers[metric], fid)
    why = f" ({find_difference(row, metric, step)})" if row.numbers else ""
    return f"{published['fid']:g}{why}"


def comparable_published(row: Row, metric: str, step: ChosenStep) -> float | None:
    """Return the published FID if ours has its settings, its protocol and its steps."""
    fid = row.runs[0].published.get("fid")
    if row.numbers and isinstance(fid, int | float) and not find_difference(row, metric, step):
        return float(fid)
    return None


def find_difference(row: Row, metric: str, step: ChosenStep) -> str:
    """Return why the published number of a row is none of its own number's kind; "" if it is."""
    published = row.runs[0].published
    if published.get("changed"):
        return f"settings differ: {published['changed']}"
    protocols = {run.protocol.get("protocol") for run in row.shown}
    if not published.get("protocol") or protocols != {published["protocol"]}:
        return "protocol differs"
    if metric != "fid" or metric not in row.numbers:
        return "of FID"
    steps = {run.steps for run in row.shown}
    early = isinstance(step, int) and step not in steps
    if early or any(run.status != Status.FINISHED for run in row.shown):
        return f"after {' or '.join(map(str, sorted(steps)))} steps"
    return ""

"""The model card of an exported generator: what it is, its numbers, how to load it."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

from crgan_cli import __version__
from crgan_cli.config.resolve import Settings
from crgan_cli.config.sides import Sides
from crgan_cli.evaluation.export.formats import Format
from crgan_cli.evaluation.export.plain import Plan
from crgan_cli.evaluation.load import LoadedGenerator, find_run
from crgan_cli.evaluation.records import Evaluation, parse_record
from crgan_cli.report.model import RunFiles
from crgan_cli.report.read import read_run
from crgan_cli.runs.folder import RunDir
from crgan_cli.runs.jsonl import is_evaluation, read_records
from crgan_cli.system.numbers import format_metric

UNSTATED = "not known, **state it here before you share this**"
"""The licence of data that are the user's."""

GROUPS = (
    *("task", "dataset", "sampler", "architecture", "loss", "regularizer"),
    *("augment", "augment_both"),
)
"""The groups of settings that a card names."""


class Agreement(NamedTuple):
    """How far the file's images are from those of crgan."""

    difference: float  # the largest, of values in about [-1, 1]
    batches: tuple[int, ...]  # the sizes that were compared


def write_card(
    model: LoadedGenerator,
    settings: Settings,
    plan: Plan,
    kind: Format,
    checked: Agreement,
    picture: Path | None,
) -> str:
    """Return the card as Markdown. `settings`: the run's; `picture`: its file beside the card."""
    run = find_run(model.path)
    files = read_run(run.path) if run else None
    rows = [
        *describe_choices(settings, files),
        ("training images", describe_images(settings.get("dataset", {}))),
        ("steps", f"{model.step}, seed {model.seed}, batches of {settings.get('batch_size')}"),
        ("weights", "an average over steps (EMA)" if model.weights == "ema" else "raw"),
        ("written", f"{date.today()} by crgan {__version__} (`crgan export`)"),
    ]
    if model.side:
        rows.insert(-1, ("grown to", f"{model.side}; smaller images are doubled"))
    return "\n".join(
        [
            "# A generator of crgan",
            "",
            *([f"![images of this generator]({picture.name})", ""] if picture else []),
            "| | |",
            "|---|---|",
            *(f"| {name} | {escape(str(value))} |" for name, value in rows),
            "",
            "## Licence",
            "",
            f"- of the training images: {UNSTATED}",
            f"- of this generator: {UNSTATED}",
            "",
            "## Numbers",
            "",
            *describe_numbers(model, run, files),
            "",
            "## Load it",
            "",
            *(f"- `{each.name}`: {escape(each.meaning)}" for each in plan.inputs),
            "- `images`: (N, C, H, W) float32, about in [-1, 1]: clamp, then "
            "`(images + 1) * 127.5`, rounded, is uint8",
            *(f"- {remark}" for remark in plan.remarks),
            "",
            "```python",
            kind.explain_loading(plan.inputs),
            "```",
            "",
            "## How it was checked",
            "",
            f"`{kind.file}` was loaded again and compared with crgan's own generator on a CPU in "
            f"fp32, for batches of {' and '.join(map(str, checked.batches))}: the largest "
            f"difference of a value is {checked.difference:.1e}.",
            "",
        ]
    )


def describe_images(data: Settings) -> str:
    """Return size, channels and classes of a data set; of pairs, the channels of both halves."""
    resolution = data.get("resolution")
    size = "{}x{}".format(*Sides.read(resolution)) if resolution else "?"
    if "channels_in" in data:
        halves = (count_things(data[f"channels_{each}"], "channel") for each in ("in", "out"))
        channels = "pairs of {} and {}".format(*halves)
    else:
        channels = count_things(data.get("channels", "?"), "channel")
    return f"{size}, {channels}, {count_things(data.get('classes') or 'no', 'class')}"


def count_things(count: object, name: str) -> str:
    """Return a number with its noun: 1 class, 2 classes."""
    if count == 1:
        return f"1 {name}"
    return f"{count} {name}{'es' if name.endswith('s') else 's'}"


def describe_choices(settings: Settings, files: RunFiles | None) -> Iterator[tuple[str, str]]:
    """Yield group and choice, or the classes of a group whose choice is not known."""
    for group in GROUPS:
        choice = files.choices.get(group) if files else None
        target = settings.get(group, {}).get("_target_")
        targets = target.values() if isinstance(target, dict) else [target]
        classes = ", ".join(str(each).rpartition(".")[2] for each in targets if each)
        if classes:
            yield group, choice or classes


def describe_numbers(
    model: LoadedGenerator, run: RunDir | None, files: RunFiles | None
) -> Iterator[str]:
    """Yield tables of the numbers of this step and these weights, each below its protocol."""
    found = list(find_evaluations(model, run, files)) if run and files else []
    if not found:
        yield "Not measured at this step: `crgan eval RUN` measures it."
    for number, (_, values, protocol) in enumerate(found):
        if number:
            yield ""
        parts = ("protocol", "dataset", "num_samples", "num_real", "extractor", "batch_norm")
        told = [f"{key}: {protocol[key]}" for key in parts if key in protocol]
        yield f"{model.weights} weights; {escape('; '.join(told))}"
        yield ""
        yield "| metric | value |"
        yield "|---|---|"
        for name, value in values.items():
            yield f"| `{name}` | {format_metric(value)} |"


def find_evaluations(model: LoadedGenerator, run: RunDir, files: RunFiles) -> Iterator[Evaluation]:
    """Yield the run's evaluations of this step and these weights, the newest of each protocol."""
    lines = [{**line, "protocol": files.protocol} for line in files.evals]
    found = {}
    for line in [*lines, *read_records(run.evaluations, is_evaluation)]:
        if line.get("step") == model.step:
            evaluation = parse_record(line)
            evaluation.values.pop("images_seen", None)
            if evaluation.protocol.get("generator_weights") == model.weights:
                found[str(evaluation.protocol.get("protocol")), *evaluation.values] = evaluation
    yield from found.values()


def escape(text: str) -> str:
    """Escape what ends a cell or begins a link or HTML in Markdown."""
    for letter in "\\|<[":
        text = text.replace(letter, f"\\{letter}")
    return text

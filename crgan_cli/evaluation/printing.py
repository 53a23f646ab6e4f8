"""Show evaluations: as text, and as a curve over the steps."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from crgan_cli.errors import RunFailed
from crgan_cli.evaluation.records import Evaluation
from crgan_cli.report.plots import BLUE, GREY, make_panels, save_figure
from crgan_cli.runs.protocol import differences
from crgan_cli.system.numbers import align_points, format_metric


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the numbers and what they are of."""
    source = evaluation.source
    line = str(source.get("checkpoint", source.get("samples")))
    if "step" in source:
        weights = evaluation.protocol["generator_weights"]
        line += f" at step {source['step']}, {weights} weights"
        if side := evaluation.protocol.get("generator_side"):
            line += f", images of {side}"
    print(line)
    width = name_width(evaluation.values)
    for name, value in evaluation.values.items():
        print(f"  {name:{width}s} {format_metric(value)}")


def name_width(names: Iterable[str]) -> int:
    """Return the width of a column of these names."""
    return max([32, *map(len, names)])


def print_protocol(evaluation: Evaluation) -> None:
    """Print everything that the numbers depend on."""
    print("by the protocol")
    for key, value in evaluation.protocol.items():
        settings = value if isinstance(value, dict) else {key: value}
        for name, setting in settings.items():
            print(f"  {name:32s} {setting}")


def print_comparison(ours: Evaluation, theirs: Evaluation, name: str) -> None:
    """Print the numbers of both, and the difference of those that both have."""
    if lines := differences(ours.protocol, theirs.protocol):
        print(f"DIFFERENT PROTOCOLS, not comparable with {name}:")
        for line in lines:
            print(f"  {line}")
    # names carry the extractor and the count: different protocols may share no name
    names = list(dict.fromkeys([*ours.values, *theirs.values]))
    width = name_width(names)
    head = f"{'compared with ' + name:{width + 2}s}"
    print(f"{head} {'this':>12s} {'that':>12s} {'difference':>12s}")
    shared = ours.values.keys() & theirs.values.keys()
    columns = [
        [format_metric(ours.values[key]) if key in ours.values else "-" for key in names],
        [format_metric(theirs.values[key]) if key in theirs.values else "-" for key in names],
        [
            format_metric(ours.values[key] - theirs.values[key], "+") if key in shared else "-"
            for key in names
        ],
    ]
    for key, *cells in zip(names, *map(align_points, columns), strict=True):
        print(f"  {key:{width}s} {cells[0]:>12s} {cells[1]:>12s} {cells[2]:>12s}".rstrip())


def save_curve(evaluations: Sequence[Evaluation], run: Path) -> Path:
    """Plot the primary metric of each checkpoint over its step. Return the picture's path."""
    last = evaluations[-1].protocol
    name = str(last["headline"])
    figure, (axes,) = make_panels(1, f"{last['protocol']}, {last['extractor']}")
    steps = [float(str(evaluation.source["step"])) for evaluation in evaluations]
    axes.plot(steps, [each.values[name] for each in evaluations], color=BLUE, marker="o")
    if (floor := evaluations[-1].values.get(f"{name}_floor")) is not None:
        axes.axhline(floor, color=GREY, linestyle="--", label="real-vs-real distance")
        axes.legend()
    axes.set(xlabel="step", ylabel=f"{name} (lower is better)")
    path = run / f"curve_{name}_{last['protocol']}.png"
    try:
        save_figure(figure, path)
    except OSError as error:
        raise RunFailed(f"the curve could not be written to {path} ({error.strerror}).") from error
    return path

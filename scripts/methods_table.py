"""Print the table of methods in docs/methods.md: what D sees, and what a step costs.

    python scripts/methods_table.py

Passes are counted from the plan of a step (`crgan_cli.training.flops`), in forward passes of one
image: a forward and backward pass are three. A test compares the page with what this prints.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from crgan_cli.config.choices import Choices, conf_dir  # noqa: E402
from crgan_cli.config.compose import compose  # noqa: E402
from crgan_cli.gan.build import build_networks, build_task  # noqa: E402
from crgan_cli.gan.tasks.two_players import TwoPlayers  # noqa: E402
from crgan_cli.training.flops import (  # noqa: E402
    CountedNetworks,
    NetworkFlops,
    count_networks,
    flops_per_turn,
)

SUMS = {"cr_gp", "gp_drift"}  # examples of sums; a sum costs what its parts cost
OF_CLASSES = {"ac", "classification"}  # for a D that classifies: StarGAN, PGGAN with labels
SIZE = ["dataset=demo", "architecture=sndcgan", "architecture.width=0.25"]


class Method(NamedTuple):
    """A choice, what D sees, and the forward passes of a step, per image of the batch."""

    choice: str
    name: str
    d_sees: str
    g_sees: str
    d_passes: float
    g_passes: float
    gflop: float


def list_choices() -> Iterator[str]:
    """Yield what is typed for each method."""
    groups = Choices().groups
    for name in groups["regularizer"]:
        if name not in SUMS | OF_CLASSES:
            yield f"regularizer={name}"
    yield "loss=relativistic"
    yield from (f"augment_both={name}" for name in groups["augment_both"] if name != "none")


def describe_method(choice: str) -> Method:
    """Build the game of a choice and count the passes of a step."""
    group, _, name = choice.partition("=")
    words = [choice] if group == "regularizer" else ["regularizer=none", choice]
    config = compose([*words, *SIZE])
    task = build_task(config, build_networks(config))
    assert isinstance(task, TwoPlayers)
    adversary = task.adversary
    counted = count_networks(config.architecture, resolution=32, channels=1)
    g_views = len(adversary.loss.g_roles)

    def cost(net: NetworkFlops) -> float:
        turns = flops_per_turn(
            CountedNetworks(net, counted.D), adversary.regularizer, g_views=g_views
        )
        return turns.d + turns.g

    points = sum(part.gradient_views for part in adversary.regularizer.members)
    gradients = f", and dD/dx of {points}" if points else ""
    return Method(
        f"`{choice}`",
        first_words(group, name),
        " ".join(adversary.roles) + gradients,
        " ".join(adversary.loss.g_roles),
        cost(NetworkFlops(d=1, g=0)),
        cost(NetworkFlops(d=0, g=1)),
        cost(counted.net),
    )


def first_words(group: str, name: str) -> str:
    """What the YAML file says first, up to a colon or a full stop."""
    text = (conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
    sentence = text.removeprefix("# ").replace("\n# ", " ").partition(".")[0]
    return sentence.partition(":")[0].partition(",")[0]


def format_table() -> str:
    """Return the table in Markdown."""
    methods = [describe_method(choice) for choice in list_choices()]
    none = next(each for each in methods if each.choice == "`regularizer=none`")
    lines = [
        "| choice | | D's turn: D sees | G's turn | passes of D | of G | cost of a step |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.choice} | {each.name} | {each.d_sees} | {each.g_sees} | {each.d_passes:g} | "
        f"{each.g_passes:g} | {each.gflop / none.gflop:.2f} |"
        for each in methods
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(format_table())

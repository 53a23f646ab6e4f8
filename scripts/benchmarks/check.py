"""Whether two engines compute the same: all weights, moments and averages after some steps.

A capture must not change a bit; another precision, another order of additions or another form of a
convolution changes the last ones, and the steps of Adam make more of that. Biases in front of batch
norm have no gradient but rounding, which Adam scales to whole steps: they lie far apart then.
"""

import argparse
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from crgan_cli.errors import UserError
from crgan_cli.system.device import resolve_device

from .game import Ours, compose_config, random_images
from .timing import heading, machine, markdown
from .train import words


def learnt(side: Ours) -> dict[str, Tensor]:
    """All that steps change."""
    trainer = side.trainer
    assert trainer.ema is not None
    states = {f"task.{key}": each for key, each in trainer.task.state_dict().items()}
    states |= {f"average.{key}": each for key, each in trainer.ema.state_dict().items()}
    for who, optimizer in trainer.optimizers.items():
        for number, state in optimizer.state_dict()["state"].items():
            states |= {f"adam.{who}.{number}.{key}": each for key, each in state.items()}
    return states


def farthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[str, float]:
    """The tensor that differs most, and by how much of the longer one's length."""

    def apart(key: str) -> float:
        a, b = one[key].double(), other[key].double()
        length = max(float(torch.linalg.vector_norm(each)) for each in (a, b))
        return float(torch.linalg.vector_norm(a - b)) / (length or 1.0)

    name = max(one, key=apart)
    return name, apart(name)


def run_check(args: argparse.Namespace) -> None:
    """Compares, prints, and ends with 1 where `--bitwise` is asked for and not found."""
    if args.steps < 1:
        raise UserError(f"--steps {args.steps}: give at least 1.")
    device = resolve_device(args.device)
    names = ["architecture", "regularizer", "equal bit by bit", "farthest apart", "relative"]
    conditions = {**machine(device), "one": args.one, "other": args.other, "steps": args.steps}
    print("\n".join([*heading(conditions), "", *markdown(names, [])]), flush=True)
    common = (f"batch_size={args.batch}", f"architecture.width={args.width}", *args.overrides)
    equal = True
    for architecture in args.arch:
        for regularizer in args.reg:
            found = []
            for engine in (args.one, args.other):
                config = compose_config(architecture, regularizer, *common, *engine.split())
                side = Ours(config, random_images(config, max(4 * args.batch, 64)), device)
                side.run(args.steps)
                found.append(learnt(side))
            one, other = found
            same = sum(torch.equal(one[key], other[key]) for key in one)
            equal &= same == len(one)
            name, apart = farthest(one, other)
            row = [architecture, regularizer, f"{same} of {len(one)}", name, f"{apart:.2g}"]
            print(markdown(names, [row])[-1], flush=True)
    if args.bitwise and not equal:
        sys.exit(1)


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The verb `check`."""
    verb = verbs.add_parser("check", help="whether two engines compute the same")
    verb.set_defaults(run=run_check)
    add = verb.add_argument
    add("--one", default="engine=graphs", help="its settings (engine=graphs)")
    add("--other", default="engine=eager", help="the other's (engine=eager)")
    add("--bitwise", action="store_true", help="end with 1 where any bit differs")
    add("--arch", type=words, default=["sndcgan", "resnet"], metavar="A,B")
    add("--reg", type=words, default=["none", "icr", "gp", "jsr"], metavar="A,B")
    add("--steps", type=int, default=10, help="(10)")
    add("--batch", type=int, default=64, help="images a turn (64)")
    add("--width", type=float, default=1.0, help="of the networks (1.0)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="of both, as of crgan train")

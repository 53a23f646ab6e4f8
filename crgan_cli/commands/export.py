"""`crgan export`: a generator as a file for other programs, with a model card."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from crgan_cli.commands.sample import parse_path, parse_run
from crgan_cli.errors import UserError, not_available
from crgan_cli.system.paths import require_new_folder

help = "Write a generator for other programs: safetensors, TorchScript, ONNX, torch.export."

NEEDED = {
    "safetensors": ("safetensors",),
    "torchscript": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch_export": (),
}
"""The formats of `evaluation.export.formats`, which imports torch -> the packages of the extra that
has the name of the format."""

DESCRIPTION = """Write a generator into a new folder, as a file that other programs load:

  safetensors    the weights, and the settings that crgan builds the network from
  torchscript    a program for LibTorch in C++ and older PyTorch
  onnx           a graph for ONNX Runtime and other runtimes
  torch_export   a graph of PyTorch's own operations (torch.export)

with README.md, a model card that says how to load it, and a grid of images. In fp32, for batches of
any size. The file is loaded again, and its images are compared with crgan's."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add("checkpoint", metavar="CHECKPOINT_OR_RUN", type=parse_run)
    add("--to", required=True, choices=tuple(NEEDED), help="which kind of file")
    add("--out", type=parse_path, metavar="FOLDER", help="a new folder (export_FORMAT)")
    add("--translation", metavar="NAME", help="which one, if the run has several: a or b")
    add("--weights", choices=("ema", "raw"), help="which generator (ema if there is one)")
    add("--best", action="store_true", help="of a run: its best checkpoint, not its newest")


def run(args: argparse.Namespace) -> int:
    """Check what is needed, export and report."""
    out: Path = args.out or Path(f"export_{args.to}")
    require_packages(args.to)
    require_new_folder(out)

    from crgan_cli.evaluation.export.formats import FORMATS
    from crgan_cli.evaluation.export.write import export_generator
    from crgan_cli.evaluation.load import find_checkpoint, load_generator
    from crgan_cli.system.console import log_to_stderr
    from crgan_cli.system.device import resolve_device
    from crgan_cli.system.memory import explained_shortage

    kind = FORMATS[args.to]
    with log_to_stderr(), explained_shortage("Free what other programs use."):
        checkpoint = find_checkpoint(args.checkpoint, best=args.best)
        model = load_generator(checkpoint, resolve_device("cpu"), args.weights)
        settings = checkpoint.content["config"]
        checked = export_generator(model, settings, kind, args.translation, out)
    print(
        f"{out / kind.file}: step {model.step}, {model.weights} weights; its images differ from "
        f"crgan's by at most {checked.difference:.1e} (batches of "
        f"{' and '.join(map(str, checked.batches))})"
    )
    return 0


def require_packages(kind: str) -> None:
    """Raise UserError if a package that a format needs is not installed."""
    if missing := [name for name in NEEDED[kind] if find_spec(name) is None]:
        reason = f"{' and '.join(missing)} is not installed"
        remedy = f"Type pip install 'crgan[{kind}]'"
        raise UserError(not_available(f"--to {kind}", reason, remedy))

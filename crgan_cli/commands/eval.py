"""`crgan eval`: the metrics of a checkpoint, by a stated protocol."""

import argparse
import json
from pathlib import Path

help = "Score a checkpoint or a run: FID, IS, KID by a stated protocol."

CHANGEABLE = ("metrics", "device", "data_root", "dataset.root")
"""What may be set anew for a checkpoint; all else is the run's."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    add = parser.add_argument
    parser.description = "Score a checkpoint by the protocol it was trained with, or by another."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  crgan eval outputs/demo/RUN\n"
        "  crgan eval checkpoint.pt metrics=fid10k_test metrics.batch_size=100\n\n"
        "The numbers also go into evaluations.jsonl in the run's folder."
    )
    add("checkpoint", metavar="CHECKPOINT_OR_RUN", type=Path)
    add("overrides", nargs="*", metavar="KEY=VALUE", help=f"of {', '.join(CHANGEABLE)}")
    add("--best", action="store_true", help="of a run: its best checkpoint, not its newest")
    add("--weights", choices=("ema", "raw"), help="which generator (ema where there is one)")


def run(args: argparse.Namespace) -> int:
    """Scores, prints, and adds a line to the run's evaluations.jsonl."""
    from crgan_cli import assembly, config, engine
    from crgan_cli.console import speaking
    from crgan_cli.progress import Scoring
    from crgan_cli.sampler import Sampler, random_codes, undisturbed

    with speaking():
        found = assembly.found(args.checkpoint, best=args.best)
        before = config.from_text(found.content["config"], str(found.path))
        settings = config.amended(before, args.overrides, CHANGEABLE, "crgan eval")
        device = engine.device_of(settings.device)
        model = assembly.trained(found, device, args.weights)
        evaluator = assembly.evaluator_of(settings)
        if evaluator is None:
            from crgan_cli.errors import UserError

            raise UserError(
                "this run has metrics=none. Choose a protocol, for example "
                f"`crgan eval {args.checkpoint} metrics=fid10k_test`."
            )
        evaluator.to(device)
        with Scoring() as scoring, undisturbed(model.G):
            evaluator.prepare(assembly.dataset_of(settings), progress=scoring.show)
            codes = random_codes(model.prior, evaluator.num_samples, model.seed)
            sampler = Sampler(codes, device)
            values = evaluator(
                lambda start, n: sampler.draw(model.G, start, n), progress=scoring.show
            )
    protocol = {**evaluator.describe(), "weights": model.weights}
    record = {"checkpoint": str(found.path), "step": model.step, **values, "protocol": protocol}
    print(f"{found.path} at step {model.step}, {model.weights} weights")
    for name, value in values.items():
        print(f"  {name:32s} {value:.4f}")
    print("by the protocol")
    for key, value in protocol.items():
        print(f"  {key:32s} {value}")
    if lies_in := assembly.run_of(found.path):
        write(record, lies_in.path / "evaluations.jsonl")
    return 0


def write(record: dict[str, object], path: Path) -> None:
    """Adds a line to a file. Raises RunFailed where it cannot be written."""
    from crgan_cli.errors import RunFailed

    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise RunFailed(
            f"the metrics above could not be added to {path} ({error.strerror})."
        ) from error

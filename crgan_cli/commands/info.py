"""`crgan info`: what a run is, where it stands, and what to type next."""

import argparse
import json

from crgan_cli.commands.sample import parse_run
from crgan_cli.system.streams import require_printed

help = "Say what a run or a checkpoint is, where it stands, and what to type next."

EXAMPLES = """examples:
  crgan info latest                              the newest run below outputs/
  crgan info RUN --json                          the same for programs
  crgan info RUN/checkpoints/best.pt             what is in a checkpoint
  crgan info outputs/sweeps/20260101-120000      each run of a sweep, in a line"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Say what a run is and where it stands, from its files only, also while it trains: its "
        "choices and changed settings, status, scores, checkpoints, versions and size."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "path",
        metavar="CHECKPOINT_OR_RUN",
        type=parse_run,
        help="or a folder of runs, such as a sweep's; latest: the newest run below outputs/",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Read and print."""
    from crgan_cli.errors import UserError
    from crgan_cli.experiments.sweep_state import describe_unfinished
    from crgan_cli.report import info_text, run_info
    from crgan_cli.runs.folder import RunDir
    from crgan_cli.system.console import log_to_stderr

    path = args.path
    with log_to_stderr():
        if path.is_file():
            facts = run_info.describe_checkpoint(path)
        elif RunDir(path).is_run():
            facts = run_info.describe_run(path)
        elif path.is_dir():
            facts = run_info.summarise_runs(path) | {"unfinished": describe_unfinished(path)}
        else:
            raise UserError(
                f"there is nothing at {path}. Give the folder of a run, of a sweep, or a "
                "checkpoint; crgan info latest takes the newest run below outputs/."
            )
    if args.json:
        print(json.dumps(facts, indent=2, allow_nan=False))
    elif "runs" in facts:
        print("\n".join(filter(None, [info_text.format_runs(facts), str(facts["unfinished"])])))
    else:
        print(info_text.format_facts(facts))
    require_printed()
    return 0

"""How fast crgan is on this machine. Prints Markdown tables.

python scripts/bench.py train --arch sndcgan --reg none,cr,gp,icr
python scripts/bench.py growth --threads 1
python scripts/bench.py micro
python scripts/bench.py check --one engine=graphs --other engine=eager --bitwise
python scripts/bench.py imagenet /tmp/made_up --images 50000
python scripts/bench.py eval --extractor inception --n 10000 --batch-size 250
python scripts/bench.py distances --threads 1
"""

import argparse
import importlib
import sys
from importlib.util import find_spec

from crgan_cli.errors import UserError

VERBS = ("train", "growth", "micro", "share", "eval", "distances", "check", "imagenet")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    there = [verb for verb in VERBS if find_spec(f"benchmarks.{verb}")]
    verbs = parser.add_subparsers(required=True, metavar=" | ".join(there))
    asked = [verb for verb in there if verb in sys.argv[1:2]]  # importing one takes seconds
    for verb in asked or there:
        importlib.import_module(f"benchmarks.{verb}").add(verbs)
    args = parser.parse_args()
    try:
        args.run(args)
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

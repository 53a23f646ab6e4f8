"""What the start of a run imports, and what the second job of a sweep does again."""

import json
import subprocess
import sys
from pathlib import Path

from support.runs import PIPES, environment

SLOW = (
    "torch._dynamo",
    "torch._inductor",
    "torch.utils.flop_counter",
    "sympy",
    "torchvision",
    "torch_fidelity",
    "matplotlib",
    "scipy",
    "sklearn",
    "pandas",
    "jinja2",
)
"""What a run without metrics needs later or never. Together they take as long as torch."""

RUN = """
import json, sys
import torch
brought = set(sys.modules)  # an older PyTorch brings more
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from crgan_cli.commands.main import run_command
from crgan_cli.config import compose
from crgan_cli.data.embedded import decode_tiles
from crgan_cli.runs.provenance import find_commit

def counted(owner, name):
    plain = getattr(owner, name)
    def call(*args):
        times[name] += 1
        return plain(*args)
    times[name] = 0
    setattr(owner, name, call)

times = {}
counted(compose, "compose_unchecked")
counted(ConfigLoaderImpl, "load_sweep_config")
code = run_command(sys.argv[1:])
for cached in (decode_tiles, find_commit):
    times[cached.__name__] = cached.cache_info().misses
slow = [name for name in json.load(sys.stdin) if name in sys.modules and name not in brought]
print(json.dumps({"code": code, "slow": slow, "times": times}))
"""


def test_a_start_imports_no_compiler_and_a_second_job_repeats_no_work(tmp_path: Path) -> None:
    words = "train -m experiment=demo steps=1 metrics=none seed=1,2 out=sweep device=cpu"
    small = "architecture.width=0.02 batch_size=4 samples.num=4"
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words.split(), *small.split()],
        cwd=tmp_path,
        env=environment(),
        input=json.dumps(SLOW),
        **PIPES,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "code": 0,
        "slow": [],
        "times": {
            "compose_unchecked": 2,  # before the first job, to check both
            "load_sweep_config": 2,  # by Hydra, to run both
            "decode_tiles": 1,
            "find_commit": 1,
        },
    }, done.stderr
    commits = {
        json.loads(file.read_text())["provenance"]["commit"]
        for file in (tmp_path / "sweep").glob("seed=*/result.json")
    }
    assert len(commits) == 1

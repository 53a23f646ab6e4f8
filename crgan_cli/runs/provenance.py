"""The origin and cost of a run: versions, commit, device, memory."""

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from crgan_cli import __version__
from crgan_cli.system.device import describe_device


def get_peak_memory(device: torch.device) -> int:
    """Return peak bytes of the tensors on a GPU, or else of the process. 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def collect_provenance(data: str, device: torch.device) -> dict[str, str]:
    """Return what a run depends on besides its configuration. `data` is a hash of its images."""
    return {
        "crgan": __version__,
        "commit": find_commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": version("torchvision"),
        "device": describe_device(device),
        "training_images_sha256": data,
    }


@cache
def find_commit() -> str:
    """Return the git commit of crgan, with "+" if files differ. "" if it is installed.

    Asked once in a process: later jobs of a sweep run the code that the first one imported.
    """
    folder = Path(__file__).parent

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", Path(__file__).name):  # inside a checkout of another project
            return ""
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except OSError:  # no git
        return ""

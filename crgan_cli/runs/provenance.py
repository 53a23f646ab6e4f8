"""What made a run, and what it took: versions, commit, device, memory."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from crgan_cli import __version__
from crgan_cli.system.device import describe_device


def get_peak_memory(device: torch.device) -> int:
    """Bytes at most: of tensors on a GPU, else of the whole process (0 where nothing tells)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def collect_provenance(data: str, device: torch.device) -> dict[str, str]:
    """What made the run, beside its configuration."""
    return {
        "crgan": __version__,
        "commit": find_commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": version("torchvision"),
        "device": describe_device(device),
        "training_images_sha256": data,
    }


def find_commit() -> str:
    """The git commit that crgan runs from, with "+" where files differ; "" for an installed one."""
    folder = Path(__file__).parent

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", Path(__file__).name):  # a checkout of something else around us
            return ""
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except OSError:  # no git
        return ""

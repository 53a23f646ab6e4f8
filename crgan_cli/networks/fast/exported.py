"""Whether a network is being exported: then it computes by torch's own operations only."""

import torch
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]


def is_exported() -> bool:
    """Whether torch.export or torch.jit.trace records what is computed.

    A function of our own would be in no file, and one memory format is enough for a file.
    """
    return torch.compiler.is_exporting() or is_tracing()

"""One torch thread: tiny networks on shared cores run slower with more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)

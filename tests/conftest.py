"""One torch thread, since more make tiny networks slower on shared cores; a cache of our own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The user's own cache is neither read nor filled."""
    os.environ["CRGAN_CACHE"] = str(tmp_path_factory.mktemp("cache"))

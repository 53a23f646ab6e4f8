"""The example in the docstring of Adversary, run as it is written."""

import re
from textwrap import dedent

import torch
from support.tiny import SIDE, TinyDiscriminator, TinyGenerator

from crgan_cli.gan.adversary import Adversary
from crgan_cli.gan.augment import FlipShift
from crgan_cli.gan.losses import Hinge
from crgan_cli.gan.regularizers.base import CombinedRegularizer
from crgan_cli.gan.regularizers.consistency import ConsistencyRegularization
from crgan_cli.gan.types import Batch


def test_the_example_in_the_docstring_runs_and_gives_d_its_gradients() -> None:
    found = re.search(r"Example of usage::\n\n(.*)", Adversary.__doc__ or "", re.DOTALL)
    assert found
    G, D = TinyGenerator(), TinyDiscriminator()
    names = {
        "Adversary": Adversary,
        "Batch": Batch,
        "CombinedRegularizer": CombinedRegularizer,
        "ConsistencyRegularization": ConsistencyRegularization,
        "FlipShift": FlipShift,
        "Hinge": Hinge,
        "D": D,
        "G": G,
        "images": torch.rand(6, 3, SIDE, SIDE) * 2 - 1,
        "z": torch.randn(6, G.z_dim),
    }
    exec(dedent(found[1]), names)
    assert set(names["terms"]) == {"adversarial/d", "cr/real"}
    assert names["total"] == sum(names["terms"].values())
    assert all(parameter.grad is not None for parameter in D.parameters())
    assert all(parameter.grad is None for parameter in G.parameters())

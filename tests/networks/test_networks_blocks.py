"""Residual blocks: the ways up and down, and the skip."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crgan_cli.networks import blocks
from crgan_cli.networks.fast.fused_resample import insert_zeros
from crgan_cli.networks.norms import PlainBatchNorm


def test_a_1x1_before_upsampling_equals_one_after() -> None:
    shortcut = blocks.nearest_block(3, 5, PlainBatchNorm).shortcut.double()
    x = torch.randn(2, 3, 4, 4).double()
    by_hand = shortcut[0](x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(shortcut(x), by_hand)


def test_a_1x1_after_pooling_equals_one_before() -> None:
    shortcut = blocks.shortcut_1x1(3, 5, down=True).double()
    x = torch.randn(2, 3, 4, 4).double()
    torch.testing.assert_close(shortcut(x), F.avg_pool2d(shortcut[1](x), 2))


def test_a_generators_block_is_the_table() -> None:
    block = blocks.zero_insertion_block(3, 4, PlainBatchNorm).double()
    x = torch.randn(2, 3, 4, 4).double()

    def normed(h: Tensor) -> Tensor:
        return F.batch_norm(h, None, None, training=True)

    h = F.conv2d(
        insert_zeros(normed(x).clamp_min(0)), block.conv1.weight, block.conv1.bias, padding=1
    )
    h = F.conv2d(normed(h).clamp_min(0), block.conv2.weight, block.conv2.bias, padding=1)
    conv = block.shortcut[0]
    by_hand = h + F.conv2d(insert_zeros(x), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(block(x, None), by_hand)


def test_a_discriminators_block_is_the_table() -> None:
    block = blocks.residual_3x3(3, 4, down=True).double()
    x = torch.randn(2, 3, 4, 4).double()
    conv1, conv2, conv = block.body[1], block.body[3], block.shortcut[0]
    h = F.conv2d(x.clamp_min(0), conv1.weight, conv1.bias, padding=1)
    h = F.conv2d(h.clamp_min(0), conv2.weight, conv2.bias, padding=1)
    by_hand = F.avg_pool2d(h + F.conv2d(x, conv.weight, conv.bias, padding=1), 2)
    torch.testing.assert_close(block(x), by_hand)


@pytest.mark.parametrize("shortcut", [nn.Identity(), blocks.conv3x3(4, 4)])
def test_the_skip_carries_x_and_not_its_relu(shortcut: nn.Module) -> None:
    block = blocks.Residual(blocks.block_body(4, 4, blocks.conv3x3), shortcut)
    last = block.body[3]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = torch.randn(2, 4, 4, 4)
    kept = x.clone()
    assert torch.equal(block(x), shortcut(kept))
    assert torch.equal(x, kept)

"""Stratified shares."""

import numpy as np

from crgan_cli.data.strata import choose_stratified


def test_a_share_is_stratified():
    y = np.array([0] * 30 + [1] * 20 + [2] * 10)
    picked = choose_stratified(y, 0.3, seed=0)
    assert np.bincount(y[picked]).tolist() == [9, 6, 3]
    assert len(set(picked.tolist())) == 18
    assert picked.tolist() == sorted(picked.tolist())


def test_no_class_vanishes_from_a_tiny_share():
    y = np.array([0] * 1000 + [1] * 2)
    assert set(y[choose_stratified(y, 0.001, seed=0)].tolist()) == {0, 1}


def test_shares_are_seeded_and_nested():
    y = np.arange(200) % 4
    small, large = (set(choose_stratified(y, share, seed=3).tolist()) for share in (0.1, 0.5))
    assert small < large
    assert small == set(choose_stratified(y, 0.1, seed=3).tolist())
    assert small != set(choose_stratified(y, 0.1, seed=4).tolist())

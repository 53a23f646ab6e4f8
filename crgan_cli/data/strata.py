"""Choose a part of a data set of which each class has its share."""

import numpy as np

MAX_STRATA = 100
"""Of more sets of attributes than this, a fraction is drawn without regard to them."""


def choose_stratified(y: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose round(fraction * n), at least one, of the n images of each class of `y` (N,).

    Of `y` (N, c), equal rows are a class; if more than MAX_STRATA rows differ, all are one class.
    Return sorted indices. With the same seed, a smaller fraction is a subset of a larger one.
    """
    if y.ndim == 2:
        rows, y = np.unique(y, axis=0, return_inverse=True)
        y = y.reshape(-1) if len(rows) <= MAX_STRATA else np.zeros(len(y), np.int64)
    # RandomState: NumPy guarantees that its stream never changes, so subsets stay the same
    random = np.random.RandomState(seed)
    chosen: list[np.ndarray] = []
    for label in np.unique(y):
        members = random.permutation(np.flatnonzero(y == label))
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)

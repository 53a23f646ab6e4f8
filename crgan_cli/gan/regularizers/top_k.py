"""Top-k training of G: it learns from its best images only."""

from collections.abc import Hashable

from torch import Tensor

from crgan_cli.config.bounds import PositiveFraction, PositiveInt
from crgan_cli.gan.regularizers.base import Regularizer
from crgan_cli.gan.scoring import mean_over_places


class TopK(Regularizer):
    """Sinha et al. 2020 (arXiv:2002.06224) section 3: G's loss is of the k images D likes most.

    k = max(gamma^e, nu) * N, rounded down, at least 1; N is the batch of a process and e counts
    epochs of `epoch_steps` G steps. D's loss is of all images. If D scores patches, an image's
    score is the mean of its map. In G's turn a CUDA graph is captured for each value of the share
    k / N, which are 70 with gamma 0.99 and nu 0.5.
    """

    mixes_samples = True

    def __init__(
        self, gamma: PositiveFraction, nu: PositiveFraction, epoch_steps: PositiveInt
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.nu = nu
        self.epoch_steps = epoch_steps
        self.share: float | None = None  # k / N; None in D's turns

    def set_turn(self, who: str, turn: int) -> None:
        best = max(self.gamma ** (turn // self.epoch_steps), self.nu)
        self.share = best if who == "g" else None

    def signature(self) -> Hashable:
        return self.share

    def choose_fakes(self, scores: Tensor) -> Tensor | None:
        assert self.share is not None, "only G's loss is of a part of the images"
        k = max(1, int(self.share * len(scores)))
        return mean_over_places(scores.detach()).topk(k).indices

"""The schedule of a run that grows, by hand."""

import pytest

from crgan_cli.config.compose import compose
from crgan_cli.config.sides import Sides
from crgan_cli.errors import UserError
from crgan_cli.gan.stages import Stage, Stages


def growing(**changes: object) -> Stages:
    settings: dict = {
        "first_resolution": 4,
        "resolution": 16,
        "fade_images": 40,
        "stable_images": 20,
        "batch_sizes": [10, 10, 5, 1],
        "rates": [1.0, 1.5, 2.0],
        "n_dis": 1,
    }
    return Stages.growing(**settings | changes)


def test_each_resolution_fades_in_then_is_trained() -> None:
    assert list(growing()) == [
        Stage(Sides(4, 4), 0, 0, 10, 1.0, 0),  # nothing to fade in: 20 images are 2 steps
        Stage(Sides(8, 8), 2, 4, 10, 1.5, 20),  # 40 and 20 images in batches of 10
        Stage(Sides(16, 16), 8, 8, 5, 2.0, 80),  # in batches of 5; to the end of the run
    ]
    assert growing().grown_at == 16


def test_every_step_has_a_stage_and_images() -> None:
    stages = growing()
    assert [stages.at(step).resolution for step in (0, 1, 2, 7, 8, 999)] == [4, 4, 8, 8, 16, 16]
    assert [stages.images(step) for step in (0, 1, 2, 3, 8, 9, 10)] == [0, 10, 20, 30, 80, 85, 90]
    assert list(stages.between(1, 10)) == [
        (stages.at(0), 1, 2),
        (stages.at(2), 2, 8),
        (stages.at(8), 8, 10),
    ]
    assert list(stages.between(3, 5)) == [(stages.at(2), 3, 5)]


def test_alpha_is_the_share_of_the_fade_that_is_over() -> None:
    stages = growing()
    assert [stages.at(s).alpha(s) for s in range(9)] == [1, 1, 0, 0.25, 0.5, 0.75, 1, 1, 0]


def test_images_that_fill_no_batch_take_a_step_more() -> None:
    assert [stage.first for stage in growing(stable_images=21, fade_images=41)] == [0, 3, 11]
    two = growing(n_dis=2)  # a step then shows D two batches
    assert [(stage.first, stage.fade_steps) for stage in two] == [(0, 0), (1, 2), (4, 4)]
    assert [two.images(step) for step in (1, 4, 5)] == [20, 80, 90]


def test_a_run_without_a_schedule_is_one_stage() -> None:
    stages = Stages.from_settings(compose(["batch_size=7", "optimizer.n_dis=3", "dataset=demo"]))
    assert list(stages) == [Stage(Sides(32, 32), 0, 0, 7)]
    assert stages.images(5) == 105
    assert stages.at(0).alpha(0) == 1.0


def test_the_papers_cifar_run_has_20_million_images() -> None:
    config = compose(["experiment=pggan_cifar10"])
    stages = Stages.from_settings(config)
    assert stages.images(config.steps) == 20_000_000
    assert stages.images(stages.grown_at) == 2_400_000  # 400k, and twice 800k, and a fade of 400k


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"first_resolution": 3}, "first_resolution is 3"),
        ({"first_resolution": 32}, "first_resolution is 32"),
        ({"resolution": 24}, "24 is not 4 times a power of two"),
        ({"batch_sizes": [1, 2]}, "task.batch_sizes has 2 numbers, and .* there are 3 stages"),
        ({"rates": [1.0]}, "task.rates has 1 numbers"),
        ({"stable_images": 0}, "task.stable_images=0 leaves no images for the first resolution"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        growing(**changes)

"""Movies: loops between latents, and the sample grids of a run."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from support.runs import Crgan, refused
from torch import Tensor

from crgan_cli.evaluation.movies import CAPTION
from crgan_cli.evaluation.sampler import Latents, interpolate_loops


def frames(path: Path) -> list[np.ndarray]:
    """The frames of a GIF or a WebP, RGB."""
    with Image.open(path) as movie:
        return [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(movie)]


def angles(z: Tensor) -> Tensor:
    """Between each row and the next, and the last and the first."""
    return torch.cosine_similarity(z, z.roll(-1, 0), dim=1).acos()


def test_a_loop_passes_its_latents_and_closes_without_a_jump() -> None:
    """Four corners of a square on a circle: ten equal steps of 9 degrees from each to the next."""
    square = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]).double()
    z = interpolate_loops(Latents(square, None), 1, 10, "normal").z
    assert z[::10].allclose(square, atol=1e-5)
    assert angles(z).allclose(torch.full((40,), math.radians(9)).double(), atol=1e-4)


def test_loops_side_by_side_are_those_alone_and_keep_their_classes() -> None:
    stops = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    both = interpolate_loops(Latents(stops, torch.tensor([7, 1, 2, 5, 3, 4])), 2, 4, "uniform")
    first = interpolate_loops(Latents(stops[:3], None), 1, 4, "uniform")
    assert both.z[0::2].equal(first.z)
    assert both.z[1].equal(stops[3])
    assert both.y is not None
    assert both.y.tolist() == [7, 5] * 12


@pytest.mark.parametrize("name", ["loop.gif", "loop.webp", "loop.mp4"])
def test_a_movie_has_its_frames_and_twice_the_same_bytes(
    name: str, scored: Path, crgan: Crgan, tmp_path: Path
) -> None:
    words = ("--n", 8, "--interpolate", 4, "--loops", 4, "--classes", "1,2")
    for _ in range(2):
        assert crgan("sample", scored, *words, "--out", name)[0] == 0
        (tmp_path / name).rename(tmp_path / f"earlier-{name}")
        assert crgan("sample", scored, *words, "--out", name)[0] == 0
    assert (tmp_path / name).read_bytes() == (tmp_path / f"earlier-{name}").read_bytes()
    if name.endswith("mp4"):
        import av

        with av.open(str(tmp_path / name)) as movie:
            shown = [each.to_ndarray(format="rgb24") for each in movie.decode(video=0)]
    else:
        shown = frames(tmp_path / name)
    assert [each.shape for each in shown] == [(70, 70, 3)] * 8
    assert not np.array_equal(shown[0], shown[1])


def test_the_first_frame_is_the_image_of_the_first_latent(
    plain: Path, crgan: Crgan, tmp_path: Path
) -> None:
    words = ("--interpolate", 2, "--out", "loop.webp")
    assert crgan("sample", plain, "--n", 2, *words)[0] == 0  # at least two latents: four frames
    assert crgan("sample", plain, "--n", 2, "--out", "images")[0] == 0
    shown = frames(tmp_path / "loop.webp")
    assert len(shown) == 4
    for number, frame in enumerate((shown[0], shown[2])):
        with Image.open(tmp_path / f"images/{number:06d}.png") as image:
            assert np.array_equal(frame, np.array(image.convert("RGB")))


def test_a_webp_without_interpolation_is_a_grid(plain: Path, crgan: Crgan, tmp_path: Path) -> None:
    assert crgan("sample", plain, "--n", 4, "--out", "grid.webp")[0] == 0
    assert len(frames(tmp_path / "grid.webp")) == 1
    refused(crgan("sample", plain, "--n", 4, "--loops", 2), "--loops 2 is about a movie")


def test_a_timelapse_shows_the_grids_with_their_steps(crgan: Crgan, tmp_path: Path) -> None:
    samples = tmp_path / "run/samples"
    samples.mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text("steps: 1000\n")
    sides = {4: (20, 40), 1000: (36, 30)}
    for step, (height, width) in sides.items():
        shade = np.full((height, width, 3), 50 + step % 7 * 20, np.uint8)
        Image.fromarray(shade).save(samples / f"step_{step:08d}.png")
    for name in ("step_best", "step_1000 (copy)"):  # the user's own
        (samples / f"{name}.png").write_bytes(b"")
    code, out, _ = crgan("timelapse", "run", "--out", "a.gif")
    assert (code, out) == (0, "2 grids of run: a.gif\n")
    first, last = frames(tmp_path / "a.gif")
    assert first.shape == last.shape == (36 + CAPTION, 40, 3)
    assert (first[:20] == 130).all()
    assert not first[20:36].any(), "below a smaller grid it is black"
    assert first[36:].any(), "the step is written below"
    with Image.open(tmp_path / "a.gif") as movie:
        assert [frame.info["duration"] for frame in ImageSequence.Iterator(movie)] == [250, 2250]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["timelapse", "gone"], "gone is not the folder of a run: it holds no config.yaml"),
        (["timelapse", "empty"], "empty has 0 of the 2 sample grids (samples/step_*.png)"),
        (["timelapse", "gone", "--out", "a.png"], "a movie is FILE.gif, FILE.webp or FILE.mp4"),
        (["timelapse", "gone", "--fps", "0"], "'0' is not a number of frames from 0.1 to 100"),
        (["sample", "gone", "--fps", "1e9"], "'1e9' is not a number of frames from 0.1 to 100"),
    ],
)
def test_a_movie_that_cannot_be_is_refused(
    words: list[str], said: str, crgan: Crgan, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.yaml").write_text("steps: 1000\n")
    refused(crgan(*words), said)

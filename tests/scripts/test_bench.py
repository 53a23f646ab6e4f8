"""The benchmark runs, and its numbers add up; how fast anything is, is not asserted."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.runs import PIPES, environment

from crgan_cli.data.images import Images
from crgan_cli.errors import UserError
from crgan_cli.networks.layers import RowDropout

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench.py"
sys.path.append(str(SCRIPT.parent))  # where the script finds its own modules

from benchmarks import (  # noqa: E402
    cyclegan,
    game,
    growth,
    kernels,
    micro,
    peers,
    pggan,
    pix2pix,
    timing,
)

EVAL = [
    "--n",
    "16",
    "--batch-size",
    "8",
    "--rounds",
    "1",
    "--extractor-side",
    "32",
    "--device",
    "cpu",
    "--threads",
    "1",
]
TINY_PAIRS = ("dataset.resolution=32", "dataset.load_size=36", "architecture.width=0.05")
TINY = ("architecture.width=0.05", "batch_size=4", "engine=eager", "engine.threads=1")
CPU = torch.device("cpu")


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *words], env=environment(None), **PIPES)


def answer(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """The script in this process: its start takes longer than all that it does here."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")


# --- two engines beside each other ----------------------------------------------------------------


def checked(monkeypatch: pytest.MonkeyPatch, precision: str, *words: str) -> None:
    fixed = "check --arch sndcgan --reg cr --steps 2 --batch 4 --width 0.05 --device cpu"
    one, other = (f"engine=eager engine.precision={each}" for each in ("fp32", precision))
    answer(monkeypatch, *fixed.split(), "--one", one, "--other", other, *words)


def told(text: str) -> list[str]:
    """The last row of a table."""
    return [cell.strip() for cell in text.splitlines()[-1].strip("| ").split("|")]


def test_an_engine_equals_itself_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checked(monkeypatch, "fp32", "--bitwise")
    *_, equal, _, apart = told(capsys.readouterr().out)
    same, _, whole = equal.split()
    assert same == whole != "0"
    assert float(apart) == 0


def test_engines_that_differ_end_with_1_where_bits_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        checked(monkeypatch, "bf16", "--bitwise")
    assert ended.value.code == 1
    assert 0 < float(told(capsys.readouterr().out)[-1]) <= 2


# --- a step beside that of other programs ---------------------------------------------------------


def test_a_step_is_told_in_numbers_that_belong_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = tmp_path / "train.json", tmp_path / "train.md"
    words = "train --arch sndcgan --reg none,gp --engine eager --precision fp32 --batch 4"
    words += " --width 0.05 --rounds 1 --device cpu --threads 1 --steps-per-round 1"
    words += f" --json {file} --markdown {page} optimizer.n_dis=2"
    answer(monkeypatch, *words.split())
    record = json.loads(file.read_text())
    assert record["conditions"]["threads"] == 1
    assert record["conditions"]["overrides"] == "optimizer.n_dis=2"
    rows = {(row["regularizer"], row["side"]): row for row in record["rows"]}
    assert list(rows) == [(r, s) for r in ("none", "gp") for s in ("peer", "eager fp32")]
    for row in rows.values():
        assert row["steps_per_second"] == pytest.approx(1000 / row["ms"])
        assert row["images_per_second"] == pytest.approx(2 * 4 * row["steps_per_second"])
        assert row["kernels"] > 0
        assert not row["reliable"]  # of one round
    for name in ("none", "gp"):
        ours, theirs = rows[name, "eager fp32"], rows[name, "peer"]
        assert ours["ratio"] == pytest.approx(theirs["ms"] / ours["ms"])
        assert ours["tflops"] == pytest.approx(ours["step_gflop"] / ours["ms"])
        assert ours["tflops"] / theirs["tflops"] == pytest.approx(ours["ratio"])
        assert ours["kernels"] < theirs["kernels"]
        assert ours["step_gflop"] < theirs["step_gflop"]
        assert theirs["ratio"] is None
    for (name, side), row in rows.items():
        bare = rows["none", side]
        assert row["cost_measured"] == pytest.approx(row["ms"] / bare["ms"])
        assert row["cost_in_theory"] == pytest.approx(row["step_gflop"] / bare["step_gflop"])
        assert name == "gp" or row["cost_in_theory"] == 1
    assert page.read_text() in capsys.readouterr().out
    assert "| sndcgan | gp | eager fp32 |" in page.read_text()
    assert "(unreliable)" in page.read_text()


@pytest.mark.parametrize("regularizer", peers.TERMS)
def test_both_sides_play_the_same_game(regularizer: str) -> None:
    config = game.compose_config("sndcgan", regularizer, *TINY)
    game.require_equal_losses(config, game.random_images(config, 8))


def test_both_sides_know_labels_and_batch_norm_in_g() -> None:
    config = game.compose_config("biggan_lite", "icr", *TINY)
    game.require_equal_losses(config, game.random_images(config, 8))


def twice(seen: peers.Scored) -> dict[str, torch.Tensor]:
    return {name: 2 * term for name, term in peers.cr(seen).items()}


def detached(seen: peers.Scored) -> dict[str, torch.Tensor]:
    return peers.cr(seen._replace(on_real=seen.on_real.detach()))


def renamed(seen: peers.Scored) -> dict[str, torch.Tensor]:
    return {"consistency": sum(peers.cr(seen).values())}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(twice, "cr/real is"), (detached, "D's gradients lie"), (renamed, "crgan's terms are")],
)
def test_sides_that_pay_differently_are_not_timed(
    monkeypatch: pytest.MonkeyPatch, wrong: Callable[[peers.Scored], dict], said: str
) -> None:
    config = game.compose_config("resnet_sngan", "cr", *TINY, "regularizer.lambda_cr=1e4")
    images = game.random_images(config, 8)
    monkeypatch.setitem(peers.TERMS, "cr", (wrong,))
    with pytest.raises(UserError, match=f"do not play the same game: {said}"):
        game.require_equal_losses(config, images)


@pytest.mark.parametrize("regularizer", ["none", "cr", "bcr"])
@pytest.mark.parametrize(
    "more", [(), ("architecture.spectral_norm=true", "task.conditional=false")]
)
def test_both_sides_play_the_same_game_of_pairs(regularizer: str, more: tuple[str, ...]) -> None:
    config = game.compose_config("unet", regularizer, *TINY_PAIRS, *more)
    game.require_equal_losses(config, game.random_images(config, 8))


def test_sides_of_pairs_that_pay_differently_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = game.compose_config("unet", "cr", *TINY_PAIRS, "regularizer.lambda_cr=1e4")
    monkeypatch.setitem(peers.TERMS, "cr", (detached,))
    with pytest.raises(UserError, match="do not play the same game: D's gradients lie"):
        game.require_equal_losses(config, game.random_images(config, 8))


def test_a_regularizer_that_others_have_no_step_for_is_refused() -> None:
    config = game.compose_config("sndcgan", "r1", *TINY)
    with pytest.raises(UserError, match="--reg r1: there is no step"):
        game.require_equal_losses(config, game.random_images(config, 8))


def test_the_peers_step_has_the_structure_that_it_says() -> None:
    """A D call a view, a power iteration a call, D's gradients in G's turn, and an average."""
    config = game.compose_config("sndcgan", "bcr", *TINY)
    images = game.random_images(config, 8)
    peer = game.build_peer(config, game.build_game(config), images, CPU)
    calls: list[int] = []
    peer.D.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    before = [each.clone() for each in peer.average.parameters()]
    peer.run(1)
    assert calls == [4] * 5  # real, fake, T(real), T(fake), and G's turn
    assert all(each.grad is not None for each in peer.D.parameters())
    after = list(peer.average.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert set(peer.read) == {"d", "D(x)", "D(G(z))", "g"}


def test_a_step_of_pairs_is_told_without_flop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train.json"
    words = f"train --arch unet --reg bcr --rounds 1 --device cpu --threads 1 --json {file}"
    answer(monkeypatch, *words.split(), "--engine", "eager", "--g-twice", *TINY_PAIRS)
    record = json.loads(file.read_text())
    assert (record["conditions"]["batch"], record["conditions"]["width"]) == ("4", "0.05")
    peer, once, twice = record["rows"]
    assert [row["side"] for row in record["rows"]] == ["peer", "eager fp32", "eager fp32, G twice"]
    assert once["ratio"] == pytest.approx(peer["ms"] / once["ms"])
    assert once["kernels"] < min(twice["kernels"], peer["kernels"])
    assert once["tflops"] is once["step_gflop"] is peer["step_gflop"] is None
    assert "TFLOP/s" not in capsys.readouterr().out


@pytest.mark.parametrize(("g_twice", "runs_of_g"), [(False, 1), (True, 2)])
def test_the_steps_of_pairs_have_the_structure_that_they_say(g_twice: bool, runs_of_g: int) -> None:
    config = game.compose_config("unet", "bcr", *TINY_PAIRS, "engine=eager", "engine.threads=1")
    images = game.random_images(config, 8)
    ours = game.Ours(config, images, CPU, g_twice=g_twice)
    peer = game.build_peer(config, game.build_game(config), images, CPU)
    assert not any(isinstance(each, RowDropout) for each in peer.G.modules())
    for side, G, D, of_g in (
        (ours, ours.task.G, ours.task.adversary.D, runs_of_g),
        (peer, peer.G, peer.D, 1),
    ):
        calls = {"g": 0, "d": 0}
        G.register_forward_hook(lambda *_, calls=calls: calls.update(g=calls["g"] + 1))
        D.register_forward_hook(lambda *_, calls=calls: calls.update(d=calls["d"] + 1))
        side.run(1)
        assert calls == {"g": of_g, "d": 5}  # real, fake, T of either, and G's turn


TINY_SETS = (
    "dataset.resolution=24",
    "dataset.load_size=28",
    "architecture.width=0.05",
    "architecture.blocks=1",
    "architecture.d_layers=2",
)


@pytest.mark.parametrize("regularizer", ["none", "cr", "bcr"])
@pytest.mark.parametrize("more", [(), ("architecture.d_norm=batch", "task.lambda_identity=0")])
def test_both_sides_play_the_same_game_of_two_sets(regularizer: str, more: tuple[str, ...]) -> None:
    config = game.compose_config("translator", regularizer, *TINY_SETS, *more)
    game.require_equal_losses(config, game.random_images(config, 8))


def test_sides_of_two_sets_that_pay_differently_are_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = game.compose_config("translator", "cr", *TINY_SETS, "regularizer.lambda_cr=1e4")
    monkeypatch.setitem(peers.TERMS, "cr", (detached,))
    with pytest.raises(UserError, match="do not play the same game: D's gradients lie"):
        game.require_equal_losses(config, game.random_images(config, 8))


def test_the_steps_of_two_sets_have_the_structure_that_they_say() -> None:
    """Six sets of images: four G calls here, six there. D's: one a turn here, one a view there."""
    config = game.compose_config(
        "translator", "bcr", *TINY_SETS, "engine=eager", "engine.threads=1"
    )
    sets = game.random_images(config, 8)
    ours = game.Ours(config, sets, CPU)
    peer = game.build_peer(config, game.build_game(config), sets, CPU)
    for side, (G, D), of_g, of_d in (
        (ours, (ours.task.player("g"), ours.task.player("d")), [4, 4, 8, 8], [4, 4, 16, 16]),
        (peer, (peer.G, peer.D), [4] * 6, [4] * 10),
    ):
        calls: dict[str, list[int]] = {"g": [], "d": []}
        for who, player in (("g", G), ("d", D)):
            for network in player.values():
                network.register_forward_hook(
                    lambda module, args, out, seen=calls[who]: seen.append(len(args[0]))
                )
        side.run(1)
        assert (sorted(calls["g"]), sorted(calls["d"])) == (of_g, of_d)
    assert [len(pool.kept) for pool in peer.pools.values()] == [4, 4]


TINY_LABELS = ("dataset.resolution=24", "architecture.width=0.05", "architecture.blocks=1")


@pytest.mark.parametrize("regularizer", ["gp", "cr", "bcr", "bcr+gp"])
@pytest.mark.parametrize("more", [(), ("architecture.spectral_norm=true", "dataset.classes=3")])
def test_both_sides_play_the_same_game_of_labels(regularizer: str, more: tuple[str, ...]) -> None:
    parts = f"classification+{regularizer}"
    config = game.compose_config("stargan", parts, *TINY_LABELS, *more)
    game.require_equal_losses(config, game.random_images(config, 8))


def test_the_steps_of_labels_have_the_structure_that_they_say() -> None:
    """Two D turns and one of G: four G calls on both sides. D: one call a turn, or one a view."""
    words = (*TINY_LABELS, "engine=eager", "engine.threads=1", "optimizer.n_dis=2")
    config = game.compose_config("stargan", "classification+gp", *words)
    sets = game.random_images(config, 8)
    ours = game.Ours(config, sets, CPU)
    peer = game.build_peer(config, game.build_game(config), sets, CPU)
    for side, G, D, of_d in (
        (ours, ours.task.player("g"), ours.task.player("d"), [8, 8, 4]),  # GP by the adjoint
        (peer, peer.G, peer.D, [4, 4, 4] * 2 + [4]),
    ):
        calls: dict[str, list[int]] = {"g": [], "d": []}
        for who, network in (("g", G), ("d", D)):
            network.register_forward_hook(
                lambda module, args, out, seen=calls[who]: seen.append(len(args[0]))
            )
        side.run(1)
        assert calls == {"g": [4] * 4, "d": of_d}
    assert all(each.grad is not None for each in peer.D.parameters())
    assert set(peer.read) >= {"adversarial/d", "classification/d", "gp", "reconstruction"}


TINY_GROWTH = (
    "dataset.resolution=16",
    "architecture.width=0.1",
    "batch_size=4",
    "engine=eager",
    "engine.threads=1",
)


@pytest.mark.parametrize("fade", [False, True])
@pytest.mark.parametrize("labels", ["none", "projection"])
def test_both_sides_play_the_same_game_of_growth(fade: bool, labels: str) -> None:
    words = (*TINY_GROWTH, f"architecture.labels={labels}")
    config = game.compose_config("pggan", "gp+drift", *words)
    first = game.find_step(config, fade=fade)
    game.require_equal_losses(config, game.random_images(config, 8), first=first)


def test_sides_that_grow_unlike_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = game.compose_config("pggan", "gp+drift", *TINY_GROWTH)
    monkeypatch.setattr(pggan, "normalise", lambda x: x)
    first, images = game.find_step(config, fade=True), game.random_images(config, 8)
    with pytest.raises(UserError, match="do not play the same game"):
        game.require_equal_losses(config, images, first=first)


@pytest.mark.parametrize("fade", [False, True])
def test_the_steps_of_growth_have_the_structure_that_they_say(fade: bool) -> None:
    """D: real, fake, points between, and G's turn. While it fades both sides are at one level."""
    config = game.compose_config("pggan", "gp+drift", *TINY_GROWTH)
    sets, first = game.random_images(config, 8), game.find_step(config, fade=fade)
    ours = game.Ours(config, sets, CPU, first=first)
    peer = game.build_peer(config, game.build_game(config, first=first), sets, CPU)
    for side, D in ((ours, ours.task.adversary.D), (peer, peer.D)):
        seen: list[tuple[int, ...]] = []
        D.register_forward_hook(lambda module, args, out, seen=seen: seen.append(args[0].shape))
        side.run(1)
        assert seen == [(4, 3, 16, 16)] * 4
        assert (D.growth.level, D.growth.mixes) == (2, fade)
    assert 0.4 < peer.growth.alpha < 0.6 or not fade
    assert all(each.grad is not None for each in peer.D.logits.parameters())


def test_fade_is_refused_without_growth_and_another_loss_has_no_peer() -> None:
    with pytest.raises(UserError, match="--arch pggan"):
        game.find_step(game.compose_config("sndcgan", "none", *TINY), fade=True)
    config = game.compose_config("pggan", "gp+drift", *TINY_GROWTH, "loss=hinge")
    with pytest.raises(UserError, match="loss=wasserstein"):
        game.require_equal_losses(config, game.random_images(config, 8))


def test_what_growing_saves_adds_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert growth.Growing({"4": 1.0, "8, fading in": 2.0, "8": 3.0}, 4.0).ratio == 2.0
    words = ["growth", "--engine", "eager", "--device", "cpu", "--threads", "1", "--rounds", "1"]
    answer(monkeypatch, *words, *TINY_GROWTH[:3])
    table, verdict = capsys.readouterr().out.strip().rsplit("\n\n", 1)
    rows = [line.split(" | ") for line in table.splitlines() if "px" in line or "full" in line]
    assert [row[0].strip("| ") for row in rows] == [
        *("4 px", "8 px, fading in", "8 px", "16 px, fading in", "16 px", "full size")
    ]
    *parts, full = (float(row[3].strip(" |")) for row in rows)
    assert float(verdict.split()[2]) == pytest.approx(full * 5 / sum(parts), abs=0.02)


def test_the_peers_pool_swaps_image_by_image() -> None:
    pool = cyclegan.Pool(3)
    numbers = torch.arange(40.0).view(40, 1, 1, 1)
    shown = pool.exchange(numbers).flatten().tolist()
    kept = [float(each) for each in pool.kept]
    assert shown[:3] == [0, 1, 2]
    old = [i for i, each in enumerate(shown[3:], 3) if each != i]
    assert 0 < len(old) < 37
    assert all(shown[i] < i for i in old)
    # stored once: the first three and each that took a place; shown later, or still kept
    assert sorted([*(shown[i] for i in old), *kept]) == sorted([0, 1, 2, *old])


def test_pictures_of_two_sets_are_drawn_and_cut_apart() -> None:
    sets = game.random_images(game.compose_config("translator", "none", *TINY_SETS), 5)
    sets["b"] = Images(sets["b"].x[:3], sets["b"].y[:3])
    moved = cyclegan.Pictures(sets, side=24, flip=True)
    assert len(moved) == 5
    drawn = [moved[4] for _ in range(40)]
    assert all(a.shape == b.shape == (3, 24, 24) for a, b in drawn)
    for index in (0, 1):
        assert len({tuple(pair[index].flatten().tolist()) for pair in drawn}) > 10


def test_g_twice_is_about_pix2pix() -> None:
    config = game.compose_config("sndcgan", "none", *TINY)
    with pytest.raises(UserError, match="give it with --arch unet"):
        game.build_game(config, g_twice=True)


def test_both_pictures_of_a_pair_move_alike() -> None:
    half = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    pairs = Images(torch.cat([half, half], 1), torch.zeros(2, dtype=torch.int64))
    moved = pix2pix.Pictures(pairs, 3, side=6, flip=True)
    places = [(x, y) for x in range(3) for y in range(3)]
    seen = set()
    for _ in range(60):
        a, b = moved[1]
        assert torch.equal(a, b)
        for mirrored in (False, True):
            for left, top in places:
                cropped = half[1, :, top : top + 6, left : left + 6] / 127.5 - 1
                if torch.allclose(a, cropped.flip(2) if mirrored else cropped, atol=1e-6):
                    seen.add((mirrored, left, top))
    assert len(seen) > 9  # of 18


def test_the_copied_spectral_norm_goes_on_from_ours() -> None:
    config = game.compose_config("sndcgan", "none", *TINY)
    D = game.build_game(config).adversary.D
    other = peers.normalising_at_each_call(D)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(other.eval()(x, None), D.eval()(x, None))
    norm = other.get_submodule("layers.12.parametrizations.weight.0")
    assert type(norm).__module__.startswith("torch.")
    vectors = []
    for _ in range(3):  # it moves on at every call
        other.train()(x, None)
        vectors.append(norm._u.clone())
    assert len({tuple(each.tolist()) for each in vectors}) == 3


def test_the_peers_t_keeps_what_it_does_not_move() -> None:
    x = torch.rand(64, 3, 8, 8)
    assert peers.flip_and_shift(x, 2).shape == x.shape
    unmoved = peers.flip_and_shift(x, 0)
    same = (unmoved == x).flatten(1).all(1)
    mirrored = (unmoved == x.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 0 < int(mirrored.sum()) < 64


# --- how time is taken ---------------------------------------------------------------------------


def test_rounds_that_lie_apart_are_not_believed() -> None:
    def of(*seconds: float) -> timing.Timing:
        return timing.Timing.of([timing.Round(each, each / 2) for each in seconds])

    assert of(1.0, 1.1, 1.2) == (1.1, 1.0, 0.55, pytest.approx(0.2 / 1.1), True)
    assert not of(1.0, 1.1, 1.5).reliable
    assert not of(1.0, 1.0).reliable


def test_rounds_are_interleaved() -> None:
    order: list[str] = []
    works = {name: (lambda name=name: order.append(name)) for name in "abc"}
    timing.time_interleaved(works, CPU, 2)
    assert "".join(order) == "abcabc"


def test_views_are_no_kernels() -> None:
    x = torch.ones(2, 3)
    assert kernels.count_step_kernels(lambda: x.t()[0].reshape(1, 2), CPU, compiled=False) == 0
    assert kernels.count_step_kernels(lambda: (x.t() @ x).sum(), CPU, compiled=False) == 2
    assert kernels.count_step_kernels(lambda: None, CPU, compiled=True) is None


# --- single parts --------------------------------------------------------------------------------


def test_single_parts_are_told_with_both_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(micro, "ENOUGH", 0.0)
    file = tmp_path / "micro.json"
    words = "micro --batch 4 --width 0.05 --dims 8 --rounds 1 --device cpu --threads 1"
    answer(monkeypatch, *words.split(), "--json", str(file))
    rows = json.loads(file.read_text())["rows"]
    out = capsys.readouterr().out
    assert len(rows) == 12
    for row in rows:
        assert row["ratio"] == pytest.approx(row["theirs"] / row["ours"])
        assert f"| {row['what']} | {row['others']} |" in out


def test_both_ways_to_the_frechet_term_come_to_the_same() -> None:
    for pair in micro.frechet(micro.Scene(CPU, 2, 0.05, 8)):
        found = torch.as_tensor(pair.theirs()).real
        root = found.trace() if found.ndim else found
        assert float(pair.ours()) == pytest.approx(float(root), rel=1e-6)


def test_what_is_no_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        answer(monkeypatch, "micro", "--only", "data,sound")


# --- an evaluation -------------------------------------------------------------------------------


def test_the_parts_of_an_evaluation_add_up_to_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, "eval", *EVAL, "--json", str(tmp_path / "times.json"))
    record = json.loads((tmp_path / "times.json").read_text())
    parts = record["parts"]
    assert list(parts) == [
        "G's draw",
        "quantise",
        "resize and extractor",
        "moments",
        "Frechet term",
        "KID",
        "IS",
    ]
    assert all(each["seconds"] > 0 for each in parts.values())
    assert sum(each["share"] for each in parts.values()) == pytest.approx(1)
    assert sum(each["seconds"] for each in parts.values()) == pytest.approx(record["seconds"])
    assert record["images_per_second"] == pytest.approx(16 / record["seconds"])
    assert (record["n"], record["batch_size"], record["rounds"]) == (16, 8, 1)
    assert (record["device"], record["threads"]) == ("cpu", 1)
    assert record["extractor"] == "effnetlite0_32"
    assert len(record["others"]) == 2
    for each in record["others"].values():
        assert each["ratio"] == pytest.approx(each["others"] / each["ours"])
    out = capsys.readouterr().out
    for name in (*parts, *record["others"]):
        assert f"| {name} |" in out


def test_what_cannot_be_timed_is_refused() -> None:
    done = bench("eval", *EVAL, "--n", "1")
    assert done.returncode == 2
    assert "--n 1: a covariance needs at least 2 images" in done.stderr

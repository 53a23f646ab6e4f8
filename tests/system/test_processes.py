"""Two processes do what one would have done with the batches of both."""

import pytest
import torch
from support.ranks import in_processes
from torch import Tensor, nn

from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.extractors import Extractor, Features
from crgan_cli.evaluation.metrics.features import FeatureSet, extract
from crgan_cli.networks.sync_batchnorm import SyncBatchNorm, convert_sync_batchnorm
from crgan_cli.system import rng
from crgan_cli.system.distributed import launch, objects, setup, tensors
from crgan_cli.system.distributed.objects import StopFlag
from crgan_cli.system.distributed.world import World, as_single_process, as_world, world

CPU = torch.device("cpu")
Numbers = dict[str, Tensor]


def half(x: Tensor) -> Tensor:
    """The rows of this process."""
    return x.chunk(world().world_size)[world().rank]


def network() -> nn.Sequential:
    """Two batch normalisations, one of them without weights, in float64."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(12, 5), nn.BatchNorm1d(5, affine=False)).double()


def normalised() -> Numbers:
    """Scores, their loss' gradient, that of a penalty on its slope, and all statistics."""
    net = network()
    if world().world_size > 1:
        convert_sync_batchnorm(net)
    x = half(torch.randn(6, 2, 4, 4, dtype=torch.float64, generator=generator()) * 3 + 5)
    x.requires_grad_()
    scores = net(x)
    loss = scores.cos().mean()
    (slope,) = torch.autograd.grad(scores.sin().sum(), x, create_graph=True)
    (loss + slope.square().flatten(1).sum(1).mean()).backward()
    tensors.average_gradients(net.parameters())
    found = {f"gradient of {name}": p.grad for name, p in net.named_parameters()}
    assert x.grad is not None
    found |= {name: buffer.clone() for name, buffer in net.named_buffers()}
    found |= {
        "loss": tensors.all_reduce_mean(loss.detach()),
        "scores": joined_rows(scores.detach()),
    }
    # the gradient of the mean over all images, and a process has the mean of its own
    found["gradient of x"] = joined_rows(x.grad) / world().world_size
    net.eval()
    found["evaluated"] = joined_rows(net(x).detach())
    return {name: value for name, value in found.items() if value is not None}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def joined_rows(x: Tensor) -> Tensor:
    return torch.cat(tensors.all_gather_rows(x))


def averaged() -> Numbers:
    """Gradients in both layouts, and of a parameter that has none."""
    plain, last, without = (nn.Parameter(torch.zeros(2, 3, 2, 2)) for _ in range(3))
    rank = world().rank
    plain.grad = torch.arange(24.0).view(2, 3, 2, 2) * (1 + rank)
    grad = torch.arange(24.0).view(2, 3, 2, 2) + 10 * rank
    last.grad = grad.to(memory_format=torch.channels_last)
    tensors.average_gradients([plain, last, without])
    assert without.grad is None
    assert last.grad is not None
    assert last.grad.is_contiguous(memory_format=torch.channels_last)
    return {"plain": plain.grad, "last": last.grad}


def drawn() -> Numbers:
    """Random rows of every kind."""
    n = 6 // world().world_size
    torch.manual_seed(3)
    rows = {
        "rand": rng.rand(n, 2, device=CPU),
        "randn": rng.randn(n, 3, device=CPU, dtype=torch.float64),
        "randint": rng.randint(0, 100, n, device=CPU),
    }
    with rng.draws_for(2):  # of n images each
        one, other = rng.randint(0, 100, 2 * n, 4, device=CPU).chunk(2)
    rows |= {"one of two batches": one, "the other": other}
    return {name: joined_rows(each) for name, each in rows.items()}


class Squares(Extractor):
    """Three products of an image's pixels."""

    name, sha256, dims, resize, has_logits = "squares", "", 3, "none", True

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.batches = 0

    def features(self, rgb: Tensor) -> Features:
        pool = rgb.flatten(1)[:, :3] * rgb.flatten(1)[:, 3:6] / 255
        return Features(pool, pool[:, :2])

    def __call__(self, images: Tensor) -> Features:
        self.batches += 1
        return super().__call__(images)


def extracted() -> tuple[FeatureSet, int, int, list[int]]:
    """Of 18 images in batches of 4; how many batches went through, how often it might have been
    stopped, and the progress."""
    images = torch.randint(0, 256, (18, 3, 2, 2), generator=generator()).byte()
    stops: list[None] = []
    shown: list[int] = []
    extractor = Squares()
    found = extract(
        extractor,
        lambda start, n: images[start : start + n],
        18,
        4,
        which="generated",
        required={"pool", "logits"},
        progress=lambda done, total: shown.append(done),
        stop=lambda: stops.append(None),
    )
    return found, extractor.batches, len(stops), shown


def decided() -> dict[str, object]:
    """Decisions of ranks that start with different values."""
    rank = world().rank
    found: dict[str, object] = {
        "broadcast_from_main": objects.broadcast_from_main(lambda: ("rank", rank)),
        "any_rank": (objects.any_rank(rank == 1), objects.any_rank(False)),
        "all_gather_objects": objects.all_gather_objects("ab"[rank]),
        "all_gather_rows": [
            len(part) for part in tensors.all_gather_rows(torch.zeros(rank + 2, 3))
        ],
    }
    own = torch.full((2, 2), float(rank)).T
    tensors.broadcast_tensors([own])
    found["broadcast_tensors"] = own
    for failing, call in ((0, objects.broadcast_from_main), (1, objects.on_every_rank)):
        try:
            call(lambda failing=failing: fail_on(failing))
        except UserError as error:
            found[f"error of rank {failing}"] = str(error)
    with as_single_process():
        found["as_single_process"] = (
            world(),
            objects.any_rank(rank == 1),
            rng.rand(2, device=CPU).shape,
        )
    flag = StopFlag()
    found["stop_flag"] = [flag(rank == 1 and call >= 50) for call in range(1000)].index(True)
    return found


def fail_on(rank: int) -> None:
    if world().rank == rank:
        raise UserError(f"said by {rank}")


def everything() -> dict[str, object]:
    parts = (normalised, averaged, drawn, extracted, decided)
    return {part.__name__: part() for part in parts}


@pytest.fixture(scope="module")
def two() -> list[dict]:
    """What each of two processes finds."""
    return in_processes(2, everything)  # pyright: ignore[reportReturnType]


def assert_same(found: Numbers, expected: Numbers, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


def assert_same_bits(found: Tensor | None, expected: Tensor | None) -> None:
    assert (found is None) == (expected is None)
    assert found is None or expected is None or torch.equal(found, expected)


def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(two: list[dict]) -> None:
    expected = normalised()
    for each in two:
        assert_same(each["normalised"], expected, 1e-10)


def test_gradients_become_their_mean_in_the_layout_that_they_have(two: list[dict]) -> None:
    numbers = torch.arange(24.0).view(2, 3, 2, 2)
    for each in two:
        assert_same(each["averaged"], {"plain": 1.5 * numbers, "last": numbers + 5}, 0)


def test_random_rows_do_not_depend_on_how_many_processes_share_them(two: list[dict]) -> None:
    expected = drawn()
    for each in two:
        assert_same(each["drawn"], expected, 0)


def test_features_of_two_processes_are_those_of_one_to_the_last_bit(two: list[dict]) -> None:
    expected, batches, stops, shown = extracted()
    assert (batches, stops, shown) == (5, 5, [4, 8, 12, 16, 18])
    for each in two:
        found, batches, stops, shown = each["extracted"]
        assert (batches, stops, shown) == (3, 3, [8, 16, 18])
        for column in ("pool", "logits", "y"):
            assert_same_bits(getattr(found, column), getattr(expected, column))
        assert torch.equal(found.moments.mean, expected.moments.mean)
        assert torch.equal(found.moments.covariance, expected.moments.covariance)


def test_processes_decide_as_one(two: list[dict]) -> None:
    for each in two:
        found = each["decided"]
        assert found["broadcast_from_main"] == ("rank", 0)
        assert found["any_rank"] == (True, False)
        assert found["all_gather_objects"] == ["a", "b"]
        assert found["all_gather_rows"] == [2, 3]
        assert torch.equal(found["broadcast_tensors"], torch.zeros(2, 2))
    a, b = (each["decided"]["stop_flag"] for each in two)
    assert a == b
    assert 50 <= a <= 250


def test_an_error_in_one_process_is_an_error_in_all(two: list[dict]) -> None:
    for each in two:
        assert each["decided"]["error of rank 0"] == "said by 0"
        assert each["decided"]["error of rank 1"] == "said by 1"


def test_a_process_may_count_as_alone_for_a_while(two: list[dict]) -> None:
    for rank, each in enumerate(two):
        assert each["decided"]["as_single_process"] == (World(), rank == 1, (2,))


def test_a_process_of_its_own_waits_for_nobody() -> None:
    assert objects.all_gather_objects(1) == [1]
    assert objects.any_rank(True)
    assert objects.broadcast_from_main(lambda: 2) == objects.on_every_rank(lambda: 2) == 2
    assert StopFlag()(True)
    assert setup.device_for_rank(torch.device("cuda:1")) == torch.device("cuda:1")
    objects.barrier()


def test_synchronising_keeps_parameters_buffers_and_names() -> None:
    net = network()
    before, parameters = net.state_dict(keep_vars=True), list(net.parameters())
    net.eval()
    convert_sync_batchnorm(net)
    assert net.state_dict(keep_vars=True).keys() == before.keys()
    assert all(after is before[name] for name, after in net.state_dict(keep_vars=True).items())
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert sum(isinstance(layer, SyncBatchNorm) for layer in net) == 2
    assert not net[1].training
    assert torch.equal(
        net(torch.ones(2, 2, 4, 4).double()), network().eval()(torch.ones(2, 2, 4, 4).double())
    )


def test_torchrun_is_known_by_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "SUBMITIT_EXECUTOR", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name in launch.TORCHRUN:
        assert not launch.is_distributed()
        monkeypatch.setenv(name, "2")
    assert launch.is_distributed()
    assert not launch.is_main()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not launch.is_distributed()
    assert launch.is_main()


def test_tasks_of_slurm_are_one_run_under_submitit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert not launch.is_distributed()
    assert launch.is_main()
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert launch.is_submitit()
    assert not launch.is_main()


def test_one_gpu_for_two_processes_is_refused() -> None:
    setup.require_one_gpu_per_rank(["a GPU-1", "a GPU-2", "b GPU-1"], 2)
    with pytest.raises(UserError, match="torchrun --nproc-per-node 1"):
        setup.require_one_gpu_per_rank(["a GPU-1", "a GPU-1"], 1)


def test_a_named_gpu_is_refused_for_several_processes() -> None:
    with as_world(World(0, 2, 0)), pytest.raises(UserError, match="Type device=cuda"):
        setup.device_for_rank(torch.device("cuda:0"))

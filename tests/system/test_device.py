"""What a GPU must be for this PyTorch, and what TF32 is allowed in."""

import warnings
from collections.abc import Iterator

import pytest
import torch

from crgan_cli.errors import UserError
from crgan_cli.system.device import allow_tf32, resolve_device, runs_on


@pytest.mark.parametrize(
    ("architecture", "capability", "runs"),
    [
        ("sm_80", (8, 0), True),
        ("sm_80", (8, 9), True),  # machine code: the same major version, from its minor one on
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("sm_90", (8, 9), False),
        ("compute_80", (9, 0), True),  # PTX: the same and all later versions
        ("compute_80", (12, 0), True),
        ("compute_80", (7, 5), False),
        ("sm_90a", (9, 0), True),  # "a": this version alone
        ("sm_100a", (10, 3), False),
        ("compute_90a", (10, 0), False),
        ("sm_100f", (10, 3), True),  # "f": a family
        ("compute_100f", (12, 0), False),
        ("sm_120", (12, 1), True),
        ("gfx90a", (9, 0), False),
    ],
)
def test_code_runs_on_the_gpus_that_it_was_built_for(
    architecture: str, capability: tuple[int, int], runs: bool
) -> None:
    assert runs_on(architecture, *capability) == runs


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One Tesla P100, and a PyTorch for CUDA that was built for newer GPUs."""
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_90"])
    return monkeypatch


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_gpu_without_kernels_is_refused_in_words(name: str, gpu: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as refused:
        resolve_device(name)
    assert str(refused.value) == (
        f"device={name} is not available here: Tesla P100 has compute capability 6.0 (sm_60), and "
        f"PyTorch {torch.__version__} has kernels for sm_75, sm_90, compute_90 only. Type "
        "device=cpu, or install a PyTorch build for this GPU: a newer one for a newer GPU, one for "
        "an older CUDA for an older GPU (https://pytorch.org/get-started/locally)."
    )
    assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize("capability", [(7, 5), (9, 0), (12, 0)])
def test_a_gpu_with_kernels_or_ptx_is_taken(
    capability: tuple[int, int], gpu: pytest.MonkeyPatch
) -> None:
    gpu.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_device("cuda:0") == torch.device("cuda", 0)


def test_rocm_has_other_names_and_is_not_judged_by_them(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch.version, "cuda", None)
    assert resolve_device("cuda:0") == torch.device("cuda", 0)


@pytest.fixture
def tf32() -> Iterator[None]:
    """Puts PyTorch's switches back."""
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    yield
    for switch, allowed in zip(switches, before, strict=True):
        switch.allow_tf32 = allowed


@pytest.mark.parametrize("wanted", [True, False])
def test_tf32_is_for_convolutions_alone(wanted: bool, tf32: None) -> None:
    """Without a warning, and all of PyTorch's switches can be read afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        allow_tf32(wanted)
        assert torch.backends.cudnn.allow_tf32 is wanted
        assert torch.backends.cuda.matmul.allow_tf32 is False
        with torch.backends.cudnn.flags(enabled=True):
            assert torch.get_float32_matmul_precision() == "highest"

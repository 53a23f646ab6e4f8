"""The files that `crgan export` writes: how each is written, read back, and loaded by a reader.

Libraries with an extra of their own are imported where they are used.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, cast

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.jit import TracerWarning  # pyright: ignore[reportPrivateImportUsage]

from crgan_cli.config.compose import RUN_PATHS
from crgan_cli.errors import UserError
from crgan_cli.evaluation.export.plain import Compute, Input, Plan, make_plain, plan_export
from crgan_cli.evaluation.load import LoadedGenerator, read_network_config
from crgan_cli.gan.build import build_networks
from crgan_cli.runs.checkpoint import Content, LoadedCheckpoint

FEW = 2
"""Images of the example that a network is recorded with."""


class Format:
    """One kind of file."""

    file: ClassVar[str]
    loading: ClassVar[str]
    """What a reader types, from numpy arrays with the names of the inputs to `images`."""

    def write(self, plan: Plan, model: LoadedGenerator, path: Path) -> None:
        """Write the generator of a plan, which is in its plain form."""
        raise NotImplementedError

    def open(self, path: Path) -> Compute:
        """Read a file back as its readers do."""
        raise NotImplementedError

    def explain_loading(self, inputs: Sequence[Input]) -> str:
        """Return Python that makes n inputs, loads the file and computes `images`."""
        tensors = ", ".join(f"torch.from_numpy({each.name})" for each in inputs)
        feed = ", ".join(f'"{each.name}": {each.name}' for each in inputs)
        libraries, code = self.loading.split("\n\n")
        return "\n".join(
            [
                f"import numpy as np\n{libraries}\n\nn, rng = 4, np.random.default_rng(0)",
                *(f"{each.name} = {each.example}" for each in inputs),
                code.format(file=self.file, tensors=tensors, feed=feed),
            ]
        )


class TorchExport(Format):
    """torch.export: a graph of PyTorch's operations, for PyTorch and what compiles from it."""

    file = "generator.pt2"
    loading = """import torch

G = torch.export.load("{file}").module()
images = G({tensors}).numpy()"""

    def write(self, plan: Plan, model: LoadedGenerator, path: Path) -> None:
        torch.export.save(record(plan), path)

    def open(self, path: Path) -> Compute:
        return cast(Compute, torch.export.load(path).module())


class Onnx(Format):
    """ONNX, for other runtimes and languages; checked with ONNX Runtime."""

    file = "generator.onnx"
    loading = """import onnxruntime

G = onnxruntime.InferenceSession("{file}")
(images,) = G.run(None, {{{feed}}})"""

    def write(self, plan: Plan, model: LoadedGenerator, path: Path) -> None:
        program = torch.onnx.export(
            record(plan),
            dynamo=True,
            # onnxscript's optimizer takes the 1e-8 of pixel norm for 0, and leaves it out; runtimes
            # have an optimizer of their own
            optimize=False,
            verbose=False,
            input_names=[each.name for each in plan.inputs],
            output_names=["images"],
        )
        assert program is not None, "dynamo=True returns a program"
        program.save(path, external_data=False)

    def open(self, path: Path) -> Compute:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]

        def compute(*inputs: Tensor) -> Tensor:
            feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
            return torch.from_numpy(session.run(None, feed)[0])

        return compute


class TorchScriptFile(Format):
    """TorchScript, for LibTorch in C++ and older programs. PyTorch calls it deprecated."""

    file = "generator.torchscript"
    loading = """import torch

G = torch.jit.load("{file}")
images = G({tensors}).numpy()"""

    def write(self, plan: Plan, model: LoadedGenerator, path: Path) -> None:
        with quiet_jit():
            traced = torch.jit.trace(plan.generator, draw_inputs(plan, FEW, 0), check_trace=False)
            content = io.BytesIO()
            torch.jit.save(traced, content)
        with zipfile.ZipFile(content) as source, zipfile.ZipFile(path, "w") as file:
            for entry in source.infolist():
                if not entry.filename.endswith(".debug_pkl"):  # it names files of this machine
                    file.writestr(entry, source.read(entry))

    def open(self, path: Path) -> Compute:
        with quiet_jit():
            return torch.jit.load(str(path))


class Safetensors(Format):
    """safetensors: the weights alone, and the settings that crgan builds the network from."""

    file = "generator.safetensors"
    loading = """import torch
from crgan_cli.evaluation.export.formats import load_safetensors

G = load_safetensors("{file}")
images = G({tensors}).numpy()"""

    def write(self, plan: Plan, model: LoadedGenerator, path: Path) -> None:
        from safetensors.torch import save_file

        config = model.config.copy()
        for key, default in RUN_PATHS.items():  # no path of this machine goes out
            config[key] = default
        about = {
            "format": "pt",
            "config": OmegaConf.to_yaml(config),
            "to": plan.to or "",
            "step": str(model.step),
            "weights": model.weights,
        }
        state = plan.generator.network.state_dict()
        save_file({key: each.contiguous() for key, each in state.items()}, path, about)

    def open(self, path: Path) -> Compute:
        return load_safetensors(path)


def load_safetensors(path: str | Path) -> Compute:
    """Load what `crgan export --to safetensors` wrote: (inputs) -> images. UserError if it is
    another program's file."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
    if not {"config", "to", "step", "weights"} <= about.keys():
        raise UserError(f"{path} was not written by crgan export: it lacks the settings of G.")
    content = cast(Content, {"config": about["config"]})
    config = read_network_config(LoadedCheckpoint(Path(path), content, ""))
    G = build_networks(config).G
    model = LoadedGenerator(G, config, int(about["step"]), about["weights"], Path(path))
    plan = plan_export(model, about["to"] or None)
    make_plain(plan.generator, plan.batch_norm)
    plan.generator.network.load_state_dict(state)
    return cast(Compute, plan.generator)


FORMATS: dict[str, Format] = {
    "safetensors": Safetensors(),
    "torchscript": TorchScriptFile(),
    "onnx": Onnx(),
    "torch_export": TorchExport(),
}
"""What can be typed after --to."""


def draw_inputs(plan: Plan, n: int, seed: int) -> tuple[Tensor, ...]:
    """Draw all inputs of n images."""
    return tuple(each.draw(n, seed) for each in plan.inputs)


def record(plan: Plan) -> ExportedProgram:
    """Record a generator for batches of any size."""
    batch = Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in plan.inputs)
    example = draw_inputs(plan, FEW, 0)
    program = torch.export.export(plan.generator, example, dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    return program


@contextmanager
def quiet_jit() -> Iterator[None]:
    """Hide that TorchScript is deprecated, and that sizes of images are recorded as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")
        warnings.filterwarnings("ignore", category=TracerWarning)
        yield

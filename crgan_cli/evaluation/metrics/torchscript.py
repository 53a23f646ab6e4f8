"""A network of the user as a TorchScript file: no Python code is imported."""

import re

import torch
from torch import Tensor

from crgan_cli.config.bounds import CodePath, PositiveInt
from crgan_cli.errors import UserError
from crgan_cli.evaluation.metrics.extractors import Extractor, Features, resize_bicubic
from crgan_cli.evaluation.metrics.weights import load_torchscript, sha256_hex
from crgan_cli.system.paths import expand_home

PROBE_SIDE = 32  # pixels of the images for the first test of the module, if no size is given

CONTRACT = (
    "The module takes (N, 3, H, W) float32 images in [0, 255] and returns float features (N, dims) "
    "or (N, dims, 1, 1), or a tuple of these and logits (N, classes)"
)


class TorchScript(Extractor):
    """A module saved with torch.jit.save: (N, 3, H, W) float32 in [0, 255] -> (N, dims) float.

    It may also return (N, dims, 1, 1), or a tuple of such features and logits (N, classes). The
    same images must give the same features. With `resolution` the images are resized first;
    without, they have the data set's size. The code runs in TorchScript's interpreter, which has
    no imports but is no sandbox: use only files that you trust.
    """

    def __init__(self, path: CodePath, resolution: PositiveInt | None = None) -> None:
        file = expand_home(path).absolute()
        if not file.is_file():
            raise UserError(
                f"extractor.path={path} is not a file. It should be a module saved with "
                f"torch.jit.save. {CONTRACT}."
            )
        content = file.read_bytes()
        try:
            net = load_torchscript(content)
        except RuntimeError as error:
            raise UserError(
                f"extractor.path={path} is not a TorchScript module. Save one with "
                f"torch.jit.save(torch.jit.script(net.eval()), 'net.pt'); a state dict or a model "
                f"saved with torch.save does not work. {CONTRACT}."
            ) from error
        self.sha256 = sha256_hex(content)
        self.name = f"{re.sub(r'[^A-Za-z0-9]+', '_', file.stem)}_{self.sha256[:8]}"
        self.resolution = resolution
        self.resize = (
            f"{resolution} px, bicubic with antialiasing (torch)" if resolution else "none by crgan"
        )
        self.path = path
        super().__init__(net)
        side = resolution or PROBE_SIDE
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            probe = self.features(torch.full((2, 3, side, side), 127.5))
        self.dims = probe.pool.shape[1]
        self.has_logits = probe.logits is not None

    def features(self, rgb: Tensor) -> Features:
        x = resize_bicubic(rgb, self.resolution) if self.resolution else rgb
        n, _, height, width = x.shape
        images = f"{n} images of {height} x {width} pixels"
        try:
            output = self.net(x)
        except (RuntimeError, torch.jit.Error) as error:
            lines = str(error).strip().splitlines() or ["no reason given"]
            raise UserError(
                f"extractor.path={self.path} fails on {images}: {lines[-1].strip()}. {CONTRACT}. "
                "With extractor.resolution=N the images are resized first."
            ) from error
        features = parse_output(output, n)
        if isinstance(features, str):
            raise UserError(
                f"extractor.path={self.path} returns {features} for {images}. {CONTRACT}."
            )
        return features


def parse_output(output: object, n: int) -> Features | str:
    """Convert a module's output for `n` images to features, or return what is wrong with it."""
    parts = output if isinstance(output, tuple) else (output,)
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if len(tensors) < len(parts) or len(tensors) not in (1, 2):
        return f"({', '.join(type(part).__name__ for part in parts)})"
    pool, logits = tensors[0], tensors[1] if len(tensors) == 2 else None
    if pool.ndim == 4 and pool.shape[2:] == (1, 1):
        pool = pool.flatten(1)
    for part in (pool,) if logits is None else (pool, logits):
        if not part.is_floating_point():
            return f"values of {part.dtype}"
        if part.ndim != 2 or len(part) != n or part.shape[1] == 0:
            return f"the shape {tuple(part.shape)}"
    return Features(pool, logits)

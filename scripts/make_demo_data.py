"""Pack the demo set: the first images of each class of Fashion-MNIST, as one PNG picture per split.

    python scripts/make_demo_data.py SRC [OUT]

SRC holds the four official IDX files, gzipped or not: Debian's package dataset-fashion-mnist has
them, and torchvision's download leaves them in ROOT/FashionMNIST/raw. OUT is the package's folder
unless given. The same files give the same bytes with the same Pillow.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from crgan_cli.data.embedded import FOLDER, pack_grid
from crgan_cli.data.idx import find_idx, read_idx
from crgan_cli.errors import UserError

CLASSES = 10
PER_CLASS = {"train": 2000, "test": 400}
OFFICIAL = {"train": "train", "test": "t10k"}

LICENSE = """\
The images in this folder are a subset of Fashion-MNIST
(https://github.com/zalandoresearch/fashion-mnist), packed by scripts/make_demo_data.py.

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def official(source: Path, name: str) -> np.ndarray:
    """An official file by its stem, as an array."""
    path = find_idx(source, name)
    if path is None:
        raise UserError(f"{source} holds neither {name} nor {name}.gz")
    return read_idx(path)


def in_turn(pixels: np.ndarray, labels: np.ndarray, per_class: int) -> np.ndarray:
    """The first `per_class` images of each class, so that image i is of class i modulo 10."""
    firsts = [pixels[labels == label][:per_class] for label in range(CLASSES)]
    short = [label for label, first in enumerate(firsts) if len(first) < per_class]
    if short:
        raise UserError(f"classes {short} have fewer than {per_class} images")
    return np.stack(firsts, axis=1).reshape(-1, *pixels.shape[1:])


def pack(source: Path, out: Path, per_class: dict[str, int]) -> list[Path]:
    """Write one picture per split and the licence; return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "LICENSE-fashion-mnist"]
    written[0].write_text(LICENSE, encoding="ascii")
    for split, count in per_class.items():
        pixels = official(source, f"{OFFICIAL[split]}-images-idx3-ubyte")
        labels = official(source, f"{OFFICIAL[split]}-labels-idx1-ubyte")
        path = out / f"fashion_mnist_{split}.png"
        grid = pack_grid(in_turn(pixels, labels, count))
        Image.fromarray(grid).save(path, optimize=True)
        written.append(path)
    return written


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(
        description="Pack the demo set from Fashion-MNIST's official IDX files, gzipped or not. "
        "Debian's package dataset-fashion-mnist has them; torchvision's download leaves them in "
        "ROOT/FashionMNIST/raw."
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the four IDX files")
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?", default=FOLDER)
    arguments = parser.parse_args()
    try:
        for path in pack(arguments.source, arguments.out, PER_CLASS):
            print(f"{path}  {path.stat().st_size:,} bytes")
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

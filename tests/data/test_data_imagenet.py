"""ImageNet: folders and tars, one cached file, and a preparation that can be killed anywhere."""

import errno
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from support.runs import different

from crgan_cli.config.compose import compose
from crgan_cli.data import batches, imagenet, prepared
from crgan_cli.data.dataset import build_dataset
from crgan_cli.data.decoding import CentreDecoder, decode_content
from crgan_cli.data.imagenet import ImageNet
from crgan_cli.data.images import Images, fingerprint
from crgan_cli.errors import RunFailed, UserError
from crgan_cli.training.start import train_run

CLASSES = ("n01440764", "n01443537", "n02102040")
SIDE = 8
DECODER = CentreDecoder(SIDE, 3, None, False)


def picture(number: int) -> bytes:
    """A grey JPEG of its own shade, not square."""
    file = io.BytesIO()
    Image.new("RGB", (20, 12), (5 * number,) * 3).save(file, "JPEG", quality=95)
    return file.getvalue()


def shade(number: int) -> int:
    """The value of all its pixels after decoding."""
    return int(decode_content(picture(number), DECODER)[0, 0, 0])


TRAIN = {
    f"{name}/{name}_{i}.JPEG": picture(10 * c + i)
    for c, name in enumerate(CLASSES)
    for i in range(7)
}
VAL_ORDER = (2, 0, 1, 2, 1)
"""Class of each validation image, in order of their file names."""
VAL = {f"ILSVRC2012_val_{i:08d}.JPEG": picture(40 + i) for i in range(1, 6)}


def write_folders(root: Path) -> Path:
    val = {
        f"{CLASSES[c]}/{name}": content
        for c, (name, content) in zip(VAL_ORDER, VAL.items(), strict=True)
    }
    for split, files in (("train", TRAIN), ("val", val)):
        for name, content in files.items():
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def write_tars(root: Path) -> Path:
    """As they are downloaded: a tar of a tar per class, and one of all validation images."""
    root.mkdir()
    inner = {
        f"{name}.tar": tar_of(
            {file.rpartition("/")[2]: x for file, x in TRAIN.items() if file.startswith(name)}
        )
        for name in CLASSES
    }
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(VAL))
    return root


def write_devkit(root: Path, kind: str) -> None:
    """The numbers of the ground truth are not those of the sorted names."""
    numbers = {CLASSES[0]: 3, CLASSES[1]: 1, CLASSES[2]: 2}
    if kind == "csv":
        rows = [
            f"{Path(name).stem},{CLASSES[c]} 1 2 3 4"
            for c, name in zip(VAL_ORDER, VAL, strict=True)
        ]
        (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
        return
    synsets = np.array(
        [[(n, name)] for name, n in numbers.items()], [("ILSVRC2012_ID", "O"), ("WNID", "O")]
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = "".join(f"{numbers[CLASSES[c]]}\n" for c in VAL_ORDER).encode()
    files = {"data/meta.mat": meta.getvalue(), "data/ILSVRC2012_validation_ground_truth.txt": truth}
    kit = root / "ILSVRC2012_devkit_t12"
    if kind == "tar":
        packed = tar_of({f"{kit.name}/{name}": content for name, content in files.items()})
        (root / f"{kit.name}.tar.gz").write_bytes(packed)
    else:
        for name, content in files.items():
            (kit / name).parent.mkdir(parents=True, exist_ok=True)
            (kit / name).write_bytes(content)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "folders")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(prepared, "SHARD", 4)
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "cache"))


def make(root: Path, *words: str) -> ImageNet:
    given = [f"dataset.root={root}", f"dataset.resolution={SIDE}", "dataset.classes=3", *words]
    dataset = build_dataset(compose(["dataset=imagenet", *given]))
    assert isinstance(dataset, ImageNet)
    return dataset


def pairs(images: Images) -> list[tuple[int, int]]:
    """(shade, label) of each image, which is grey and of one shade."""
    assert (images.x == images.x[:, :1, :1, :1]).all()
    return list(zip(images.x[:, 0, 0, 0].tolist(), images.y.tolist(), strict=True))


def refused(dataset: ImageNet, split: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        dataset.load(split)  # type: ignore[arg-type]
    return str(caught.value)


EXPECTED_TRAIN = sorted((shade(10 * c + i), c) for c in range(3) for i in range(7))
EXPECTED_VAL = sorted((shade(40 + i), c) for i, c in enumerate(VAL_ORDER, 1))


# --- what is read ---------------------------------------------------------------------------------


def test_folders_give_every_image_its_class(folders: Path) -> None:
    dataset = make(folders)
    train = pairs(dataset.load("train"))
    assert sorted(train) == EXPECTED_TRAIN
    assert train != sorted(train)  # shuffled in the file, and always alike
    assert train == pairs(make(folders).load("train"))
    assert sorted(pairs(dataset.load("test"))) == EXPECTED_VAL
    assert dataset.class_names == CLASSES


@pytest.mark.parametrize("kit", ["csv", "tar", "folder"])
def test_the_tars_as_downloaded_give_the_same_images(tmp_path: Path, kit: str) -> None:
    root = write_tars(tmp_path / "tars")
    write_devkit(root, kit)
    dataset = make(root)
    assert sorted(pairs(dataset.load("test"))) == EXPECTED_VAL
    assert dataset.class_names == CLASSES
    assert sorted(pairs(dataset.load("train"))) == EXPECTED_TRAIN


def test_a_flat_folder_of_validation_images_takes_the_same_labels(folders: Path) -> None:
    for path in list((folders / "val").glob("*/*")):
        path.rename(folders / "val" / path.name)
    for path in (folders / "val").glob("n*"):
        path.rmdir()
    assert "Put ILSVRC2012_devkit_t12.tar.gz there" in refused(make(folders), "test")
    write_devkit(folders, "tar")
    assert sorted(pairs(make(folders).load("test"))) == EXPECTED_VAL


def test_pixels_are_those_of_a_folder_of_images(folders: Path) -> None:
    """A photo that is neither grey nor square, decoded as dataset=folder does it."""
    noise = np.random.RandomState(0).randint(0, 256, (30, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    (folders / "val" / CLASSES[0] / "noise.png").write_bytes(file.getvalue())
    x = make(folders).load("test").x.numpy()
    expected = decode_content(file.getvalue(), DECODER)
    assert (x == expected).all((1, 2, 3)).sum() == 1


def test_what_is_not_used_is_not_decoded(folders: Path, decoded: list[str]) -> None:
    words = (f"dataset.only_classes=[{CLASSES[2]},{CLASSES[0]}]", "dataset.classes=2")
    dataset = make(folders, *words, "dataset.fraction=0.3")
    images = pairs(dataset.load("train"))
    assert len(images) == len(decoded) == 4  # two of seven, of each class
    assert set(images) <= {(shade(i), 1) for i in range(7)} | {(shade(20 + i), 0) for i in range(7)}
    assert dataset.class_names == (CLASSES[2], CLASSES[0])
    larger = pairs(make(folders, *words, "dataset.fraction=0.6").load("train"))
    assert set(images) < set(larger)
    assert len(make(folders, *words, "dataset.fraction=0.3").load("test").x) == 3


def test_without_classes_the_labels_are_zeros_and_the_file_is_still_known(folders: Path) -> None:
    images = make(folders, "dataset.classes=0").load("train")
    assert not images.y.any()
    assert images.stored


# --- the preparation ------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are decoded, in some order."""
    names: list[str] = []
    original = prepared.Preparation.decode_one

    def decode_one(self: prepared.Preparation, number: int) -> np.ndarray | str:
        names.append(self.work.names[number])
        return original(self, number)

    monkeypatch.setattr(prepared.Preparation, "decode_one", decode_one)
    return names


def test_images_are_decoded_once(folders: Path, decoded: list[str]) -> None:
    make(folders).load("train")
    assert sorted(decoded) == sorted(TRAIN)
    make(folders).load("train")
    assert len(decoded) == len(TRAIN)


@pytest.mark.parametrize("shards", range(7))
def test_a_killed_preparation_goes_on_where_it_was(
    folders: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """21 images are six shards of at most four; killed while one is written, and at the end."""
    with monkeypatch.context() as patched:
        patched.setenv("CRGAN_CACHE", str(folders.parent / "other"))
        whole = fingerprint(make(folders).load("train"))
    decoded.clear()
    original = prepared.Preparation.write_shard
    written = []

    def write_shard(self: prepared.Preparation, *args) -> str:
        if len(written) == shards:
            raise KeyboardInterrupt
        written.append(args)
        return original(self, *args)

    def interrupted(self: prepared.Preparation, digests: list[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prepared.Preparation, "write_shard", write_shard)
        patched.setattr(prepared.Preparation, "complete", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(folders).load("train")
    (journal,) = (folders.parent / "cache" / "datasets").glob("*/shards.jsonl")
    if not (journal.parent / "complete.json").exists():
        with journal.open("a") as file:
            file.write('{"first": 20, "sha')  # cut by the kill
    decoded.clear()
    images = make(folders).load("train")
    assert len(decoded) == max(0, 21 - 4 * shards)
    assert sorted(pairs(images)) == EXPECTED_TRAIN
    assert fingerprint(images) == whole


def test_unreadable_images_are_named_and_all_others_stay(folders: Path, decoded: list[str]) -> None:
    bad = folders / "train" / CLASSES[1] / f"{CLASSES[1]}_3.JPEG"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100])
    said = refused(make(folders))
    assert f"1 of 21 images in {folders}/train are unreadable: {CLASSES[1]}/{bad.name} (" in said
    assert len(decoded) == 21
    decoded.clear()
    bad.write_bytes(whole)
    assert sorted(pairs(make(folders).load("train"))) == EXPECTED_TRAIN
    assert len(decoded) == 4  # its shard


def test_a_new_file_is_noticed(folders: Path, decoded: list[str]) -> None:
    make(folders).load("train")
    (folders / "train" / CLASSES[0] / "new.JPEG").write_bytes(picture(50))
    assert len(make(folders).load("train").x) == 22


def test_damage_is_noticed_and_mended(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = pairs(make(folders).load("train"))
    (pixels,) = (folders.parent / "cache" / "datasets").glob("*/pixels.u8")
    content = bytearray(pixels.read_bytes())
    content[5] ^= 1
    pixels.write_bytes(content)
    assert pairs(make(folders).load("train")) == expected
    assert "is damaged (its SHA-256 is another): its images are decoded again" in caplog.text


def test_a_disk_that_is_too_small_is_said_at_once(
    folders: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        prepared.shutil, "disk_usage", lambda folder: type("", (), {"free": 1000})()
    )
    with pytest.raises(RunFailed, match=r"21 decoded images take 3.94 KiB more.* has 1000 B free"):
        make(folders).load("train")
    assert not decoded


def test_a_start_reads_a_sample_of_the_pixels(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folders).load("train")
    images = make(folders).load("train")
    monkeypatch.setattr(torch.Tensor, "split", lambda *_: pytest.fail("the pixels are read"))
    assert fingerprint(images) != fingerprint(make(folders).load("test"))


# --- training -------------------------------------------------------------------------------------


def test_a_run_that_reads_the_file_resumes_bit_by_bit(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of five batches, in blocks of two images and windows of four."""
    monkeypatch.setattr(imagenet, "BLOCK", 2)
    monkeypatch.setattr(batches, "MAX_BYTES_WITHOUT_GPU", 0)

    def train(out: str, *more: str) -> Path:
        words = [
            *("dataset=imagenet", f"dataset.root={folders}", f"dataset.resolution={SIDE}"),
            *("dataset.classes=3", "dataset.shuffle_window=4", "dataset.flip=true"),
            *("metrics=none", "architecture.width=0.02", "batch_size=4", "steps=10"),
            *("checkpoint.every=3", "device=cpu", "samples.num=4", f"out={tmp_path / out}", *more),
        ]
        train_run(compose(words), words, {}, None)
        return tmp_path / out / "checkpoints" / "step_00000010.pt"

    whole = train("whole")
    train("cut", "steps=6")
    assert different(train("cut", "resume=force"), whole) == []
    monkeypatch.setattr(batches, "MAX_BYTES_WITHOUT_GPU", 10**9)
    assert different(train("on_device"), whole) == []


# --- what is refused ------------------------------------------------------------------------------


def test_what_is_missing_is_named(tmp_path: Path, folders: Path) -> None:
    said = refused(make(tmp_path / "nowhere"))
    assert "neither a folder train/ of class folders such as train/n01440764/" in said
    assert "nor ILSVRC2012_img_train.tar" in said
    said = refused(make(folders, "dataset.classes=1000"))
    assert f"1000, but {folders} has training images of 3 classes. Type dataset.classes=3" in said
    assert "n01440764" in refused(
        make(folders, "dataset.only_classes=[n01440765]", "dataset.classes=1")
    )


def test_a_window_is_whole_blocks(folders: Path) -> None:
    assert make(folders, "dataset.shuffle_window=512").block_shuffle == (256, 2)
    with pytest.raises(UserError, match=r"multiple of 256.*Type dataset.shuffle_window=256"):
        make(folders, "dataset.shuffle_window=300")


def test_validation_images_of_other_classes_are_refused(folders: Path) -> None:
    (folders / "val" / CLASSES[0]).rename(folders / "val" / "n09999999")
    assert "class n09999999 has no training images" in refused(make(folders), "test")


def test_a_tar_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "tars")
    tar = root / "ILSVRC2012_img_train.tar"
    tar.write_bytes(tar.read_bytes()[:20000])
    assert "cannot be read to its end" in refused(make(root))


def test_labels_that_are_not_the_devkits_are_refused(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "tars")
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"no tar")
    assert "does not hold the labels of ImageNet's validation images" in refused(make(root), "test")


def test_a_failing_disk_is_no_unreadable_image(tmp_path: Path):
    def fail(number: int) -> np.ndarray:
        raise OSError(errno.EIO, "Input/output error")

    work = prepared.Work(fail, ["n01/0.JPEG"], np.zeros(1, np.int64), "train")
    with pytest.raises(RunFailed, match=r"n01/0\.JPEG in train could not be read .*try again"):
        prepared.Preparation(tmp_path, (3, 4, 4), work).run()

"""Which image files are of which domain and split: folders of unpaired images, or a zip."""

from crgan_cli.data.decoding import format_names
from crgan_cli.data.file_listing import Entry
from crgan_cli.data.files import ImageFiles
from crgan_cli.data.folder import find_test
from crgan_cli.data.pair_files import HALVES, Located, format_folders, locate_all
from crgan_cli.errors import UserError

LAYOUTS = (
    "dataset=domains reads two layouts. (1) trainA/ and trainB/, with testA/ and testB/ or valA/ "
    "and valB/ (also train_A, train-A). (2) Two folders A/ and B/, with or without train/ and "
    "test/ in both of them (A/train/1.jpg), or around them (train/A/1.jpg)."
)

SplitEntries = dict[str, list[Entry]]
"""Split -> its files, sorted by name: "train", and maybe "test" and others that are not used."""


def list_domains(files: ImageFiles) -> dict[str, SplitEntries]:
    """List the files of "a" and "b" by split; all are "train" if there are no splits.

    Raises UserError, with the names of folders, for files outside of A and B, for a domain without
    images, and for a split that only one domain has.
    """
    located = locate_all(files)
    _require_halves(located, files)
    found: dict[str, SplitEntries] = {half.lower(): {} for half in HALVES}
    for each in located:
        found[each.half.lower()].setdefault(each.split, []).append(each.entry)
    names = set(found["a"]) | set(found["b"])
    if names == {""}:
        return {domain: {"train": splits[""]} for domain, splits in found.items()}
    if "" in names:
        raise _refuse(located, files, "some are in train/, val/ or test/, and some are not")
    if "train" not in names:
        raise _refuse(located, files, "there is no train split among them")
    test = find_test(names)
    for split in ("train", *([test] if test else [])):
        for domain, splits in found.items():
            if split not in splits:
                half = domain.upper()
                raise _refuse(located, files, f"the {split} split has no image of {half}")
    return {
        domain: {"test" if split == test else split: each for split, each in splits.items()}
        for domain, splits in found.items()
    }


def _require_halves(located: list[Located], files: ImageFiles) -> None:
    """Raise UserError unless each file is below a folder of a domain, and both have some."""
    outside = [each for each in located if not each.half]
    if outside and len(outside) < len(located):
        names = format_names([each.entry.name for each in outside])
        raise _refuse(located, files, f"{len(outside)} are in neither domain: {names}")
    if outside:
        problem = "there is no A and no B among them"
        if not any(each.folders for each in outside):
            problem += " (files with two images side by side are pairs: dataset=pairs)"
        else:
            problem += (
                " (sub-folders of any name, each a domain, are classes: dataset=folder "
                "dataset.classes=N)"
            )
        raise _refuse(located, files, problem)
    for half in HALVES:
        if not any(each.half == half for each in located):
            raise _refuse(located, files, f"no image is in {half}: its folder is missing or empty")


def _refuse(located: list[Located], files: ImageFiles, problem: str) -> UserError:
    return UserError(
        f"The images in {files.root} are in {format_folders(located)}: {problem}. {LAYOUTS}"
    )

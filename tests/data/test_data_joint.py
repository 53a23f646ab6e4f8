"""Several labelled data sets as one: columns, masks and parts by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.pictures import save_grey

from crgan_cli.config.compose import compose
from crgan_cli.config.resolve import to_plain
from crgan_cli.config.stored import Typed, difference, from_text, make_paths_absolute, to_text
from crgan_cli.config.trust import path_keys
from crgan_cli.data import demo_domains
from crgan_cli.data.dataset import build_dataset
from crgan_cli.data.embedded import read_tiles
from crgan_cli.data.joint import Joint, join_pixels
from crgan_cli.errors import UserError
from crgan_cli.gan.labels import Labels

GARMENTS = {
    "_target_": "crgan_cli.data.DemoAttributes",
    "resolution": 32,
    "channels": 1,
    "classes": 5,
}
TOPS = {
    "_target_": "crgan_cli.data.DemoTraits",
    "resolution": 32,
    "channels": 1,
    "classes": 0,
    "attributes": ["bright", "patterned"],
}


@pytest.fixture(autouse=True)
def few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both splits are the first 40 test images of each class, which is faster."""
    few = read_tiles("test")[:400]
    monkeypatch.setattr(demo_domains, "read_tiles", lambda split: few)


def joint(**changed: Any) -> Joint:
    options = {"resolution": 32, "channels": 1, "classes": 0, **changed}
    return Joint(**{"parts": {"garments": GARMENTS, "tops": TOPS}, **options})


def test_columns_and_masks_by_hand():
    data = joint()
    views = data.load_views("test")
    assert list(views) == ["garments", "tops"]
    # five kinds of garments, two traits, two parts; image 3 is a bag
    assert views["garments"].y[3].tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0]
    traits = views["tops"].y
    assert traits[:, :5].sum() == 0
    assert traits[:, 7:].unique(dim=0).tolist() == [[0, 1]]
    whole = data.load("test")
    assert torch.equal(whole.y, torch.cat([each.y for each in views.values()]))
    assert torch.equal(whole.x, torch.cat([each.x for each in views.values()]))
    assert data.set_sizes(whole) == (200, 120)
    assert data.class_names[3:] == ("bag", "ankle boot", "bright", "patterned")


def test_a_run_keeps_the_numbers_of_the_classes_of_each_part(tmp_path: Path):
    save_grey(tmp_path, ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"])
    own = {
        "_target_": "crgan_cli.data.Folder",
        "root": str(tmp_path),
        "resolution": 32,
        "channels": 1,
        "classes": 2,
        "holdout": 0.5,
    }
    data = joint(parts={"tops": TOPS, "own": own})
    data.keep_numbers(["bright", "patterned", "dog", "cat"])
    y = data.load_views("test")["own"].y
    assert data.class_names == ("bright", "patterned", "dog", "cat")
    assert sorted(y[:, 2:4].tolist()) == [[0, 1], [1, 0]]
    x = data.load_views("test")["own"].x[:, 0, 0, 0]
    assert torch.equal(y[:, 2] == 1, x >= 2)  # dogs are the greys 2 and 3


def test_the_columns_are_those_of_labels():
    data = joint()
    y = data.load("test").y
    labels = Labels.from_settings({"parts": data.parts}, data.class_names)
    assert [group.kind for group in labels.groups] == ["classes", "attributes"]
    assert labels.groups[0].names == data.class_names[:5]
    assert torch.equal(labels.encode(y).long(), y)  # nothing is set that a row does not know
    unnamed = Labels.from_settings({"parts": data.parts})
    assert unnamed.groups[0].names == ("0", "1", "2", "3", "4")


def test_a_fraction_is_of_each_part_and_the_views_agree():
    data = joint(fraction=0.1)
    whole, views = data.load("train"), data.load_views("train")
    assert data.set_sizes(whole) == (20, len(views["tops"].x))
    assert abs(len(views["tops"].x) - 12) <= 2  # rounded in each of four kinds
    assert torch.equal(whole.x[:20], views["garments"].x)
    assert data.load_views("test")["tops"].x.shape[0] == 120


def test_large_parts_are_joined_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path))
    a, b = torch.arange(24).view(6, 1, 2, 2).byte(), torch.full((3, 1, 2, 2), 200).byte()
    joined = join_pixels([a[::2], b], in_memory=23)  # one less than they need
    assert torch.equal(joined, torch.cat([a[::2], b]))
    assert torch.equal(joined, join_pixels([a[::2], b]))
    assert not list((tmp_path / "datasets").iterdir())  # it has no name any more
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CRGAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written to"):
        join_pixels([a, b], in_memory=0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"parts": {"a": TOPS}}, "joins two data sets or more. Type for example dataset@dataset"),
        ({"classes": 3}, "classes=3: each part has its own"),
        ({"resolution": 64}, "parts.garments.resolution=32, but dataset.resolution=64: joined"),
        (
            {"parts": {"a": TOPS, "b": {**GARMENTS, "classes": 0}}},
            "dataset.parts.b has no labels, .* Type dataset.parts.b.classes=N",
        ),
        (
            {"parts": {"a": TOPS, "b": {"_target_": "crgan_cli.gan.Hinge"}}},
            "dataset.parts.b._target_ must be a data set, not Hinge",
        ),
        ({"parts": {"a": TOPS, "b": {"_target_": "os.system"}}}, "no class that crgan may build"),
    ],
)
def test_parts_that_cannot_be_joined_are_refused(changed: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        joint(**changed)


# --- typed, stored and resumed

TYPED = [
    "dataset=joint",
    "dataset@dataset.parts.first=celeba_attributes",
    "dataset@dataset.parts.second=folder",
    "dataset.parts.second.classes=8",
    "dataset.parts.second.resolution=128",
]


def test_parts_are_typed_and_stored(tmp_path: Path):
    config = compose([*TYPED, f"dataset.parts.second.root={tmp_path}", f"data_root={tmp_path}"])
    # a part does not choose the metrics
    assert to_plain(config)["metrics"] == to_plain(compose(["dataset=demo_joint"]))["metrics"]
    stored = from_text(to_text(config))
    assert to_plain(stored) == to_plain(config)
    data = build_dataset(stored)
    assert isinstance(data, Joint)
    assert list(data.parts) == ["first", "second"]


def test_the_demo_has_two_parts():
    data = build_dataset(compose(["dataset=demo_joint"]))
    assert isinstance(data, Joint)
    assert list(data.parts) == ["garments", "tops"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (TYPED, "dataset.parts.second.root has no value yet. Type dataset.parts.second.root=PATH"),
        ([*TYPED, "dataset.parts.second.rot=x"], "Did you mean 'dataset.parts.second.root'"),
        (
            [*TYPED, "dataset.parts.second.root=x", "dataset.parts.second.holdout=2"],
            "dataset.parts.second.holdout must be a number above 0 and up to 1, not 2",
        ),
        (["dataset=joint", "dataset@dataset.parts.fifth=folder"], "Parts: .*dataset.parts.first"),
        (["dataset@dataset.parts.first=folder"], "Only dataset=joint has parts"),
        (["dataset=joint", "dataset@dataset.parts.first=foldr"], "Did you mean 'dataset=folder'"),
        (["dataset=demo_joint", "dataset.parts.tops=3"], "tops must be a group of settings with"),
        (
            ["dataset=demo_joint", "dataset.parts.tops._target_=os.system"],
            "There is no class 'os.system' that crgan may build",
        ),
        (["loss@dataset.parts.first=hinge"], "a group of crgan cannot be moved"),
    ],
)
def test_a_mistake_in_a_part_is_answered(overrides: list[str], said: str):
    with pytest.raises(UserError, match=said):
        compose(overrides)


def test_paths_of_parts_are_known_made_absolute_and_may_change(tmp_path: Path):
    roots = {"first": f"{tmp_path}/a", "second": f"{tmp_path}/b"}
    for path in roots.values():
        Path(path).mkdir()
    here = f"dataset.parts.second.root={roots['second']}"
    config = compose([*TYPED, here, f"data_root={roots['first']}"])
    assert set(path_keys(config)) >= {f"dataset.parts.{name}.root" for name in roots}
    other = compose([*TYPED, "dataset.parts.second.root=b", "data_root=a"])
    assert not difference(to_plain(config), to_plain(other))
    make_paths_absolute(other)
    assert other.dataset.parts.second.root == str(Path("b").absolute())
    # what a stranger's configuration names must exist; what is typed is taken, and moves with it
    text = to_text(other)
    with pytest.raises(UserError, match=r"run.yaml names dataset.parts.first.root"):
        from_text(text, "run.yaml")
    typed = Typed([here, f"data_root={roots['first']}"], ["data_root"], "a test")
    moved = from_text(text, "run.yaml", typed=typed)
    assert {name: part.root for name, part in moved.dataset.parts.items()} == roots

"""The starter recipe runs as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import tilth
from support.strange_folders import blobs, colour_mask, mask, noise, pairs, picture, raster, reflectance
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.errors import DataError, OutputExistsError
from tilth.imagery.read import read_label
from tilth.recipes.config import expand
from tilth.recipes.plan import prepare
from tilth.recipes.run import load_recipe


def do(recipe: Path, out: Path, verbs: tuple[str, ...]) -> None:
    """Do the stages of some verbs."""
    for task in prepare(expand(load_recipe(str(recipe)), out, {}), out):
        if task.verb.name in verbs:
            task.verb.run(task.options)


def verbs_of(recipe: Path) -> list[str]:
    return [stage["verb"] for stage in yaml.safe_load(recipe.read_text())["stages"]]


def ids(root: Path) -> None:
    pairs(root, 6)


def listed_splits(root: Path) -> None:
    pairs(root, 6)
    (root / "splits").mkdir()
    (root / "splits" / "train.txt").write_text("i0\ni1\ni2\ni3\n")
    (root / "splits" / "test.txt").write_text("i4\ni5\n")


def codes(root: Path) -> None:
    pairs(root, 5, values=(10, 40, 80))
    (root / "classes.json").write_text('{"0": "no data", "10": "trees", "40": "crops", "80": "water"}')


def zero_and_255(root: Path) -> None:
    pairs(root, 5, values=(0, 255))


def bilevel(root: Path) -> None:
    pairs(root, 5)
    for index in range(5):
        Image.fromarray(blobs(f"b{index}", [0, 1]) > 0).save(root / "masks" / f"i{index}.png")


def colours(root: Path) -> None:
    for index in range(5):
        picture(root / "img" / f"{index}.jpg")
        colour_mask(root / "ann" / f"{index}.png", [(255, 0, 0), (0, 255, 0), (0, 0, 255)])


def split_folders(root: Path) -> None:
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        pairs(root / split, count)


def endings(root: Path) -> None:
    for index in range(5):
        picture(root / "a" / f"{index}.png")
        mask(root / "b" / f"{index}_label.png", [0, 1])


def scene_with_label(root: Path) -> None:
    raster(root / "north_20200101.tif", reflectance("n", 12, 300), pixel=10.0)
    raster(root / "north_label.tif", blobs("n", [0, 1, 2], 304)[None, :300, :300].astype("uint8"), pixel=10.0)
    raster(root / "other.tif", noise("o", 3, 300, 300).astype("uint8"), east=800_000.0)


def pool(root: Path) -> None:
    for index in range(4):
        picture(root / "deep" / "er" / f"{index}.jpg")
        picture(root / "flat" / f"{index}.jpg")


def scenes(root: Path) -> None:
    raster(root / "a.tif", noise("a", 3, 620, 620).astype("uint8"))


def series(root: Path) -> None:
    for place in ("aa", "bb"):
        for month in ("01", "04"):
            raster(root / "s2" / f"{place}_{month}.tif", reflectance(place + month, 6), east=None)
        raster(root / "label" / f"{place}.tif", blobs(place, [0, 1])[None].astype("uint8"), east=None)


def change(root: Path) -> None:
    for index in range(3):
        picture(root / "A" / f"{index}.png")
        picture(root / "B" / f"{index}.png")
        mask(root / "label" / f"{index}.png", [0, 1])


LABELLED = [ids, listed_splits, codes, zero_and_255, bilevel, colours, split_folders, endings, scene_with_label]
ALL = [*LABELLED, pool, scenes, series, change]


@pytest.mark.parametrize("plant", ALL, ids=lambda plant: plant.__name__)
def test_a_starter_is_a_recipe_that_builds_and_checks(tmp_path: Path, plant: Callable[[Path], None]):
    root, out = tmp_path / "odd name's", tmp_path / "starter"
    root.mkdir()
    plant(root)
    result = tilth.inspect(folder=root, out=out)
    assert next(iter(result.outputs)) == "recipe"
    assert tilth.run(recipe=str(out / "recipe.yaml"), out=tmp_path / "run", dry_run=True).values["to_do"]
    do(out / "recipe.yaml", tmp_path / "run", ("catalog build", "catalog check", "catalog split"))
    catalogs = [Catalog.open(path) for path in sorted((tmp_path / "run").glob("clean*.parquet"))]
    assert sum(map(len, catalogs)) > 0
    trained = plant in LABELLED
    assert ("finetune" in verbs_of(out / "recipe.yaml")) == trained
    assert all(bool(len(catalog.labelled())) == trained for catalog in catalogs)


@pytest.mark.parametrize(
    ("plant", "names", "meant"),
    [
        (codes, ("trees", "crops", "water"), {10: 0, 40: 1, 80: 2}),
        (zero_and_255, ("class 0", "class 255"), {0: 0, 255: 1}),
        (colours, ("#0000FF", "#00FF00", "#FF0000"), None),
    ],
)
def test_codes_and_colours_become_class_ids(
    tmp_path: Path, plant: Callable[[Path], None], names: tuple[str, ...], meant: dict[int, int] | None
):
    root = tmp_path / "set"
    plant(root)
    tilth.inspect(folder=root, out=tmp_path / "starter")
    do(tmp_path / "starter" / "recipe.yaml", tmp_path / "run", ("catalog build",))
    catalog = Catalog.open(tmp_path / "run" / "tiles.parquet")
    assert catalog.scheme().names == names
    for tile in catalog.labelled().tiles():
        assert tile.label is not None
        found = read_label(tile.label)
        folder = "masks" if meant else "ann"
        stored = np.asarray(Image.open(root / folder / f"{Path(tile.image).stem}.png"))
        ids_of = list(meant.values()) if meant else []
        expected = np.select([stored == value for value in meant], ids_of, 99) if meant else 2 - stored.argmax(axis=2)
        assert (found == expected).all()


def test_the_whole_starter_trains_and_scores(tmp_path: Path):
    root = tmp_path / "set"
    listed_splits(root)
    assert main(["inspect", str(root), "--out", str(tmp_path / "starter"), "--facts", str(tmp_path / "found.json")]) == 0
    done = tilth.run(recipe=str(tmp_path / "starter" / "recipe.yaml"), out=tmp_path / "run", values={"steps": 1})
    assert done.values["done"] == ["build", "check", "show", "train", "score"]
    assert (tmp_path / "run" / "scores" / "metrics.json").is_file()
    assert (tmp_path / "run" / "contact-sheet.png").is_file()


def test_scenes_that_are_labelled_are_mapped_in_the_end(tmp_path: Path):
    scene_with_label(tmp_path / "set")
    tilth.inspect(folder=tmp_path / "set", out=tmp_path / "starter")
    tree = yaml.safe_load((tmp_path / "starter" / "recipe.yaml").read_text())
    assert tree["stages"][-1]["options"]["scenes"] == ["${data}/north_20200101.tif"]
    assert tree["stages"][0]["options"]["inputs"] == ["${data}/north_20200101.tif"]
    assert tree["stages"][0]["options"]["labels"] == "${data}/north_label.tif"


def test_images_without_labels_are_mapped_too(tmp_path: Path):
    pairs(tmp_path / "set", 5)
    for index in range(2):
        picture(tmp_path / "set" / "more" / f"m{index}.jpg")
    tilth.inspect(folder=tmp_path / "set", out=tmp_path / "starter")
    tree = yaml.safe_load((tmp_path / "starter" / "recipe.yaml").read_text())
    assert tree["stages"][-1]["verb"] == "predict"
    assert tree["stages"][-1]["options"]["scenes"] == ["${data}/more/m0.jpg", "${data}/more/m1.jpg"]


def test_a_recipe_that_is_there_is_not_replaced(tmp_path: Path):
    pairs(tmp_path / "set")
    tilth.inspect(folder=tmp_path / "set", out=tmp_path / "starter")
    kept = (tmp_path / "starter" / "recipe.yaml").read_bytes()
    with pytest.raises(OutputExistsError, match=r"recipe\.yaml: is there already and may have been worked on"):
        tilth.inspect(folder=tmp_path / "set", out=tmp_path / "starter")
    assert (tmp_path / "starter" / "recipe.yaml").read_bytes() == kept


def table(root: Path) -> None:
    (root / "a.csv").write_text("x\n")


def large_whole_numbers(root: Path) -> None:
    raster(root / "a.tif", noise("u", 4, 64, 64).astype("uint32"))


def not_a_number(root: Path) -> None:
    raster(root / "a.tif", np.full((4, 64, 64), np.nan, dtype="float32"))


def damaged(root: Path) -> None:
    (root / "a.tif").write_bytes(b"II*")


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (table, "1 table without pixels: a.csv"),
        (large_whole_numbers, "a.tif is stored as uint32; convert it to uint8, uint16, int16, float32"),
        (not_a_number, "no valid pixel in the images of a.tif"),
        (damaged, "no imagery that can be read: a.tif: cannot be read"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_no_starter_where_there_is_nothing_to_start_with(tmp_path: Path, plant: Callable[[Path], None], reason: str):
    (tmp_path / "set").mkdir()
    plant(tmp_path / "set")
    with pytest.raises(DataError, match=f"set: no starter recipe: {reason}"):
        tilth.inspect(folder=tmp_path / "set", out=tmp_path / "starter")
    assert not (tmp_path / "starter").exists()

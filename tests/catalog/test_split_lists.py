"""Split lists of S5 and its kin: read into a catalog, written from one; what they cannot say is one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tilth
from tilth.catalog.split_lists import write_lists
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.errors import DataError, UsageError
from tilth.imagery.read import read_label, read_pixels
from tilth.imagery.write import write_raster

SCHEME = {"name": "s", "classes": [{"name": name, "colour": [n, n, n]} for n, name in enumerate(["background", "ship", "plane"])]}


def picture(file: Path, seed: int, kinds: int | None = None) -> np.ndarray:
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (40, 50) if kinds else (40, 50, 3)
    data = np.random.default_rng(seed).integers(0, kinds or 255, shape, dtype=np.uint8)
    Image.fromarray(data).save(file)
    return data


@pytest.fixture
def crops(tmp_path) -> Path:
    """Tiles in the layout of S5, with its lists in another folder, and a pool whose lines name masks that do not exist."""
    root = tmp_path / "data"
    (tmp_path / "splits").mkdir()
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for seed, (split, name) in enumerate([("train", "P0000_0000_crop_0"), ("train", "P0000_0000_crop_1"), ("val", "P0003_0001_crop_0")]):
        image, label = (f"labeled/iSAID/{split}/{kind}/{name}.png" for kind in ("images", "masks"))
        picture(root / image, seed)
        picture(root / label, seed, 3)
        lines[split].append(f"{image} {label}")
    for name, listed in lines.items():
        (tmp_path / "splits" / f"{name}.txt").write_text("\n".join(listed) + "\n")
    for seed in (7, 8):
        picture(root / f"unlabeled/RS4P-1M/images/{seed}.png", seed)
    pool = "unlabeled/RS4P-1M/images/7.png unlabeled/RS4P-1M/masks/7.png 0.3\n\nunlabeled/RS4P-1M/images/8.png\n"
    (tmp_path / "splits" / "pool.txt").write_text(pool)
    (tmp_path / "scheme.json").write_text(json.dumps(SCHEME))
    return tmp_path


def take(crops: Path, name: str, **options: object) -> Catalog:
    out = crops / f"{name}.parquet"
    tilth.catalog_import(table=crops / "splits" / f"{name}.txt", root=str(crops / "data"), sensor="rgb", out=out, **options)
    return Catalog.open(out)


def test_lists_become_a_catalog(crops):
    catalog = take(crops, "train", scheme=str(crops / "scheme.json"), split="train")
    assert [(tile.tile_id, tile.window, tile.label_kind) for tile in catalog.tiles()] == [
        (f"train/labeled/iSAID/train/images/P0000_0000_crop_{number}", (0, 0, 50, 40), "clean") for number in (0, 1)
    ]
    assert catalog.counts("split") == {"train": 2}
    for seed, tile in enumerate(catalog.tiles()):
        np.testing.assert_array_equal(read_label(tile.label), np.random.default_rng(seed).integers(0, 3, (40, 50), dtype=np.uint8))


def test_further_fields_of_a_pool_mean_nothing(crops):
    catalog = take(crops, "pool", labels=False)
    assert catalog.counts("label_kind") == {"none": 2}
    assert [Path(image).name for image in catalog.column("image")] == ["7.png", "8.png"]


def test_lists_there_and_back_are_the_same(crops):
    catalog = Catalog.concat(
        [take(crops, name, scheme=str(crops / "scheme.json"), split=name) for name in ("train", "val")]
        + [take(crops, "pool", labels=False)]
    )
    catalog.save(crops / "all.parquet")
    done = tilth.catalog_export(catalog=crops / "all.parquet", out=crops / "lists", root=crops / "data")
    assert set(done.outputs) == {"train", "val", "unlabelled"}
    for name in ("train", "val"):
        assert (crops / "lists" / f"{name}.txt").read_text() == (crops / "splits" / f"{name}.txt").read_text()
    assert (crops / "lists" / "unlabelled.txt").read_text() == "".join(f"unlabeled/RS4P-1M/images/{seed}.png\n" for seed in (7, 8))
    # Without a root paths start from what all files share.
    done = tilth.catalog_export(catalog=crops / "val.parquet", out=crops / "lists")
    assert done.values["root"] == str(crops / "data" / "labeled" / "iSAID" / "val")
    assert (crops / "lists" / "val.txt").read_text() == "images/P0003_0001_crop_0.png masks/P0003_0001_crop_0.png\n"


@pytest.fixture
def windows(tmp_path) -> Path:
    """A catalog of four windows of a scene of 50 x 40 pixels, and of one image that is whole."""
    image, label = picture(tmp_path / "scenes" / "images" / "a.png", 1), picture(tmp_path / "scenes" / "masks" / "a.png", 1, 3)
    assert image.shape[:2] == label.shape
    (tmp_path / "scenes" / "classes.json").write_text(json.dumps(SCHEME))
    picture(tmp_path / "pool" / "b.png", 2)
    words = {"sensor": "rgb", "window_px": 32}
    tilth.datasets_prepare(name="image-mask", folder=tmp_path / "scenes", out=tmp_path / "prepared", **words)
    tilth.catalog_build(inputs=[str(tmp_path / "pool")], sensor="rgb", out=tmp_path / "pool.parquet")
    both = [Catalog.open(tmp_path / name) for name in ("prepared/catalog.parquet", "pool.parquet")]
    Catalog.concat(both).save(tmp_path / "both.parquet")
    return tmp_path


def test_windows_are_cut_on_request(windows, capsys):
    assert main(["catalog", "export", str(windows / "both.parquet"), "--out", str(windows / "lists"), "--cut"]) == 0
    assert "5 tiles in 2 lists; paths start from" in capsys.readouterr().out
    listed = [line.split() for line in (windows / "lists" / "labelled.txt").read_text().splitlines()]
    assert listed[1] == ["lists/images/scenes/a_r0_c18.png", "lists/masks/scenes/a_r0_c18.png"]
    assert (windows / "lists" / "unlabelled.txt").read_text() == "pool/b.png\n"
    catalog = Catalog.open(windows / "both.parquet")
    for tile, (image, label) in zip(catalog.labelled().tiles(), listed, strict=True):
        np.testing.assert_array_equal(read_pixels(str(windows / image)).data, read_pixels(tile.image, tile.window).data)
        np.testing.assert_array_equal(read_label(str(windows / label)), read_label(tile.label, tile.window))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def renamed(windows: Path, names: list[str]) -> Catalog:
    """The four windows under other ids."""
    catalog = Catalog.open(windows / "prepared" / "catalog.parquet")
    return Catalog(catalog.table.set_column(0, "tile_id", [names]), catalog.sensors, catalog.schemes)


def test_cut_tiles_get_names_that_stay_inside_and_fit_into_lists(windows):
    """Ids are anybody's: with blanks, or paths that lead elsewhere."""
    before = contents(windows)
    catalog = renamed(windows, ["../../x", str(windows / "pool" / "b"), "a scene", "a_scene"])
    assert catalog.table.column_names[0] == "tile_id"
    lists = write_lists(catalog, windows / "lists" / "deep", cut=True)
    assert all((windows / "lists" / "deep") in file.resolve().parents for file in lists.cut)
    assert {name: content for name, content in contents(windows).items() if not name.startswith("lists")} == before
    assert len(set(lists.cut)) == 8
    lines = [line.split() for line in lists.files["labelled"].read_text().splitlines()]
    for tile, (image, label) in zip(catalog.tiles(), lines, strict=True):
        np.testing.assert_array_equal(read_pixels(str(lists.root / image)).data, read_pixels(tile.image, tile.window).data)
        np.testing.assert_array_equal(read_label(str(lists.root / label)), read_label(tile.label, tile.window))


def test_nothing_is_cut_over_an_original(windows):
    before = contents(windows)
    with pytest.raises(UsageError, match=r"images/a.png: is an original of the catalog.*choose another --out"):
        write_lists(renamed(windows, ["a", "b", "c", "d"]), windows / "scenes", cut=True)
    assert contents(windows) == before


def test_wrong_root_is_known_before_anything_is_cut(windows):
    before = contents(windows)
    with pytest.raises(DataError, match="lies outside of"):
        write_lists(Catalog.open(windows / "both.parquet"), windows / "lists", root=windows / "scenes", cut=True)
    assert contents(windows) == before


def test_windows_are_refused_otherwise(windows, capsys):
    assert main(["catalog", "export", str(windows / "both.parquet"), "--out", str(windows / "lists")]) == 2
    assert "scenes/a_r0_c0: is a part of" in (err := capsys.readouterr().err)
    assert "use --cut" in err
    assert not (windows / "lists").exists()


def test_what_a_list_cannot_say_is_refused(crops, tmp_path, capsys):
    take(crops, "pool", labels=False)
    words = ["catalog", "export", str(crops / "pool.parquet"), "--out", str(tmp_path / "lists")]
    assert main([*words, "--root", str(crops / "splits")]) == 1
    assert "lies outside of" in capsys.readouterr().err
    picture(tmp_path / "my pool" / "a.png", 1)
    tilth.catalog_build(inputs=[str(tmp_path / "my pool")], sensor="rgb", out=tmp_path / "blank.parquet")
    words[2] = str(tmp_path / "blank.parquet")
    assert main([*words, "--root", str(tmp_path)]) == 1
    assert "has a blank in its path" in capsys.readouterr().err
    write_raster(tmp_path / "deep" / "a.tif", np.zeros((3, 8, 8), np.uint16), crs=None, transform=None)
    sensor = {"name": "deep", "dtype": "uint16", "unit": "x", "rgb": ["a", "b", "c"]}
    sensor["bands"] = [{"name": name, "scale": 1, "mean": 0, "std": 1, "low": 0, "high": 9} for name in "abc"]
    (tmp_path / "deep.yaml").write_text(json.dumps(sensor))
    words[2] = str(tmp_path / "deep.parquet")
    tilth.catalog_build(inputs=[str(tmp_path / "deep")], sensor=str(tmp_path / "deep.yaml"), window_px=4, out=tmp_path / "deep.parquet")
    assert main([*words, "--cut"]) == 1
    assert "3 bands of uint16; a PNG file takes 1 or 3 bands of uint8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        (b"images/1.png masks/1.png\n", "labels need a class scheme; give scheme=FILE, or labels=false"),
        (b"\n\n", "holds no row"),
        (b"\xff\xfe\x00", "no text; expected a line for each image"),
        (b"no/such.png\n", "no/such.png: no such file"),
    ],
)
def test_wrong_list_is_one_line(text, fragment, crops, capsys):
    (crops / "splits" / "bad.txt").write_bytes(text)
    words = ["catalog", "import", str(crops / "splits" / "bad.txt"), "--sensor", "rgb", "--out", str(crops / "bad.parquet")]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert fragment in err
    assert len([line for line in err.splitlines() if line.startswith("tilth: error")]) == 1
    assert not (crops / "bad.parquet").exists()

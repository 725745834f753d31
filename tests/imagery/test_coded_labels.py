"""Coded labels become class ids: decoding against a loop over pixels, files on the source's grid, and what is refused."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tilth.errors import ConfigError, DataError, MissingFileError, TilthError, UsageError
from tilth.imagery import label_codes
from tilth.imagery.label_codes import LabelCodes, decode, write_coded_label
from tilth.imagery.palette import has_palette
from tilth.imagery.read import read_info, read_label
from tilth.imagery.virtual import write_stack
from tilth.imagery.write import write_raster

COLOURS = {"#FF0000": 0, "00ff00": 1, "0000FF": 2, "9B9B9B": 255}


def by_loop(stored: np.ndarray, valid: np.ndarray, table: dict) -> np.ndarray:
    """One pixel after the other; unlisted becomes 255."""
    label = np.full(valid.shape, 255, np.uint8)
    for row, column in np.ndindex(valid.shape):
        if valid[row, column]:
            pixel = tuple(stored[:, row, column].tolist())
            label[row, column] = table.get(pixel if len(pixel) > 1 else pixel[0], 255)
    return label


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "uint16", "int16", "int32", "float32", "uint32"]),
    table=st.dictionaries(st.integers(0, 200), st.integers(0, 255), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_values_of_any_type_equal_a_loop(dtype, table, seed):
    draw = np.random.default_rng(seed)
    stored = draw.choice([*table, 201, 7], (1, 9, 7)).astype(dtype)
    valid = draw.random((9, 7)) > 0.2
    label = decode(stored, valid, LabelCodes(values=table, unlisted="ignore"), "x")
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, by_loop(stored, valid, table))


def test_negative_values_and_offsets_are_values():
    stored = np.array([[[-9999, 1, 2, 7]]], np.int16)
    codes = LabelCodes(values={-9999: 255} | {value: value - 1 for value in range(1, 8)})
    assert decode(stored, np.ones((1, 4), bool), codes, "x").tolist() == [[255, 0, 1, 6]]


@pytest.mark.parametrize("bands", [3, 4])
def test_colours_equal_a_loop(bands):
    draw = np.random.default_rng(1)
    table = {tuple(bytes.fromhex(name.strip("#"))): target for name, target in COLOURS.items()}
    picks = draw.integers(0, 5, (11, 13))
    stored = np.array([*table, (1, 2, 3)], np.uint8)[picks].transpose(2, 0, 1)
    valid = draw.random((11, 13)) > 0.1
    seen = valid
    if bands == 4:
        opacity = draw.choice([0, 1, 255], (11, 13)).astype(np.uint8)
        seen = valid & (opacity > 0)
        stored = np.concatenate([stored, opacity[None]])
    label = decode(stored, valid, LabelCodes(colours=COLOURS, unlisted="ignore"), "x")
    np.testing.assert_array_equal(label, by_loop(stored[:3], seen, table))


def test_grey_counts_as_equal_bands_either_way():
    grey = np.array([[[0, 40, 80]]], np.uint8)
    everywhere = np.ones((1, 3), bool)
    values = LabelCodes(values={0: 0, 40: 1, 80: 2})
    assert decode(np.repeat(grey, 3, axis=0), everywhere, values, "x").tolist() == [[0, 1, 2]]
    colours = LabelCodes(colours={"000000": 0, "282828": 1, "505050": 2})
    assert decode(grey, everywhere, colours, "x").tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("stored", "codes", "fragments"),
    [
        (np.array([[[1, 17, 17]]], np.uint8), LabelCodes(values={1: 0}), ("a.png: value 17 in 2 pixels, expected 1", "unlisted: ignore")),
        (np.array([[[1, 2.5, 1]]], np.float32), LabelCodes(values={1: 0}), ("value 2.5 in 1 pixels",)),
        (np.full((3, 1, 3), 7, np.uint8), LabelCodes(colours=COLOURS), ("colour #070707 in 3 pixels", "expected #FF0000, #00FF00")),
        (np.arange(9, dtype=np.uint8).reshape(3, 1, 3), LabelCodes(values={0: 0}), ("bands of this label differ", "'colours'")),
        (np.zeros((3, 1, 3), np.uint16), LabelCodes(colours=COLOURS), ("8 bits", "found uint16")),
        (np.zeros((2, 1, 3), np.uint8), LabelCodes(values={0: 0}), ("1 band, or 3 (or 4)", "(2, 1, 3)")),
    ],
)
def test_unlisted_is_refused_with_value_and_count(stored, codes, fragments):
    with pytest.raises(DataError) as error:
        decode(stored, np.ones((1, 3), bool), codes, "a.png")
    for fragment in fragments:
        assert fragment in str(error.value)


def test_unlisted_where_nothing_is_valid_is_not_refused():
    assert decode(np.array([[[9]]], np.uint8), np.zeros((1, 1), bool), LabelCodes(values={1: 0}), "x").tolist() == [[255]]


@pytest.mark.parametrize(
    ("given_codes", "fragment"),
    [
        ({}, "either values or colours"),
        ({"values": {0: 0}, "colours": {"000000": 0}}, "either values or colours"),
        ({"values": {0: 256}}, "got 256"),
        ({"values": {0: -1}}, "got -1"),
        ({"colours": {"red": 0}}, "'red': expected six hexadecimal digits"),
        ({"colours": {0: 0}}, "in quotes"),
        ({"colours": {"#ff0000": 0, "FF0000": 1}}, "listed twice"),
        ({"value": {0: 0}}, "did you mean 'values'?"),
    ],
)
def test_wrong_codes_are_refused(given_codes, fragment):
    with pytest.raises(ConfigError, match=fragment.replace("?", r"\?")):
        LabelCodes.parse(given_codes)


def coloured(path: Path, height: int = 70, width: int = 50) -> np.ndarray:
    """Write a colour mask; return the ids it stands for."""
    ids = np.random.default_rng(3).integers(0, 4, (height, width))
    table = np.array([tuple(bytes.fromhex(name.strip("#"))) for name in COLOURS], np.uint8)
    if path.suffix == ".png":
        Image.fromarray(table[ids]).save(path)
    else:
        write_raster(path, table[ids].transpose(2, 0, 1), crs="EPSG:32632", transform=(0.05, 0, 500_000, 0, -0.05, 5_000_000))
    return np.where(ids == 3, 255, ids).astype(np.uint8)


@pytest.mark.parametrize(("source", "target"), [("a.png", "b.png"), ("a.tif", "b.tif"), ("a.tif", "b.png"), ("a.png", "b.tif")])
def test_written_label_is_exact_and_keeps_the_grid(tmp_path, source, target, monkeypatch):
    # Strips of 256 rows, so that a label of 600 rows takes three of them.
    monkeypatch.setattr(label_codes, "_STRIP_PIXELS", 1)
    expected = coloured(tmp_path / source, 600)
    before = (tmp_path / source).read_bytes()
    assert write_coded_label(str(tmp_path / source), tmp_path / "m" / target, LabelCodes(colours=COLOURS)) == tmp_path / "m" / target
    np.testing.assert_array_equal(read_label(str(tmp_path / "m" / target)), expected)
    assert (tmp_path / source).read_bytes() == before
    assert [file.name for file in (tmp_path / "m").iterdir()] == [target]
    if target.endswith(".tif"):
        one, other = read_info(str(tmp_path / source)), read_info(str(tmp_path / "m" / target))
        assert (other.crs, other.transform, other.nodata) == (one.crs, one.transform, 255)
        with rasterio.open(tmp_path / "m" / target) as dataset:
            assert dataset.profile["compress"] == "deflate"


def test_palette_image_is_read_by_index_and_by_colour(tmp_path):
    ids = np.array([[0, 1], [2, 2]], np.uint8)
    image = Image.fromarray(ids, mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "p.png")
    by_index = write_coded_label(str(tmp_path / "p.png"), tmp_path / "i.png", LabelCodes(values={0: 2, 1: 1, 2: 0}))
    assert read_label(str(by_index)).tolist() == [[2, 1], [0, 0]]
    by_colour = write_coded_label(str(tmp_path / "p.png"), tmp_path / "c.png", LabelCodes(colours=COLOURS))
    assert read_label(str(by_colour)).tolist() == ids.tolist()


def test_nodata_of_the_source_is_no_label(tmp_path):
    write_raster(tmp_path / "a.tif", np.array([[0, 1]], np.int16), crs=None, transform=None, nodata=0)
    made = write_coded_label(str(tmp_path / "a.tif"), tmp_path / "b.tif", LabelCodes(values={1: 0}))
    assert read_label(str(made)).tolist() == [[255, 0]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_target_is_kept_only_if_whole_and_of_this_source_and_codes(tmp_path, suffix):
    source, target = tmp_path / "a.png", tmp_path / f"b{suffix}"
    coloured(source)
    codes = LabelCodes(colours=COLOURS)

    def written(codes: LabelCodes = codes, **options: bool) -> bool:
        os.utime(target, ns=(1, 1))
        write_coded_label(str(source), target, codes, **options)
        return target.stat().st_mtime_ns != 1

    write_coded_label(str(source), target, codes)
    first = target.read_bytes()
    assert not written()
    assert written(overwrite=True)
    assert target.read_bytes() == first
    target.write_bytes(first[: len(first) * 2 // 3])
    assert written()
    assert target.read_bytes() == first
    assert written(LabelCodes(colours=COLOURS | {"#FF0000": 1}))
    Image.fromarray(np.full((70, 50, 3), (255, 0, 0), np.uint8)).save(source)
    assert written()
    assert not written()
    assert (read_label(str(target)) == 0).all()


def test_refused_label_counts_the_whole_file_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(label_codes, "_STRIP_PIXELS", 1)
    Image.fromarray(np.full((600, 10), 9, np.uint8)).save(tmp_path / "a.png")
    for target in ("b.png", "b.tif"):
        with pytest.raises(DataError, match="value 9 in 6,000 pixels, expected 1;"):
            write_coded_label(str(tmp_path / "a.png"), tmp_path / "deep" / target, LabelCodes(values={1: 0}))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_photograph_taken_for_a_mask_is_given_up_early(tmp_path):
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(tmp_path / "a.jpg", quality=95)
    with pytest.raises(DataError, match=r"and [\d,]+ more colours, expected .*JPEG alters colours"):
        write_coded_label(str(tmp_path / "a.jpg"), tmp_path / "b.png", LabelCodes(colours=COLOURS))


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    coloured(tmp_path / "a.png")

    def full(image, place, **_):
        Path(place).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(TilthError, match=r"b\.png: cannot be written: No space left on device"):
        write_coded_label(str(tmp_path / "a.png"), tmp_path / "deep" / "b.png", LabelCodes(colours=COLOURS))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_colours_slightly_off_are_read_within_the_tolerance():
    stored = np.array([[[252, 3, 8]], [[3, 255, 0]], [[0, 3, 250]]], np.uint8)
    # Red and green off by 3, blue by 8.
    everywhere = np.ones((1, 3), bool)
    near = LabelCodes(colours={"FF0000": 0, "00FF00": 1, "0000FF": 255}, tolerance=8)
    assert decode(stored, everywhere, near, "x").tolist() == [[0, 1, 255]]
    with pytest.raises(DataError, match="colour #0800FA in 1 pixels"):
        decode(stored, everywhere, LabelCodes(colours={"FF0000": 0, "00FF00": 1, "0000FF": 255}, tolerance=7), "x")
    with pytest.raises(ConfigError, match="#FF0000 and #F00000 differ by 15 only"):
        LabelCodes.parse({"colours": {"FF0000": 0, "F00000": 1}, "tolerance": 8})
    with pytest.raises(ConfigError, match="tolerance is for colours"):
        LabelCodes.parse({"values": {0: 0}, "tolerance": 1})


def test_wrong_targets_are_refused(tmp_path):
    coloured(tmp_path / "a.png")
    codes = LabelCodes(colours=COLOURS)
    with pytest.raises(UsageError, match=r"\.tif or \.png"):
        write_coded_label(str(tmp_path / "a.png"), tmp_path / "b.jpg", codes)
    with pytest.raises(UsageError, match="is the label itself"):
        write_coded_label(str(tmp_path / "a.png"), tmp_path / "a.png", codes, overwrite=True)
    with pytest.raises(MissingFileError):
        write_coded_label(str(tmp_path / "none.png"), tmp_path / "b.png", codes)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_of_a_palette_geotiff_are_those_of_its_table(tmp_path, dtype):
    ids = np.array([[0, 1, 7], [2, 2, 9]], dtype)
    with rasterio.open(tmp_path / "p.tif", "w", driver="GTiff", width=3, height=2, count=1, dtype=dtype, nodata=9) as file:
        file.write(ids, 1)
        file.write_colormap(1, {0: (255, 0, 0, 255), 1: (0, 255, 0, 255), 2: (0, 0, 255, 255), 7: (0, 255, 0, 255)})
    assert has_palette(str(tmp_path / "p.tif"))
    codes = LabelCodes(colours={"FF0000": 0, "00FF00": 1, "0000FF": 2})
    by_colour = write_coded_label(str(tmp_path / "p.tif"), tmp_path / "c.tif", codes)
    assert read_label(str(by_colour)).tolist() == [[0, 1, 1], [2, 2, 255]]
    by_value = write_coded_label(str(tmp_path / "p.tif"), tmp_path / "v.tif", LabelCodes(values={0: 2, 1: 1, 2: 0, 7: 7}))
    assert read_label(str(by_value)).tolist() == [[2, 1, 7], [0, 0, 255]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_files_of_others_are_not_replaced(tmp_path, suffix):
    source, target = tmp_path / "a.png", tmp_path / f"own{suffix}"
    coloured(source)
    write_raster(target, np.ones((2, 2), np.uint8), crs=None, transform=None) if suffix == ".tif" else Image.new("L", (2, 2)).save(target)
    before = target.read_bytes()
    with pytest.raises(UsageError, match=rf"own\{suffix}: is in the way .* not made by tilth"):
        write_coded_label(str(source), target, LabelCodes(colours=COLOURS))
    assert target.read_bytes() == before
    target.write_bytes(b"cut short")
    assert read_label(str(write_coded_label(str(source), target, LabelCodes(colours=COLOURS)))).shape == (70, 50)


def test_labels_are_made_anew_when_what_they_are_made_of_changes(tmp_path):
    codes = LabelCodes(values={0: 0, 1: 1, 2: 2})

    def made(name: str) -> np.ndarray:
        # Another thread opens files anew, as another process does.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: read_label(str(write_coded_label(str(tmp_path / name), tmp_path / "made.tif", codes)))).result()

    write_raster(tmp_path / "source.tif", np.zeros((4, 5), np.uint8), crs="EPSG:32631", transform=(1, 0, 0, 0, -1, 0))
    write_stack(tmp_path / "v.vrt", [tmp_path / "source.tif"])
    assert not made("v.vrt").any()
    write_raster(tmp_path / "source.tif", np.full((4, 5), 2, np.uint8), crs="EPSG:32631", transform=(1, 0, 0, 0, -1, 0))
    assert (made("v.vrt") == 2).all()
    with rasterio.open(tmp_path / "source.tif.msk", "w", driver="GTiff", width=5, height=4, count=1, dtype="uint8") as file:
        file.write(np.eye(4, 5, dtype=np.uint8)[None] * 255)
        file.update_tags(INTERNAL_MASK_FLAGS_1="2")
    assert (made("source.tif") == 255).sum() == 16


def test_labels_are_made_anew_when_they_are_moved(tmp_path):
    with rasterio.open(tmp_path / "l.tif", "w", driver="GTiff", width=5, height=4, count=1, dtype="uint8", crs="EPSG:32631") as file:
        file.write(np.zeros((1, 4, 5), np.uint8))

    def corner(x: float) -> float:
        (tmp_path / "l.tfw").write_text(f"1\n0\n0\n-1\n{x + 0.5}\n-0.5\n")
        with ThreadPoolExecutor(1) as pool:
            path = pool.submit(write_coded_label, str(tmp_path / "l.tif"), tmp_path / "made.tif", LabelCodes(values={0: 0})).result()
        return read_info(str(path)).transform[2]

    assert [corner(100), corner(200)] == [100, 200]

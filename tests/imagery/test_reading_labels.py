from __future__ import annotations

import numpy as np
import pytest
import rasterio
from PIL import Image

from tilth.errors import DataError
from tilth.imagery.read import Window, read_label

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def tif(path, data, **profile):
    with rasterio.open(
        path, "w", driver="GTiff", count=data.shape[0], height=data.shape[1], width=data.shape[2], dtype=data.dtype, **profile
    ) as dataset:
        dataset.write(data)
    return str(path)


def test_palette_image_gives_indices(tmp_path):
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(ids, "P")
    image.putpalette([value for index in range(12) for value in (index * 20, 7, 9)])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(str(tmp_path / "a.png")), ids)
    np.testing.assert_array_equal(read_label(str(tmp_path / "a.png"), Window(1, 1, 2, 2)), ids[1:3, 1:3])


def test_bilevel_image_gives_zero_and_one(tmp_path):
    ids = np.array([[0, 1], [1, 1]], dtype=np.uint8)
    Image.fromarray(ids.astype(bool)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(str(tmp_path / "a.png")), ids)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_integers_of_any_type_are_accepted(tmp_path, dtype):
    ids = np.array([[[0, 1, 254], [255, 7, 8]]]).astype(dtype)
    label = read_label(tif(tmp_path / "a.tif", ids))
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, ids[0])


def test_grey_sixteen_bit_image_is_accepted(tmp_path):
    Image.fromarray(np.array([[0, 3]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_label(str(tmp_path / "a.png")).tolist() == [[0, 3]]


@pytest.mark.parametrize(("dtype", "value"), [("int16", -1), ("uint16", 300), ("float32", 2.5)])
def test_value_that_is_no_class_id_is_named_with_its_file(tmp_path, dtype, value):
    data = np.zeros((1, 4, 4), dtype=dtype)
    data[0, 2, 2] = value
    with pytest.raises(DataError, match=rf"a\.tif: label value {value}"):
        read_label(tif(tmp_path / "a.tif", data))


def test_nodata_masked_and_nan_become_ignore(tmp_path):
    assert read_label(tif(tmp_path / "a.tif", np.array([[[0, 1, 2]]], dtype=np.uint8), nodata=0)).tolist() == [[255, 1, 2]]
    assert read_label(tif(tmp_path / "b.tif", np.array([[[-9999, 1, 2]]], dtype=np.int16), nodata=-9999)).tolist() == [[255, 1, 2]]
    assert read_label(tif(tmp_path / "c.tif", np.array([[[np.nan, 1, 2]]], dtype=np.float32))).tolist() == [[255, 1, 2]]


def test_label_with_several_bands_is_refused_with_a_hint(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: .* one band .* found 3 bands; .*convert"):
        read_label(str(tmp_path / "a.png"))

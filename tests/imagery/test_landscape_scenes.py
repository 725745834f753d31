"""Synthetic landscapes on disk."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio

from tilth.classes import ClassScheme
from tilth.errors import ConfigError
from tilth.imagery.landscape import NoiseConfig, ScenesConfig, generate_landscape, landscape_scheme, noisy_labels, observe, write_scenes


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tif"))


def test_scenes_hold_exactly_what_was_generated(tmp_path):
    config = ScenesConfig(seed=2, scenes=2, size=64, sensor="s2_l2a", noise=NoiseConfig(coarse_factor=4))
    images = write_scenes(tmp_path, config)
    assert [path.name for path in images] == ["scene_000.tif", "scene_001.tif"]
    assert files(tmp_path) == [f"{kind}/scene_00{number}.tif" for kind in ("images", "masks", "masks_noisy") for number in (0, 1)]
    landscape = generate_landscape(config.landscape(1))
    with rasterio.open(images[1]) as image, rasterio.open(tmp_path / "masks/scene_001.tif") as mask:
        assert np.array_equal(image.read(), observe(landscape, config.get_sensor()))
        assert np.array_equal(mask.read(1), landscape.label)
        assert image.dtypes[0] == "uint16"
        assert image.descriptions == config.get_sensor().band_names
        assert image.profile["compress"] == "deflate"
        assert image.crs == mask.crs
        assert image.crs.is_projected
        assert image.transform == mask.transform
        assert image.res == (10.0, 10.0)
        assert mask.nodata == 255
    with rasterio.open(tmp_path / "masks_noisy/scene_001.tif") as mask:
        assert np.array_equal(mask.read(1), noisy_labels(landscape, NoiseConfig(coarse_factor=4)))
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_class_file_reads_back_as_the_scheme(tmp_path):
    write_scenes(tmp_path, ScenesConfig(scenes=1, size=32))
    assert ClassScheme.load(tmp_path / "classes.json") == landscape_scheme()


@pytest.mark.parametrize(("sensor", "dtype"), [("rgb", "uint8"), ("s1", "float32"), ("hls", "int16"), ("s1+s2_l2a", "float32")])
def test_every_storage_type_can_be_written(tmp_path, sensor, dtype):
    (image,) = write_scenes(tmp_path, ScenesConfig(scenes=1, size=32, sensor=sensor))
    with rasterio.open(image) as opened:
        assert opened.dtypes[0] == dtype


def test_scenes_never_overlap_and_share_one_crs(tmp_path):
    images = write_scenes(tmp_path, ScenesConfig(scenes=18, size=32))
    boxes, systems = [], set()
    for path in images:
        with rasterio.open(path) as opened:
            boxes.append(opened.bounds)
            systems.add(opened.crs.to_epsg())
    assert len(systems) == 1
    for position, one in enumerate(boxes):
        for other in boxes[:position]:
            assert one.right <= other.left or other.right <= one.left or one.top <= other.bottom or other.top <= one.bottom


def test_a_scene_depends_on_seed_and_index_alone(tmp_path):
    many = write_scenes(tmp_path / "many", ScenesConfig(seed=3, scenes=3, size=48))
    (one,) = write_scenes(tmp_path / "one", ScenesConfig(seed=3, first=2, scenes=1, size=48))
    assert one.name == many[2].name
    assert one.read_bytes() == many[2].read_bytes()


def test_unlabelled_scenes_lie_apart_and_seasons_are_named(tmp_path):
    write_scenes(tmp_path, ScenesConfig(scenes=2, size=32, labelled=1, seasons=("spring", "summer")))
    assert files(tmp_path) == [
        "images/scene_000_spring.tif",
        "images/scene_000_summer.tif",
        "masks/scene_000_spring.tif",
        "masks/scene_000_summer.tif",
        "unlabelled/scene_001_spring.tif",
        "unlabelled/scene_001_summer.tif",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sensor": "s3"}, "unknown sensor"),
        ({"seasons": ["spring", "spring"]}, "differ"),
        ({"season": "spring"}, "did you mean 'seasons'"),
        ({"scenes": 0}, "scenes"),
    ],
)
def test_impossible_requests_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        ScenesConfig.parse(values)


def test_configuration_loads_no_heavy_library():
    code = "import sys, tilth.imagery.landscape.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "torch", "rasterio", "scipy", "geopandas"} & set(done.stdout.split())


def test_public_names_are_functions_whatever_was_imported_before():
    from tilth.imagery import landscape

    assert all(hasattr(landscape, name) for name in landscape.__all__)
    assert all(callable(getattr(landscape, name)) for name in ("observe", "generate_landscape", "noisy_labels", "write_scenes"))
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        _ = landscape.paint

"""The verbs of building and importing, as they are typed: where files lie, that a tree moves, that nothing is left of a failure."""

from __future__ import annotations

import shutil
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely

import tilth
from tilth.cli.main import main
from tilth.imagery.read import read_label, read_pixels

from .conftest import noise, write_scheme

GRID = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


@pytest.fixture
def tree(tmp_path, write_scene) -> Path:
    """A scene of optical bands, radar of 20 m, and polygons."""
    root = tmp_path / "tree"
    write_scene(root / "s2" / "p.tif", noise("p", 12, 20, 24).astype(np.uint16), transform=GRID)
    radar = -noise("r", 2, 10, 12).astype(np.float32)
    write_scene(root / "s1" / "p.tif", radar, transform=(20.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0))
    write_scheme(root)
    shape = shapely.box(500_040, 4_999_850, 500_120, 4_999_960)
    geopandas.GeoDataFrame({"kind": ["FELD"]}, geometry=[shape], crs="EPSG:32631").to_file(root / "land.gpkg")
    return root


def typed(root: Path, *more: str) -> list[str]:
    return [
        *("catalog", "build", str(root / "s2"), "--sensor", "s2_l2a+s1", f"layers.s1={root / 's1'}", "--labels", str(root / "land.gpkg")),
        *("--label-column", "kind", "--window-m", "120", "--out", str(root / "tiles.parquet"), *more),
    ]


def test_everything_at_once_as_typed_and_moved(tree, tmp_path, capsys):
    assert main(typed(tree, "label_values.FELD=field")) == 0
    assert sorted(path.relative_to(tree).as_posix() for path in (tree / "tiles_files").rglob("*") if path.is_file()) == [
        "tiles_files/images/s2/p.2.vrt",
        "tiles_files/images/s2/p.vrt",
        "tiles_files/labels/s2/p.tif",
    ]
    before = [(tile.tile_id, tile.window) for tile in tilth.Catalog.open(tree / "tiles.parquet").tiles()]
    assert before == [(f"s2/p_r{row}_c{column}", (column, row, 12, 12)) for row in (0, 8) for column in (0, 12)]
    first = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert main(typed(tree, "label_values.FELD=field")) == 0
    assert first == {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    shutil.move(tree, tmp_path / "moved")
    tile = tilth.Catalog.open(tmp_path / "moved" / "tiles.parquet").tile(0)
    label = read_label(tile.label, tile.window)
    assert label[4:, 4:].min() == label[4:, 4:].max() == 1
    assert (label[:4] == 255).all()
    pixels = read_pixels(tile.image, tile.window)
    assert pixels.data.shape == (14, 12, 12)
    assert pixels.valid.all()


def test_a_refused_build_leaves_nothing(tree, capsys):
    before = sorted(tree.rglob("*"))
    assert main(typed(tree)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("tilth: error: ")
    assert "'FELD' (1 features)" in error
    assert "did you mean 'field'" in error
    assert sorted(tree.rglob("*")) == before


def test_a_table_is_imported_as_typed(tree, capsys):
    (tree / "list.csv").write_text("file,place\ns2/p.tif,here\n")
    out = tree / "out" / "imported.parquet"
    arguments = ["catalog", "import", str(tree / "list.csv"), "--sensor", "s2_l2a", "columns.image=file", "columns.location_id=place"]
    assert main([*arguments, "--out", str(out)]) == 0
    catalog = tilth.Catalog.open(out)
    assert catalog.column("location_id") == ["here"]
    assert catalog.tile(0).window == (0, 0, 24, 20)
    assert main([*arguments, "columns.lable=x", "--out", str(out)]) == 2
    assert "did you mean 'label'" in capsys.readouterr().err

"""Polygons with a class attribute as labels: read, named in the class scheme, and rasterised on the grid of each image.

Later features lie on top of earlier ones. A pixel belongs to a polygon that holds its centre.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.catalog.index_raster import Blocks, blocks_of, write_index_raster
from tilth.catalog.reprojection import shapes_near
from tilth.errors import DataError, MissingFileError, UnreadableFileError, needs_extra, suggest
from tilth.imagery.grid import map_position, window_transform
from tilth.imagery.made_from import grid_settings, stamp_of
from tilth.imagery.read import RasterInfo, Window

_NEED = "label polygons"
_POLYGON, _COLLECTION, _MULTIPOLYGON = 3, 7, 6
_NAMED_ROWS = 5

_LARGE = 1000
"""Vertices of a shape that is cut to each block before it is rasterised."""

_AROUND = 4
"""Pixels around a block that shapes are cut to, so that no cut lies in it."""

Naming = Callable[[dict[str, int], str], dict[str, int]]
"""Gives the class id of each attribute value, from the number of features by value and what to call the source in messages."""


@dataclass
class Polygons:
    """Shapes of one layer.

    Attributes:
        file: where they come from.
        crs: of the shapes, as geopandas knows it.
        shapes: (N,) polygons and multipolygons, in the order of the layer.
        ids: uint8 (N,) class ids, or 255.
        notes: what was left out or repaired, one line each.
        stamp: hash of the file and of the ids.
    """

    file: str
    crs: Any
    shapes: NDArray[np.object_]
    ids: NDArray[np.uint8]
    notes: tuple[str, ...]
    stamp: str
    _tree: Any = field(default=None, repr=False)

    def near(self, image: RasterInfo) -> tuple[NDArray[np.object_], NDArray[np.uint8], Any]:
        """Return what may touch an image, in its CRS: shapes, their class ids, and the search tree over them.

        Raises:
            DataError: there is no way from one CRS to the other, or a shape lies partly where the CRS of the image has no place.
        """
        import pyproj
        import shapely

        if self._tree is None:
            self._tree = shapely.STRtree(self.shapes)
        crs = pyproj.CRS.from_user_input(self.crs)
        if crs.equals(pyproj.CRS.from_user_input(image.crs), ignore_axis_order=True):
            return self.shapes, self.ids, self._tree
        shapes, owners = shapes_near(self.shapes, self._tree, crs, image, self.file)
        return shapes, self.ids[owners], shapely.STRtree(shapes)


def read_polygons(file: str, column: str | None, layer: str | None, naming: Naming) -> Polygons:
    """Read the polygons of a layer and their classes.

    Shapes that cross themselves are repaired; features without a shape, and points and lines, are left out; both are noted.

    Args:
        file: vector file.
        column: attribute that says the class.
        layer: of the file; needed where there are several.
        naming: gives class ids to attribute values.

    Raises:
        MissingFileError: no such file.
        UnreadableFileError: not a vector file.
        DataError: no such layer or column, no CRS, no polygon, or values without a class.
        MissingExtraError: geopandas is not installed.
    """
    frame = _read_layer(file, column, layer)
    import shapely

    shapes = np.array(shapely.force_2d(frame.geometry.to_numpy()), dtype=object)
    empty = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    crossed = ~empty & ~shapely.is_valid(shapes)
    shapes[crossed] = shapely.make_valid(shapes[crossed])
    gathered = ~empty & (shapely.get_type_id(shapes) == _COLLECTION)
    shapes[gathered] = [_polygons_in(shape) for shape in shapes[gathered]]
    other = ~empty & ~np.isin(shapely.get_type_id(shapes), (_POLYGON, _MULTIPOLYGON))
    kept = ~empty & ~other
    if not kept.any():
        kinds = ", ".join(sorted(set(frame.geometry.geom_type.dropna()))) or "none with a shape"
        raise DataError(f"{file}: no polygon among {len(frame)} features ({kinds}); labels need polygons")
    notes = [
        _note(file, empty, "without a shape left out"),
        _note(file, other, "that are no polygons left out"),
        _note(file, crossed & kept, "with a shape that crosses itself repaired"),
    ]
    texts = [_text(value) for value in frame.loc[kept, column].tolist()]
    values, positions, counts = np.unique(np.array(texts, dtype=object), return_inverse=True, return_counts=True)
    ids = naming(dict(zip(values.tolist(), counts.tolist(), strict=True)), f"{file}: column {column!r}")
    of_value = np.array([ids[value] for value in values], dtype=np.uint8)
    stamp = stamp_of([column, layer, sorted(ids.items())], files=_files_of(file))
    return Polygons(file, frame.crs, shapes[kept], of_value[positions], tuple(note for note in notes if note), stamp)


def rasterise(polygons: Polygons, image: RasterInfo, outside: int, target: Path) -> bool:
    """Write polygons as an index raster on the grid of an image, block by block.

    Args:
        polygons: shapes and ids.
        image: header of the image, with CRS and geotransform; a rotated one is followed.
        outside: value of pixels whose centre no polygon holds.
        target: GeoTIFF to write, unless it is there already, whole and made from the same.

    Returns:
        Whether any polygon touches the image.

    Raises:
        DataError: the polygons cannot be brought to the image's CRS, or reach, near the image, to where it has no place.
    """
    shapes, ids, tree = polygons.near(image)
    stamp = stamp_of(["polygons", polygons.stamp, outside, grid_settings(image)])

    def make() -> Blocks:
        for window in blocks_of(image):
            yield window, _burn(shapes, ids, tree, image, window, outside)

    write_index_raster(target, image, stamp, make)
    return bool(len(_touching(tree, image, Window(0, 0, image.width, image.height))))


def _burn(shapes: NDArray[np.object_], ids: NDArray[np.uint8], tree: Any, image: RasterInfo, window: Window, outside: int) -> Any:
    from rasterio import Affine
    from rasterio.features import rasterize

    touching = _touching(tree, image, window)
    if not len(touching):
        return np.full((window.height, window.width), outside, dtype=np.uint8)
    assert image.transform is not None
    return rasterize(
        zip(_cut(shapes[touching], image, window), ids[touching].tolist(), strict=True),
        out_shape=(window.height, window.width),
        fill=outside,
        transform=Affine(*window_transform(image.transform, window)),
        all_touched=False,
        dtype="uint8",
    )


def _cut(shapes: NDArray[np.object_], image: RasterInfo, window: Window) -> NDArray[np.object_]:
    """Cut large shapes to the surroundings of a window: rasterising takes as long as all edges are many, wherever they lie."""
    import shapely

    large = shapely.get_num_coordinates(shapes) > _LARGE
    if not large.any():
        return shapes
    assert image.transform is not None
    column, row, width, height = window
    ends = ((column - _AROUND, row - _AROUND), (column + width + _AROUND, row + height + _AROUND))
    x, y = zip(*(map_position(image.transform, left, top) for left, _ in ends for _, top in ends), strict=True)
    cut = shapely.clip_by_rect(shapes[large], min(x), min(y), max(x), max(y))
    shapes = shapes.copy()
    shapes[large] = np.where(shapely.is_empty(cut), shapes[large], cut)
    return shapes


def _touching(tree: Any, image: RasterInfo, window: Window) -> NDArray[np.integer[Any]]:
    """Positions of the shapes that touch a window, in the order of the layer."""
    import shapely

    assert image.transform is not None
    column, row, width, height = window
    corners = [(column, row), (column, row + height), (column + width, row + height), (column + width, row)]
    ground = shapely.Polygon([map_position(image.transform, *corner) for corner in corners])
    return np.sort(tree.query(ground, predicate="intersects"))


def _read_layer(file: str, column: str | None, layer: str | None) -> Any:
    with needs_extra("geo", _NEED):
        import geopandas
    if not Path(file).exists():
        raise MissingFileError(f"{file}: no such file of polygons")
    try:
        if file.lower().endswith(".parquet"):
            return _checked(geopandas.read_parquet(file), file, column, None)
        layers = geopandas.list_layers(file)["name"].tolist()
        if layer is not None and layer not in layers:
            raise DataError(f"{file}: no layer {layer!r}; {suggest(layer, layers)}")
        if layer is None and len(layers) > 1:
            raise DataError(f"{file}: holds {len(layers)} layers; choose one with label_layer; choices: {', '.join(sorted(layers))}")
        first = geopandas.read_file(file, layer=layer, rows=1)
        if not len(first):
            raise DataError(f"{file}: {f'layer {layer!r} ' if layer else ''}holds no feature")
        _checked(first, file, column, layer)
        frame = geopandas.read_file(file, layer=layer, columns=[column])
    except DataError:
        raise
    # The errors of GDAL's drivers are RuntimeErrors, those of Arrow ValueErrors.
    except (RuntimeError, ValueError, OSError) as error:
        raise UnreadableFileError(f"{file}: cannot be read as polygons: {' '.join(str(error).split())[:200]}") from None
    return frame


def _checked(frame: Any, file: str, column: str | None, layer: str | None) -> Any:
    """Refuse a layer that has not what labels need."""
    named = f"{file}: layer {layer!r}" if layer else file
    if "geometry" not in frame.columns and not hasattr(frame, "crs"):
        raise DataError(f"{named} has no shapes; labels need polygons")
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if column is None:
        raise DataError(f"{named}: say with label_column which attribute names the class; choices: {', '.join(sorted(columns)) or 'none'}")
    if column not in columns:
        raise DataError(f"{named} has no column {column!r}; {suggest(column, columns)}")
    if frame.crs is None:
        raise DataError(f"{named} has no CRS, so its polygons have no place on the images; assign one")
    if file.lower().endswith(".parquet") and not len(frame):
        raise DataError(f"{named} holds no feature")
    return frame


def _polygons_in(shape: Any) -> Any:
    """Keep what has an area of a collection, as repairing leaves lines behind."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shape))
    areas = parts[shapely.get_type_id(parts) == _POLYGON]
    return shapely.multipolygons(areas) if len(areas) else shape


def _text(value: Any) -> str:
    """Write an attribute value as ``label_values`` names it: whole numbers without a point, an empty cell as ``null``."""
    # Only NaN differs from itself.
    if value is None or str(value) in {"<NA>", "NaT"} or value != value:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _note(file: str, rows: NDArray[np.bool_], what: str) -> str:
    if not rows.any():
        return ""
    found: Sequence[int] = np.flatnonzero(rows).tolist()
    shown = ", ".join(str(row) for row in found[:_NAMED_ROWS]) + (", ..." if len(found) > _NAMED_ROWS else "")
    return f"{file}: {len(found)} features {what} (feature {shown}, counted from 0)"


def _files_of(file: str) -> tuple[str, ...]:
    """All files of a data set: a shapefile is several."""
    path = Path(file)
    if path.suffix.lower() != ".shp":
        return (file,)
    return tuple(
        sorted(
            str(other) for other in path.parent.glob(f"{path.stem}.*") if other.suffix.lower() in {".shp", ".dbf", ".shx", ".prj", ".cpg"}
        )
    )

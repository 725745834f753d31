"""A map describes itself: a STAC item with place, classes, checksums, and what it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import DataError, UsageError, needs_extra
from tilth.imagery.area import to_degrees
from tilth.imagery.class_map import ClassMap, read_class_map
from tilth.imagery.write import write_json
from tilth.prediction.beside import refuse_foreign

COG = "image/tiff; application=geotiff; profile=cloud-optimized"
GEOPACKAGE = "application/geopackage+sqlite3"

_EDGE_POINTS = 9
"""Points along each edge of the footprint: edges of a projected grid bend in degrees."""

_CHUNK = 1 << 20

_HALF = 180.0
"""Degrees from the prime meridian to the antimeridian."""

Extra = tuple[str, Path, str, str]
"""Key, file, media type and title of an asset beside the map."""


def write_stac_item(
    source: str | Path,
    out: str | Path | None = None,
    *,
    extras: Sequence[Extra] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the STAC 1.1 item of a map.

    The item has the footprint in longitude and latitude, the grid (projection extension), the classes with colours (classification
    extension), size and SHA-256 of each file (file extension), and provenance under ``processing:*`` and ``tilth:*``.

    Args:
        source: map of class ids, with CRS.
        out: file to write, ``.json``; by default beside the map, with its stem. An item that tilth wrote is replaced.
        extras: further files that belong to the map, such as its confidence.
        start: when the imagery was taken, or the earliest time of it.
        end: the latest time of the imagery; by default ``start``. Without either, the item tells the time at which the map was written,
            and ``tilth:datetime_of`` says so.
        provenance: further properties: ``model`` becomes ``tilth:model``, and so on; None values are left out.
        overwrite: replace any other file, too.

    Returns:
        The path written.

    Raises:
        UsageError: ``out`` is no ``.json``, or ``end`` without or before ``start``.
        DataError: the map is none or has no place on the Earth.
        OutputExistsError: ``out`` exists and is something else.
        MissingFileError: the map or one of the extras does not exist.
        MissingExtraError: pystac is not installed.
    """
    with needs_extra("geo", "STAC items"):
        import pystac
        from pystac.extensions.file import FileExtension
        from pystac.extensions.projection import ProjectionExtension

    path = Path(source)
    target = Path(out) if out is not None else path.with_suffix(".json")
    if target.suffix.lower() != ".json":
        raise UsageError(f"{target}: a STAC item is a JSON file; give a path that ends in .json")
    if end is not None and (start is None or end < start):
        raise UsageError(f"imagery from {start} to {end}: expected a start that is not after the end")
    refuse_foreign(target, overwrite=overwrite)
    found = read_class_map(str(path))
    geometry, bbox = _footprint(found)
    times, written = _times(path, start, end)
    item = pystac.Item(
        id=path.stem,
        geometry=geometry,
        bbox=bbox,
        datetime=times.pop("datetime", None),
        start_datetime=times.pop("start_datetime", None),
        end_datetime=times.pop("end_datetime", None),
        properties={**times, "created": _iso(written), **_provenance(found, provenance or {})},
    )
    info = found.info
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    code = info.crs if info.crs is not None and info.crs.startswith("EPSG:") else None
    projection.apply(code=code, wkt2=None if code else info.crs, shape=[info.height, info.width], transform=list(info.transform or ()))
    item.stac_extensions.append("https://stac-extensions.github.io/classification/v2.0.0/schema.json")
    item.stac_extensions.append("https://stac-extensions.github.io/processing/v1.2.0/schema.json")
    files: list[tuple[Extra, list[str]]] = [(("map", path, COG, "Land cover"), ["data"])]
    files += [(extra, ["data", "metadata"] if "tif" in extra[2] else ["derived"]) for extra in extras]
    for (key, file, media, title), roles in files:
        asset = pystac.Asset(_relative(file, target), title=title, media_type=media, roles=roles)
        item.add_asset(key, asset)
        size, digest = _checksum(file)
        # A multihash: 0x12 means SHA-256, 0x20 that 32 bytes follow.
        FileExtension.ext(asset, add_if_missing=True).apply(checksum=f"1220{digest}", size=size)
    item.assets["map"].extra_fields["classification:classes"] = _classes(found)
    item.assets["map"].extra_fields["nodata"] = found.nodata
    return write_json(target, item.to_dict(include_self_link=False))


def _footprint(found: ClassMap) -> tuple[dict[str, Any], list[float]]:
    """Corners and points between, counter-clockwise, as GeoJSON, and west, south, east, north.

    What reaches over the antimeridian is cut there, and its west is greater than its east (RFC 7946, 3.1.9 and 5.2).
    """
    with needs_extra("geo", "STAC items"):
        import shapely
        from shapely.affinity import translate
        from shapely.geometry.polygon import orient

    ring = _ring(found)
    (west, south), (east, north) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
    outline = shapely.Polygon(ring)
    if west >= -_HALF and east <= _HALF:
        return shapely.geometry.mapping(orient(outline)), [west, south, east, north]
    globe = shapely.box(-_HALF, -90, _HALF, 90)
    turned = shapely.union_all([globe.intersection(translate(outline, turns * 2 * _HALF)) for turns in (-1, 0, 1)])
    parts = [orient(part) for part in shapely.get_parts(turned) if part.geom_type == "Polygon"]
    if east - west >= 2 * _HALF:
        west, east = -_HALF, _HALF
    else:
        west, east = ((side + _HALF) % (2 * _HALF) - _HALF for side in (west, east))
    shape = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return shapely.geometry.mapping(shape), [round(side, 7) for side in (west, south, east, north)]


def _ring(found: ClassMap) -> NDArray[np.float64]:
    """Outline of a map, closed: float64 (n, 2) longitude, which may leave -180 to 180 but jumps nowhere, and latitude."""
    info = found.info
    if info.crs is None or info.transform is None:
        raise DataError(f"{info.uri}: has no CRS, so a STAC item could not say where it lies; predict a georeferenced scene")
    along = np.linspace(0, 1, _EDGE_POINTS)[:-1]
    # Upper left, lower left, lower right, upper right, as pixels.
    columns = np.concatenate([0 * along, along, 0 * along + 1, 1 - along, [0]]) * info.width
    rows = np.concatenate([along, 0 * along + 1, 1 - along, 0 * along, [0]]) * info.height
    a, b, c, d, e, f = info.transform
    degrees = to_degrees(a * columns + b * rows + c, d * columns + e * rows + f, info.crs)
    if degrees is None:
        raise DataError(f"{info.uri}: its CRS has no place on the Earth, which a STAC item must name; predict a georeferenced scene")
    longitude, latitude = np.unwrap(degrees[0], period=2 * _HALF), degrees[1]
    if abs(longitude[-1] - longitude[0]) > _HALF:
        # Once around: the map holds a pole.
        longitude, latitude = np.append(longitude, longitude[[-1, 0, 0]]), np.append(latitude, [np.copysign(90, latitude.mean())] * 2)
        latitude = np.append(latitude, latitude[0])
    ring: NDArray[np.float64] = np.stack([longitude, latitude], axis=1).round(7)
    return ring


def _times(path: Path, start: datetime | None, end: datetime | None) -> tuple[dict[str, Any], datetime]:
    """Return the times of the item, and when the map was written."""
    written = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    if start is None:
        return {"datetime": written, "tilth:datetime_of": "writing of the map; the date of the imagery is not known"}, written
    if end is None or end == start:
        return {"datetime": start, "tilth:datetime_of": "imagery"}, written
    return {"datetime": None, "start_datetime": start, "end_datetime": end, "tilth:datetime_of": "imagery"}, written


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _provenance(found: ClassMap, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the map's own tags say, then what the caller knows."""
    tags = {name.removeprefix("TILTH_").lower(): value for name, value in found.tags.items() if name.startswith("TILTH_")}
    values = {f"tilth:{name}": value for name, value in ({**tags, **given}).items() if value is not None}
    version = tags.get("version")
    return values | ({"processing:software": {"tilth": version}} if version else {}) | {"processing:level": "L4"}


def _classes(found: ClassMap) -> list[dict[str, Any]]:
    listed = []
    for value, name in sorted(found.names.items()):
        entry: dict[str, Any] = {"value": value, "name": _identifier(name), "title": name, "description": name}
        if value in found.colours:
            entry["color_hint"] = "".join(f"{channel:02X}" for channel in found.colours[value])
        listed.append(entry)
    return [*listed, {"value": found.nodata, "name": "no_data", "title": "no data", "description": "no data", "nodata": True}]


def _identifier(name: str) -> str:
    """The classification extension allows letters, digits, - and _ in a name."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "_" for letter in name)


def _relative(file: Path, target: Path) -> str:
    folder, place = target.resolve().parent, file.resolve()
    return f"./{place.relative_to(folder).as_posix()}" if place.is_relative_to(folder) else place.as_posix()


def _checksum(file: Path) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def run_provenance(model: Path) -> dict[str, Any]:
    """What a run folder knows of its training: the fingerprints of its catalogs and the hash of its recipe.

    Args:
        model: run folder; a bare model folder knows nothing.

    Returns:
        ``catalogs`` ({stream: fingerprint}) and ``recipe_sha256``, as far as they are there.
    """
    values: dict[str, Any] = {}
    data, recipe = model / "data.json", model / "recipe.yaml"
    if data.is_file():
        tree = json.loads(data.read_text(encoding="utf-8"))
        streams = tree.get("streams", tree)
        found = {name: entry["fingerprint"] for name, entry in streams.items() if isinstance(entry, dict) and "fingerprint" in entry}
        values["catalogs"] = found or None
    if recipe.is_file():
        values["recipe_sha256"] = _checksum(recipe)[1]
    return values

"""What lies beside a map in a report: scene, reference, confidence and another map, each on a grid of its own; and an assessment."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from support.report_sample import CLASSES, COLOURS, landscape, spoil, sureness
from tilth.evaluation.area_result import AreaAssessment, AreaClass
from tilth.reporting import MapInput

EAST, NORTH, PIXEL = 320_000.0, 2_780_000.0, 0.5
"""Upper left corner (EPSG:32640) and pixel size in metres of :func:`make_layers`' map."""


def write(
    path: Path, bands: np.ndarray, east=EAST, north=NORTH, pixel=PIXEL, crs="EPSG:32640", nodata=None, names=None, colours=False
) -> Path:
    """Write bands, (C, h, w), as GeoTIFF."""
    import rasterio
    from rasterio.transform import from_origin

    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype.name}
    with rasterio.open(path, "w", crs=crs, transform=from_origin(east, north, pixel, pixel), nodata=nodata, **profile) as target:
        target.write(bands)
        if colours:
            target.write_colormap(1, {k: (*colour, 255) for k, colour in enumerate(COLOURS)})
        if names:
            target.update_tags(CLASS_NAMES=json.dumps(list(names)))
    return path


def make_layers(folder: Path, side: int = 240, seed: int = 3) -> MapInput:
    """Write a map and what lies beside it on other grids: imagery twice as fine, a reference that reaches farther and starts elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    # Everything is cut from one larger piece of ground, 40 pixels wider on every side.
    picture, labels = landscape(seed, side + 80)
    inside = slice(40, 40 + side)
    predicted = spoil(labels, 0.2, seed)[inside, inside]
    other = spoil(labels, 0.45, seed + 1)[inside, inside]
    predicted[:30, :20] = 255
    truth = labels[inside, inside]
    confidence = np.where(predicted == 255, 255, sureness(truth, predicted, seed)).astype(np.uint8)
    fine = np.asarray(Image.fromarray(picture[inside, inside]).resize((2 * side, 2 * side), Image.Resampling.BICUBIC))
    path = write(folder / "map.tif", predicted[None], nodata=255, names=CLASSES, colours=True)
    write(folder / "map_confidence.tif", confidence[None], nodata=255)
    scene = write(folder / "scene.tif", np.moveaxis(fine, -1, 0), pixel=PIXEL / 2)
    label = write(folder / "label.tif", labels[None], EAST - 40 * PIXEL, NORTH + 40 * PIXEL, nodata=255, names=CLASSES)
    second = write(folder / "supervised.tif", other[None], nodata=255, names=CLASSES, colours=True)
    return MapInput(path, scene, "Al Ain", label=label, others={"supervised": second})


def make_assessment(folder: Path) -> Path:
    """Write ``assessment.json`` with round numbers of four classes."""
    rows = (("building", 42e4, 51e4, (44e4, 58e4), 0.91, 0.75), ("road", 31e4, 29e4, (24e4, 34e4), 0.84, 0.88))
    rows += (("vegetation", 128e4, 121e4, (113e4, 129e4), 0.9, 0.95), ("bare ground", 99e4, 99e4, (90e4, 108e4), 0.87, 0.86))
    total = sum(row[1] for row in rows)
    classes = tuple(
        AreaClass(
            name=name,
            mapped_area_m2=mapped,
            mapped_share=mapped / total,
            samples=100,
            reference_samples=97 + k,
            users_accuracy=user,
            users_accuracy_interval=(user - 0.05, min(user + 0.05, 1)),
            producers_accuracy=producer,
            producers_accuracy_interval=(producer - 0.07, min(producer + 0.07, 1)),
            area_share=estimate / total,
            area_share_interval=(ends[0] / total, ends[1] / total),
            area_m2=estimate,
            area_interval_m2=ends,
            colour=COLOURS[(0, 1, 2, 4)[k]],
        )
        for k, (name, mapped, estimate, ends, user, producer) in enumerate(rows)
    )
    matrix = tuple(tuple(100 - 12 if row == column else 4 for column in range(4)) for row in range(4))
    shares = tuple(tuple(count / 400 for count in row) for row in matrix)
    found = AreaAssessment(
        map="map.tif",
        reference="points.gpkg",
        classes=classes,
        error_matrix=matrix,
        area_proportions=shares,
        overall_accuracy=0.885,
        overall_interval=(0.853, 0.917),
        samples=400,
        left_out={"outside of the map": 3},
    )
    folder.mkdir(parents=True)
    (folder / "assessment.json").write_text(found.to_json())
    return folder

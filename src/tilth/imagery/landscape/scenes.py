"""Landscapes on disk: georeferenced scenes and their labels."""

from __future__ import annotations

from pathlib import Path

from tilth.imagery.files import new_folder
from tilth.imagery.landscape.config import ScenesConfig
from tilth.imagery.landscape.generate import generate_landscape
from tilth.imagery.landscape.label_noise import noisy_labels
from tilth.imagery.landscape.observation import observe
from tilth.imagery.landscape.scheme import landscape_scheme
from tilth.imagery.write import write_json, write_raster
from tilth.seeds import derive

_GAP_PX = 64
_REACH_M = 400_000
"""A UTM zone is wide enough for this many metres from west to east."""


def write_scenes(folder: str | Path, config: ScenesConfig) -> list[Path]:
    """Write landscapes as GeoTIFFs.

    Layout: ``images/scene_000.tif`` with ``masks/scene_000.tif`` (and ``masks_noisy/scene_000.tif``) for labelled scenes,
    ``unlabelled/scene_000.tif`` for the others, and ``classes.json``. With several seasons the file names end in the season,
    ``scene_000_spring.tif``. Scenes carry a UTM CRS and never overlap within a collection; files that exist are replaced.

    Args:
        folder: where to; made if missing.
        config: which scenes.

    Returns:
        Paths of the images in order of scene and season.

    Raises:
        ConfigError: the sensor has bands that cannot be simulated.
        TilthError: the folder cannot be written to.
    """
    with new_folder(Path(folder)):
        return _write_scenes(Path(folder), config)


def _write_scenes(root: Path, config: ScenesConfig) -> list[Path]:
    scheme = landscape_scheme()
    classes = [{"index": index, "name": item.name, "colour": item.colour} for index, item in enumerate(scheme.classes)]
    write_json(root / "classes.json", {"name": scheme.name, "classes": classes, "ignore_index": 255})
    sensor = config.get_sensor()
    written = []
    for number in range(config.scenes):
        landscape = generate_landscape(config.landscape(number))
        crs, transform = place(config, number)
        labels = {"masks": landscape.label}
        if config.noise is not None:
            labels["masks_noisy"] = noisy_labels(landscape, config.noise)
        labelled = config.labelled is None or number < config.labelled
        for season in config.seasons:
            name = f"scene_{config.first + number:03d}" + (f"_{season}" if len(config.seasons) > 1 else "") + ".tif"
            image = root / ("images" if labelled else "unlabelled") / name
            # One acquisition a season: other days, other light.
            data = observe(landscape, sensor, season=season)
            tags = {
                "SENSOR": sensor.name,
                "SEASON": season,
                "LANDSCAPE_SEED": str(config.seed),
                "LANDSCAPE_INDEX": str(config.first + number),
            }
            write_raster(image, data, crs=crs, transform=transform, band_names=sensor.band_names, tags=tags)
            for kind, label in labels.items() if labelled else ():
                write_raster(
                    root / kind / name, label, crs=crs, transform=transform, nodata=255, colours=scheme.colours, class_names=scheme.names
                )
            written.append(image)
    return written


def place(config: ScenesConfig, number: int) -> tuple[str, tuple[float, float, float, float, float, float]]:
    """Locate scene ``number``: its UTM CRS and the affine coefficients (a, b, c, d, e, f) from pixel to metres.

    Scenes lie on a grid at most 16 wide with gaps between them; the seed picks the zone and how far north the grid begins.
    """
    index = config.first + number
    gsd_m = config.landscape(number).gsd_m
    step = (config.size + _GAP_PX) * gsd_m
    columns = int(min(16, max(1, _REACH_M // step)))
    zone = 1 + derive(config.seed, "zone") % 60
    north = 4_000_000 + derive(config.seed, "north") % 200 * 10_000 - index // columns * step
    east = 500_000 + (index % columns - columns / 2) * step
    return f"EPSG:{32600 + zone}", (gsd_m, 0.0, east, 0.0, -gsd_m, north)

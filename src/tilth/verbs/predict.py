"""``tilth predict``: scenes become georeferenced maps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilth.errors import DataError, InterruptedRunError, MissingFileError, UsageError
from tilth.verbs.beside_map import refuse_taken, write_beside
from tilth.verbs.console import Console
from tilth.verbs.predict_options import PredictOptions
from tilth.verbs.registry import Result, verb

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter
    from tilth.prediction.interest import Interest
    from tilth.prediction.scene import ScenePrediction
    from tilth.prediction.sources import Scene

__all__ = ["PredictOptions", "predict"]

_MAP_SUFFIXES = frozenset({".tif", ".tiff"})


@verb("predict", PredictOptions)
def predict(options: PredictOptions, console: Console) -> Result:
    """Map scenes: Cloud Optimized GeoTIFFs with colours and class names, nodata kept.

    A prediction that was killed goes on with the same command. A map that is there already and was made from the same is left as it is.
    """
    from tilth.imagery.read import read_info
    from tilth.models.segmenter import Segmenter
    from tilth.models.weights.importing import warning_of_fresh_parts

    if options.area is not None and not options.area.exists():
        raise MissingFileError(f"{options.area}: no such file")
    scenes = _in_period(_listed(options.scenes), options, console)
    targets = _targets(scenes, options)
    refuse_taken(list(targets), scenes, options)
    for scene in scenes:
        # Before the model is loaded: a wrong third scene must not cost the time of the first two.
        read_info(str(scene))
    inference = options.inference.arguments()
    model = Segmenter.load(options.model, inference["device"])
    if (warning := warning_of_fresh_parts(options.model)) is not None:
        console.warn(warning)
    found: dict[str, ScenePrediction] = {}
    beside: dict[str, Path] = {}
    outside = []
    for target, members in targets.items():
        source = _open(members, model, options)
        try:
            area = _area(source, options)
        except DataError as error:
            if len(targets) == 1:
                raise
            outside.append(source.name)
            console.say(f"left out: {error}")
            continue
        # A map is called as its scene, the map of a mosaic as its file.
        name = target.stem if options.mosaic else members[0].stem
        found[name] = _predict(model, source, target, area, inference, options, console)
        beside |= {f"{what} of {name}": path for what, path in write_beside(found[name], members, options).items()}
    if not found:
        raise DataError(f"the area to map lies in none of the {len(outside)} scenes; the first is {outside[0]}")
    return _result(found, beside)


def _predict(
    model: Segmenter,
    source: Scene,
    target: Path,
    area: Interest | None,
    inference: Mapping[str, Any],
    options: PredictOptions,
    console: Console,
) -> ScenePrediction:
    from tilth.prediction.checks import why_unplaced
    from tilth.prediction.scene import predict_scene

    shown = Path(source.name).name
    try:
        found = predict_scene(
            model,
            source,
            target,
            **inference,
            flips=options.flips,
            confidence=options.confidence,
            probabilities=options.probabilities,
            area=area,
            overwrite=options.overwrite,
            progress=partial(_show, console, shown),
        )
    except KeyboardInterrupt:
        raise InterruptedRunError(f"stopped in {shown}; the same command goes on from there") from None
    if not found.georeferenced:
        console.warn(f"{source.name}: {why_unplaced(source.info)}")
    if not found.valid_pixels:
        console.warn(f"{source.name}: no pixel there has data, so all of the map is no data")
    if found.windows_kept == found.windows:
        console.say(f"{target}: was finished before")
    elif found.windows_kept:
        console.say(f"{target}: {found.windows_kept} of {found.windows} windows were done before")
    return found


def _result(found: Mapping[str, ScenePrediction], beside: Mapping[str, Path]) -> Result:
    summary, values = [], {}
    outputs: dict[str, Path] = {}
    for name, one in found.items():
        shares = ", ".join(f"{label} {100 * count / max(1, one.valid_pixels):.1f} %" for label, count in one.class_pixels.items())
        summary.append(f"{name}: {one.width} x {one.height} pixels in {one.seconds:.1f} s; {shares}")
        paths = {"map": one.path, "confidence": one.confidence_path, "probabilities": one.probabilities_path}
        outputs |= {f"{what} of {name}": path for what, path in paths.items() if path is not None}
        values[name] = {"class_pixels": one.class_pixels, "class_area_m2": one.class_area_m2, "valid_pixels": one.valid_pixels}
    return Result(summary=tuple(summary), outputs={**outputs, **beside}, values=values)


def _show(console: Console, scene: str, done: int, total: int) -> None:
    console.status(f"{scene}: window {done}/{total}")


def _open(members: Sequence[Path], model: Segmenter, options: PredictOptions) -> Scene:
    from tilth.prediction.sources import open_mosaic, open_scene

    given: dict[str, Any] = {
        "bands": options.bands,
        "crs": options.crs,
        "resolution": options.resolution,
        "black_border": options.black_border,
    }
    return open_mosaic(members, model.sensor, **given) if options.mosaic else open_scene(members[0], model.sensor, **given)


def _area(source: Scene, options: PredictOptions) -> Interest | None:
    from tilth.prediction.interest import area_from_bounds, area_from_file

    if options.area is not None:
        return area_from_file(options.area, source.info)
    return None if options.bounds is None else area_from_bounds(options.bounds, source.info, options.bounds_crs)


def _listed(scenes: Sequence[Path]) -> list[Path]:
    """The scenes, with the rasters in it in place of each folder, by name."""
    from tilth.catalog.config import DEFAULT_SUFFIXES

    found = []
    for scene in scenes:
        if not scene.is_dir():
            found.append(scene)
            continue
        inside = sorted(
            path for path in scene.iterdir() if path.suffix.lower() in DEFAULT_SUFFIXES and path.is_file() and not path.name.startswith(".")
        )
        if not inside:
            raise MissingFileError(f"{scene}: is a folder without a raster in it ({', '.join(DEFAULT_SUFFIXES)})")
        found.extend(inside)
    return found


def _in_period(scenes: Sequence[Path], options: PredictOptions, console: Console) -> list[Path]:
    """The scenes that were taken in the period.

    Raises:
        DataError: a scene without a date, or none in the period.
    """
    if options.period is None:
        return list(scenes)
    from tilth.prediction.dates import scene_date

    first, last = options.period
    days = {scene: scene_date(str(scene), options.datetime_pattern) for scene in scenes}
    dateless = [scene for scene, day in days.items() if day is None]
    if dateless:
        more = f" and {len(dateless) - 1} more" if len(dateless) > 1 else ""
        raise DataError(
            f"{dateless[0]}{more}: neither tags nor name say when it was taken; leave it out, or give --datetime-pattern, or no --period"
        )
    kept = [scene for scene, day in days.items() if day is not None and first <= day <= last]
    if not kept:
        known = sorted(day for day in days.values() if day is not None)
        raise DataError(f"no scene was taken from {first} to {last}; the {len(days)} there are from {known[0]} to {known[-1]}")
    if len(kept) < len(scenes):
        console.say(f"{len(kept)} of {len(scenes)} scenes were taken from {first} to {last}")
    return kept


def _targets(scenes: Sequence[Path], options: PredictOptions) -> dict[Path, list[Path]]:
    """Which scenes make which map."""
    into_file = options.out.suffix.lower() in _MAP_SUFFIXES and not options.out.is_dir()
    if options.mosaic:
        if not into_file:
            raise UsageError(f"--out {options.out}: a mosaic becomes one map; give a .tif file")
        targets = {options.out: list(scenes)}
    elif len(scenes) == 1 and into_file:
        targets = {options.out: list(scenes)}
    elif options.out.suffix and not options.out.is_dir():
        raise UsageError(
            f"--out {options.out}: give a .tif file for one scene, a folder for several (or --mosaic for one map of all); "
            f"there {_are(len(scenes))}"
        )
    else:
        stems = [scene.stem for scene in scenes]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise UsageError(f"two scenes are called {twice[0]!r}, their maps would replace each other; predict them one by one")
        targets = {options.out / f"{scene.stem}.tif": [scene] for scene in scenes}
    # Not Path.resolve: it fails where links go in a circle, which is told where the scene is opened.
    resolved = {os.path.realpath(scene) for scene in scenes}
    for target in targets:
        if os.path.realpath(target) in resolved:
            raise UsageError(f"{target}: the map would replace the scene; give another --out")
    return targets


def _are(count: int) -> str:
    return "is 1 scene" if count == 1 else f"are {count} scenes"

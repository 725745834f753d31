"""``tilth predict``: a scene becomes a georeferenced map."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pydantic

from tilth.config import Config
from tilth.errors import UsageError
from tilth.verbs.console import Console
from tilth.verbs.options import InferenceConfig
from tilth.verbs.registry import Result, verb

_MAP_SUFFIXES = frozenset({".tif", ".tiff"})


class PredictOptions(Config):
    """Options of ``tilth predict``."""

    model: Path = pydantic.Field(json_schema_extra={"positional": True}, description="model or run folder")
    scenes: tuple[Path, ...] = pydantic.Field(min_length=1, json_schema_extra={"positional": True}, description="scenes to map")
    out: Path = pydantic.Field(description="map to write, .tif; a folder for several scenes")
    confidence: bool = pydantic.Field(False, description="also write the highest probability in percent")
    black_border: bool = pydantic.Field(True, description="leave large black regions at the border of 8-bit scenes as no data")
    inference: InferenceConfig = pydantic.Field(default_factory=InferenceConfig, description="windows, device, precision")


@verb("predict", PredictOptions)
def predict(options: PredictOptions, console: Console) -> Result:
    """Map scenes: Cloud Optimized GeoTIFFs with colours and class names, nodata kept."""
    from tilth.imagery.read import read_info
    from tilth.models.segmenter import Segmenter
    from tilth.prediction.scene import predict_scene

    targets = _targets(options)
    for scene in targets:
        # Before the model is loaded: a wrong third scene must not cost the time of the first two.
        if scene.is_dir():
            raise UsageError(f"{scene}: is a folder; name the scenes in it, such as {scene}/*.tif")
        read_info(str(scene))
    inference = options.inference.arguments()
    model = Segmenter.load(options.model, inference["device"])
    summary, outputs, values = [], {}, {}
    for scene, target in targets.items():
        found = predict_scene(
            model,
            scene,
            target,
            **inference,
            confidence=options.confidence,
            black_border=options.black_border,
            progress=partial(_show, console, scene.name),
        )
        if not found.georeferenced:
            console.warn(f"{scene}: has no CRS, so the map has none")
        shares = ", ".join(f"{name} {100 * count / max(1, found.valid_pixels):.1f} %" for name, count in found.class_pixels.items())
        summary.append(f"{scene.name}: {found.width} x {found.height} pixels in {found.seconds:.1f} s; {shares}")
        outputs[f"map of {scene.stem}"] = found.path
        if found.confidence_path is not None:
            outputs[f"confidence of {scene.stem}"] = found.confidence_path
        values[scene.stem] = {"class_pixels": found.class_pixels, "class_area_m2": found.class_area_m2, "valid_pixels": found.valid_pixels}
    return Result(summary=tuple(summary), outputs=outputs, values=values)


def _show(console: Console, scene: str, done: int, total: int) -> None:
    console.status(f"{scene}: window {done}/{total}")


def _targets(options: PredictOptions) -> dict[Path, Path]:
    """Which map belongs to which scene."""
    if len(options.scenes) == 1 and options.out.suffix.lower() in _MAP_SUFFIXES and not options.out.is_dir():
        targets = {options.scenes[0]: options.out}
    elif options.out.suffix and not options.out.is_dir():
        raise UsageError(f"--out {options.out}: give a .tif file for one scene, a folder for several; there {_are(len(options.scenes))}")
    else:
        stems = [scene.stem for scene in options.scenes]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise UsageError(f"two scenes are called {twice[0]!r}, their maps would replace each other; predict them one by one")
        targets = {scene: options.out / f"{scene.stem}.tif" for scene in options.scenes}
    scenes = {scene.resolve() for scene in options.scenes}
    for target in targets.values():
        if target.resolve() in scenes:
            raise UsageError(f"{target}: the map would replace the scene; give another --out")
    return targets


def _are(count: int) -> str:
    return "is 1 scene" if count == 1 else f"are {count} scenes"

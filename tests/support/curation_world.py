"""A pool with one tile of every kind that curation drops, labelled tiles, and a model with a background class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from support.training_sample import NETWORK
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor

SCHEME = ClassScheme(
    name="seen",
    classes=tuple(
        LandClass(name=name, colour=colour)
        for name, colour in (("Background", (0, 0, 0)), ("ship", (0, 0, 255)), ("plane", (200, 0, 0)), ("tank", (90, 90, 0)))
    ),
)
SIDE = 64


def picture(seed: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Patches of random colours with noise: no two look alike."""
    draw = np.random.default_rng(seed)
    patches = draw.integers(40, 200, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    return np.clip(patches + draw.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def save(folder: Path, name: str, pixels: np.ndarray, **more: Any) -> dict[str, Any]:
    """Write a tile and give its row; four channels have the last as what is valid."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    Image.fromarray(pixels).save(path)
    return {"tile_id": name, "image": str(path), "window": (0, 0, pixels.shape[1], pixels.shape[0]), "sensor": "rgb", **more}


def catalog_of(rows: list[dict[str, Any]]) -> Catalog:
    return Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}, {SCHEME.name: SCHEME})


def with_alpha(pixels: np.ndarray, share: float) -> np.ndarray:
    """Leave the first rows valid, so that they are this share."""
    alpha = np.zeros(pixels.shape[:2], np.uint8)
    alpha[: round(share * len(alpha))] = 255
    return np.dstack([pixels, alpha])


def make_model() -> Segmenter:
    """Weights of chance, and classes far enough from each other that every one is seen somewhere."""
    made = build_segmenter(NETWORK, get_sensor("rgb"), SCHEME, seed=4).eval()
    with torch.no_grad():
        for parameter in made.network.segmentation_head.parameters():
            parameter.mul_(8)
    return made


def plant(folder: Path, model: Segmenter) -> Path:
    """``pool.parquet``, ``labelled.parquet`` and ``model/``."""
    rows = [save(folder / "pool", f"plain_{number:02d}", picture(number), source="sea" if number % 2 else "land") for number in range(14)]
    white = np.clip(np.full((SIDE, SIDE, 3), 246) + np.random.default_rng(0).integers(-5, 6, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8)
    rows += [
        save(folder / "pool", "copy", picture(3)),
        save(folder / "pool", "brighter", np.clip(picture(5) * 1.1 + 4, 0, 255).astype(np.uint8)),
        save(folder / "pool", "blank", np.full((SIDE, SIDE, 3), 90, np.uint8)),
        save(folder / "pool", "cloud", white),
        save(folder / "pool", "corner", with_alpha(picture(50), 0.25)),
        save(folder / "pool", "nothing", with_alpha(picture(51), 0)),
        save(folder / "pool", "as_labelled", picture(101)),
        save(folder / "pool", "torn", picture(52)),
    ]
    (folder / "pool" / "torn.png").write_bytes(b"no picture")
    labelled = [
        save(folder / "labelled", f"lab_{number}", picture(100 + number), split="val" if number == 1 else "train") for number in range(7)
    ]
    for row in labelled:
        Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(row["image"].replace("lab_", "mask_"))
        row |= {"label": row["image"].replace("lab_", "mask_"), "label_kind": "clean", "scheme": SCHEME.name}
    # The pool shows one of the labelled tiles under its own name, too.
    rows.append({**labelled[0], "tile_id": "ground", "label": None, "label_kind": "none", "scheme": None, "split": None})
    catalog_of(rows).save(folder / "pool.parquet")
    catalog_of(labelled).save(folder / "labelled.parquet")
    model.save(folder / "model")
    return folder

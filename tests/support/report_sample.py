"""Small, realistic folders for the report's tests: runs, evaluations with galleries, a comparison, a map with its scene."""

import json
import math
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tilth.evaluation.compare import Comparison, compare
from tilth.sensors import get_sensor

CLASSES = ("building", "road", "vegetation", "water", "bare ground", "unused")
COLOURS = ((200, 60, 50), (110, 110, 110), (80, 150, 70), (60, 120, 200), (226, 201, 160), (250, 240, 90))


def landscape(seed: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 (h, w, 3), and its classes, uint8 (h, w), with a corner of ignored pixels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    labels = np.where(np.sin(5 * rows + seed) + np.cos(4 * columns) > 0.3, 2, 4).astype(np.uint8)
    labels[np.abs(rows - 0.5 - 0.25 * np.sin(3 * columns + seed)) < 0.07] = 3
    labels[:, (columns[0] > 0.6) & (columns[0] < 0.65)] = 1
    for _ in range(7):
        top, left = rng.integers(0, side - 14, 2)
        labels[top : top + 10, left : left + 12] = 0
    picture = np.asarray(COLOURS)[labels] * 0.55 + 50 + rng.normal(0, 14, (side, side, 3))
    labels[-8:, -8:] = 255
    return np.clip(picture, 0, 255).astype(np.uint8), labels


def spoil(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A prediction with blobs of wrong classes over about ``share`` of the pixels."""
    rng = np.random.default_rng(seed)
    prediction = np.where(labels == 255, 4, labels)
    side = len(labels)
    for _ in range(int(share * side * side / 64)):
        top, left = rng.integers(0, side - 8, 2)
        prediction[top : top + 8, left : left + 8] = rng.integers(0, 5)
    return prediction


def paint(ids: np.ndarray) -> np.ndarray:
    table = np.full((256, 3), 255, np.uint8)
    table[: len(COLOURS)] = COLOURS
    return table[ids]


def divide(top: float, bottom: float) -> float | None:
    return float(top / bottom) if bottom else None


def score(confusion: np.ndarray, classes=CLASSES) -> tuple[dict, list[dict]]:
    hits, reference, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    rows = []
    for k, name in enumerate(classes):
        absent = reference[k] == 0
        rows.append(
            {
                "name": name,
                "iou": None if absent else divide(hits[k], reference[k] + predicted[k] - hits[k]),
                "f1": None if absent else divide(2 * hits[k], reference[k] + predicted[k]),
                "precision": None if absent else divide(hits[k], predicted[k]) or 0.0,
                "recall": None if absent else divide(hits[k], reference[k]),
                "reference_pixels": int(reference[k]),
                "predicted_pixels": int(predicted[k]),
                "absent": bool(absent),
            }
        )
    total = confusion.sum()
    chance = float(reference @ predicted) / float(total) ** 2 if total else None
    overall = divide(hits.sum(), total)

    def mean(key: str) -> float | None:
        known = [row[key] for row in rows if row[key] is not None]
        return math.fsum(known) / len(known) if known else None

    summary = {
        "mIoU": mean("iou"),
        "mF1": mean("f1"),
        "OA": overall,
        "AA": mean("recall"),
        "kappa": None if chance is None else (overall - chance) / (1 - chance),
        "fwIoU": divide(sum((row["iou"] or 0) * row["reference_pixels"] for row in rows), total),
    }
    return summary, rows


def make_evaluation(
    folder: Path, share: float = 0.3, seed: int = 0, tiles: int = 4, classes=CLASSES, empty: bool = False, rich: bool = False
) -> Path:
    """Write ``metrics.json`` and ``gallery/`` as the evaluation room does.

    ``empty`` has no labelled pixel at all; ``rich`` has all that may be absent: intervals, boundaries, calibration, images, confidence.
    """
    (folder / "gallery").mkdir(parents=True)
    total = np.zeros((len(classes), len(classes)), np.int64)
    found = []
    for tile in range(tiles):
        picture, labels = landscape(tile)
        if empty:
            labels[:] = 255
        prediction = spoil(labels, share * (1 + tile) / tiles * 1.6, seed * 100 + tile)
        counted = labels != 255
        confusion = np.zeros_like(total)
        np.add.at(confusion, (labels[counted], prediction[counted]), 1)
        total += confusion
        errors = np.full((*labels.shape, 3), 255, np.uint8)
        errors[counted] = np.where((labels == prediction)[..., None], (190, 190, 190), (210, 40, 40))[counted]
        name = f"tile_{tile:03d}"
        files = {"image": picture, "label": paint(labels), "prediction": paint(prediction), "errors": errors}
        if rich:
            files["confidence"] = np.repeat(sureness(labels, prediction, tile)[..., None] * 255 // 100, 3, axis=2).astype(np.uint8)
        for kind, pixels in files.items():
            Image.fromarray(pixels).save(folder / "gallery" / f"{name}_{kind}.png")
        summary, _ = score(confusion, classes)
        entry = {"tile_id": f"dubai/{name}", "mIoU": summary["mIoU"]} | {kind: f"gallery/{name}_{kind}.png" for kind in files}
        found.append((summary, int(confusion.sum()), entry))
    summary, rows = score(total, classes)
    found.sort(key=lambda item: item[0]["mIoU"] or 0)
    tree = {
        "schema_version": 1,
        "model": str(folder.name),
        "catalog_fingerprint": "ab" * 32,
        "split": ["test"],
        "scheme": "demo_land_cover",
        "classes": list(classes),
        "colours": [list(colour) for colour in COLOURS],
        "confusion": total.tolist(),
        "scores": summary,
        "per_class": rows,
        "tiles": [{"tile_id": e["tile_id"], "mIoU": s["mIoU"], "OA": s["OA"], "pixels": p} for s, p, e in found],
        "pixels": int(total.sum()),
        "ignored_pixels": 64 * tiles,
        "seconds": 3.21,
        "gallery": [entry for *_, entry in found],
    }
    if rich:
        enrich(tree)
    (folder / "metrics.json").write_text(json.dumps(tree))
    return folder


def sureness(labels: np.ndarray, prediction: np.ndarray, seed: int) -> np.ndarray:
    """Confidence in percent, integer (h, w): lower where the prediction is wrong, but not always."""
    rng = np.random.default_rng(seed)
    return np.clip(np.where(labels == prediction, 90, 68) + rng.normal(0, 8, labels.shape), 20, 100).astype(int)


def enrich(tree: dict) -> None:
    """Add to the content of ``metrics.json`` what older evaluations do not have."""
    known = {name: value for name, value in tree["scores"].items() if value is not None}
    tree["intervals"] = {name: [max(value - 0.031, 0), min(value + 0.027, 1)] for name, value in known.items()}
    tree["scores"]["bIoU"] = 0.384
    for row in tree["per_class"]:
        if not row["absent"]:
            row |= {"boundary_iou": row["iou"] * 0.7, "interval": [max(row["iou"] - 0.05, 0), min(row["iou"] + 0.04, 1)]}
    tree["resampling"] = {"unit": "image", "units": 12, "draws": 1000}
    tree["calibration"] = {"bins": BINS, "expected_error": 0.0712, "maximum_error": 0.13}
    tree["images"] = [
        {"image": f"dubai/image_{k:02d}.jpg", "tiles": 9, "mIoU": 0.31 + 0.017 * (k * 7 % 12), "OA": 0.6 + 0.01 * k, "pixels": 81_000}
        for k in range(12)
    ]


# Lower end, pixels, confidence, accuracy of the bins of a model that promises too much.
_JUDGED = ((0.2, 900, 0.27, 0.30), (0.3, 2100, 0.35, 0.33), (0.4, 3900, 0.455, 0.41), (0.5, 5200, 0.552, 0.47), (0.6, 7400, 0.651, 0.55))
_JUDGED += ((0.7, 9800, 0.753, 0.63), (0.8, 15200, 0.856, 0.726), (0.9, 41000, 0.967, 0.90))
BINS = [{"lower": k / 10, "upper": (k + 1) / 10, "pixels": 0, "confidence": None, "accuracy": None} for k in range(2)]
BINS += [
    {"lower": low, "upper": round(low + 0.1, 1), "pixels": count, "confidence": said, "accuracy": right}
    for low, count, said, right in _JUDGED
]


def make_run(folder: Path, method: str = "s4p", seed: int = 0, steps: int = 600, classes=CLASSES, finished: bool = True) -> Path:
    """Write a run folder as training leaves it, without weights but with a safetensors header."""
    (folder / "model").mkdir(parents=True)
    rng = np.random.default_rng(seed + 10 * (method == "s4p"))
    loop = {"steps": steps, "batch_size": 8, "seed": seed, "learning_rate": 0.0003, "schedule": {"kind": "cosine"}, "workers": seed}
    recipe = {"labelled": ["catalog.parquet"], "out": f"runs/{folder.name}", "labelled_tiles": 12}
    recipe |= {"network": {"encoder": "resnet18", "decoder": "unet", "pretrained": False}, "weak": {"size": 256}, "loop": loop}
    recipe |= {"method": method, "settings": {"threshold": 0.95, "unlabelled_weight": 1.0} if method == "s4p" else {}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    environment = {"python": "3.12.4", "processors": 2, "accelerator": "none", "packages": {"tilth": "0.1.0", "torch": "2.7.0"}}
    (folder / "environment.json").write_text(json.dumps(environment))
    stream = {"tiles": 12, "labelled_tiles": 12, "sensor": "rgb", "splits": {"train": 12}, "fingerprint": "cd" * 32}
    streams = {"labelled": stream}
    if method == "s4p":
        streams["unlabelled"] = stream | {"tiles": 188, "fingerprint": "de" * 32}
    (folder / "data.json").write_text(json.dumps({"streams": streams}))
    scheme = {"name": "demo", "classes": [{"name": name, "colour": colour} for name, colour in zip(classes, COLOURS, strict=True)]}
    (folder / "model" / "config.json").write_text(json.dumps({"scheme": scheme}))
    lines = []
    for step in range(2, steps + 1, 2):
        loss = 1.7 * math.exp(-step / 180) + 0.25 + rng.normal(0, 0.05)
        record = {
            "step": step,
            "kind": "train",
            "time_s": step * 0.31,
            "loss": loss,
            "loss_labelled": loss * 0.8,
            "tiles_per_s": 61 + rng.normal(),
        }
        record |= {"learning_rate": 3e-4 * 0.5 * (1 + math.cos(math.pi * step / steps)), "memory_gb": 2.31}
        if method == "s4p":
            share = 0.85 * (1 - math.exp(-step / 150))
            record |= {"loss_unlabelled": 0.3 * share + rng.normal(0, 0.02), "accepted_share": share, "agreement": 0.7 + 0.2 * share}
            by_class = [min(share * (1.1 - 0.2 * k), 1) for k in range(len(classes))]
            record |= {f"accepted_share_class/{k}": value for k, value in enumerate(by_class)}
            record |= {f"accepted_class/{k}": value / sum(by_class) for k, value in enumerate(by_class)}
            if step == 100 and seed == 1:
                lines.append({"step": step, "kind": "warning", "message": "few pseudo-labels of <water> are accepted"})
        lines.append(record)
        if step % 60 == 0:
            score = (0.42 + 0.05 * (method == "s4p")) * (1 - math.exp(-step / 140)) + rng.normal(0, 0.008)
            lines.append({"step": step, "kind": "val", "time_s": step * 0.31, "mIoU": score, "OA": score + 0.3})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        (folder / "finished.json").write_text(
            json.dumps({"steps": steps, "seconds": steps * 0.32, "skipped_steps": 0, "parameters": 14_328_354})
        )
    header = json.dumps(
        {
            "encoder.weight": {"dtype": "F32", "shape": [64, 3, 7, 7], "data_offsets": [0, 37632]},
            "decoder.weight": {"dtype": "F32", "shape": [3500, 4000], "data_offsets": [37632, 56037632]},
            "encoder.bn.running_mean": {"dtype": "F32", "shape": [64], "data_offsets": [0, 0]},
            "__metadata__": {"format": "pt"},
        }
    ).encode()
    (folder / "model" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


def make_comparison(folder: Path, rich: bool = False) -> Comparison:
    """Compare three seeds of two groups through the evaluation room itself."""
    groups = {
        "supervised": [make_evaluation(folder / f"supervised-seed{seed}", 0.42 + 0.02 * seed, seed, rich=rich) for seed in range(3)],
        "s4p": [make_evaluation(folder / f"s4p-seed{seed}", 0.30 + 0.015 * seed, seed + 7, rich=rich) for seed in range(3)],
    }
    return compare(groups, out=folder / "comparison")


def make_map(path: Path, names=CLASSES, crs: str | None = "EPSG:32640", side: int = 200) -> Path:
    """Write a GeoTIFF of class ids, 0.5 m pixels, with a corner of nodata."""
    import rasterio
    from rasterio.transform import from_origin

    _, labels = landscape(3, side)
    pixel = 0.5 if crs != "EPSG:4326" else 0.0001
    profile = {"driver": "GTiff", "height": side, "width": side, "count": 1, "dtype": "uint8", "nodata": 255, "crs": crs}
    origin = from_origin(55.0, 25.0, pixel, pixel) if crs == "EPSG:4326" else from_origin(320000, 2780000, pixel, pixel)
    with rasterio.open(path, "w", transform=origin, **profile) as target:
        target.write(labels, 1)
        target.write_colormap(1, {k: (*colour, 255) for k, colour in enumerate(COLOURS)})
        target.update_tags(CLASS_NAMES=json.dumps(list(names)))
    return path


def make_scene(path: Path, side: int = 200) -> Path:
    picture, _ = landscape(3, side)
    Image.fromarray(picture).save(path)
    return path


CATALOG = {
    "tiles": 212,
    "labelled": 36,
    "images": 72,
    "splits": {"train": {"tiles": 188, "labelled": 12}, "val": {"tiles": 12, "labelled": 12}, "test": {"tiles": 12, "labelled": 12}},
    "sensors": {"rgb": 212},
    "label_kinds": {"clean": 36, "none": 176},
    "sources": {"none": 212},
    "licences": {"CC-BY-4.0": 212},
    "sizes": {"512 x 512": 200, "512 x 300": 12},
    "area_km2": 1.234,
    "dates": ["2023-05-01", "2024-01-12"],
    "classes": {
        "demo_land_cover": [
            {"name": name, "colour": list(colour), "pixels": int(1000 * share), "share": share, "tiles": 9}
            for name, colour, share in zip(CLASSES, COLOURS, (0.12, 0.08, 0.31, 0.09, 0.4, 0.0), strict=True)
        ]
    },
    "unreadable_labels": 0,
    "sensor": get_sensor("rgb").model_dump(mode="json"),
    "fingerprint": "ef" * 32,
}

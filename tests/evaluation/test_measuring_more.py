"""What an evaluation says beside the confusion matrix: boundaries, calibration, images, intervals, the table of tiles; what it costs."""

import csv
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass
from tilth.errors import DataError, UsageError
from tilth.evaluation import evaluate, measure
from tilth.evaluation.bootstrap import bootstrap_intervals
from tilth.evaluation.boundary import boundary_counts
from tilth.evaluation.compare import compare
from tilth.evaluation.counts import class_counts
from tilth.evaluation.evaluate import evaluate_catalog, validation_scores
from tilth.evaluation.gallery import choose
from tilth.evaluation.measure import Detail
from tilth.evaluation.result import Evaluation, TileScore
from tilth.evaluation.samples import Inference, Sample
from tilth.evaluation.summarise import short_names, summarise
from tilth.imagery.raster import Pixels, Window
from tilth.sensors import get_sensor

SENSOR = get_sensor("rgb")
SCHEME = ClassScheme(name="primary", classes=tuple(LandClass(name=name, colour=(9, 9, index)) for index, name in enumerate("abc")))


class Brightest(nn.Module):
    """Takes the brightest band for the class; how sure it is follows from how much brighter it is."""

    def __init__(self, scheme: ClassScheme = SCHEME) -> None:
        super().__init__()
        self.sensor, self.scheme = SENSOR, scheme
        self.config = SimpleNamespace(network=SimpleNamespace(title="brightest + none"), model_dump=lambda mode: {})

    def normalise(self, stored: Tensor, valid: Tensor | None = None) -> Tensor:
        return stored / 64

    def forward(self, image: Tensor) -> Tensor:
        return image[:, : len(self.scheme)]


def plant(folder: Path, parts: int = 2, images: int = 3, side: int = 40) -> Catalog:
    """Images cut into ``parts`` tiles each; the label differs from what is seen in blocks, more so in later images."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(images):
        random = np.random.default_rng(index)
        seen = np.kron(random.integers(0, 3, (side // 8, parts * side // 8)), np.ones((8, 8), dtype=int))
        label = np.where(np.kron(random.random((side // 8, parts * side // 8)) < 0.2 * index, np.ones((8, 8))) > 0, (seen + 1) % 3, seen)
        label[random.random(label.shape) < 0.05] = 255
        bright = np.where(np.eye(3)[seen] > 0, random.integers(90, 256, (*seen.shape, 1)), 60).astype(np.uint8)
        Image.fromarray(bright).save(folder / f"image{index}.png")
        Image.fromarray(label.astype(np.uint8)).save(folder / f"label{index}.png")
        for part in range(parts):
            window = (part * side, 0, side, side)
            row = {"tile_id": f"{index}-{part}", "image": str(folder / f"image{index}.png"), "window": window, "sensor": "rgb"}
            rows.append(row | {"label": str(folder / f"label{index}.png"), "label_kind": "clean", "scheme": SCHEME.name})
    return Catalog.from_rows(rows, sensors={"rgb": SENSOR}, schemes={SCHEME.name: SCHEME})


def truths(folder: Path, index: int, part: int, side: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, prediction and confidence of a tile, worked out here."""
    pixels = np.asarray(Image.open(folder / f"image{index}.png"))[:, part * side : (part + 1) * side].astype(float) / 64
    label = np.asarray(Image.open(folder / f"label{index}.png"))[:, part * side : (part + 1) * side]
    shares = np.exp(pixels) / np.exp(pixels).sum(axis=2, keepdims=True)
    return label, shares.argmax(axis=2).astype(np.uint8), shares.max(axis=2)


def test_boundaries_calibration_and_images_equal_what_the_files_say(tmp_path: Path) -> None:
    result = evaluate_catalog(Brightest(), plant(tmp_path), calibration_bins=10, boundary_share=0.05, bootstrap=50)
    counts, sure, right = np.zeros((2, 3)), [], []
    for index in range(3):
        hits = pixels = 0
        for part in range(2):
            label, found, confidence = truths(tmp_path, index, part)
            counts += boundary_counts(found, label, 3, 0.05)
            counted = label != 255
            sure.append(confidence[counted])
            right.append((found == label)[counted])
            hits, pixels = hits + int(right[-1].sum()), pixels + int(counted.sum())
        image = result.images[index]
        assert (image.image, image.tiles, image.pixels) == (f"image{index}.png", 2, pixels)
        assert image.overall_accuracy == pytest.approx(hits / pixels)
    assert [item.boundary_iou for item in result.per_class] == pytest.approx((counts[0] / counts[1]).tolist())
    assert result.scores.mean_boundary_iou == pytest.approx((counts[0] / counts[1]).mean())
    confidence, accuracy = np.concatenate(sure), np.concatenate(right)
    places = np.ceil(confidence * 10).astype(int) - 1
    gaps = [abs(accuracy[places == place].mean() - confidence[places == place].mean()) for place in np.unique(places)]
    sizes = [(places == place).mean() for place in np.unique(places)]
    assert result.calibration is not None
    assert result.calibration.expected_error == pytest.approx(np.dot(gaps, sizes), abs=1e-5)
    assert result.calibration.maximum_error == pytest.approx(max(gaps), abs=1e-5)
    assert sum(item.pixels for item in result.calibration.bins) == result.pixels


def test_tiles_of_one_image_are_drawn_together(tmp_path: Path) -> None:
    result = evaluate_catalog(Brightest(), plant(tmp_path), bootstrap=80)
    assert result.resampling is not None
    assert (result.resampling.unit, result.resampling.units, result.resampling.draws) == ("image", 3, 80)
    counts = []
    for index in range(3):
        for part in range(2):
            label, found, _ = truths(tmp_path, index, part)
            matrix = np.bincount(label[label != 255].astype(int) * 3 + found[label != 255], minlength=9).reshape(3, 3)
            counts.append(class_counts(matrix, boundary_counts(found, label, 3)))
    expected = bootstrap_intervals(np.stack(counts), [str(index // 2) for index in range(6)], 80)
    assert result.intervals == expected.summary
    assert tuple(item.interval for item in result.per_class) == expected.per_class
    assert set(result.intervals) == {"mIoU", "mF1", "OA", "AA", "mPrecision", "kappa", "fwIoU", "bIoU"}
    low, high = result.intervals["mIoU"]
    assert low < (result.scores.mean_iou or 0) < high


def test_tiles_of_one_location_are_drawn_together_whatever_their_files(tmp_path: Path) -> None:
    catalog = plant(tmp_path, parts=1, images=4)
    result = evaluate_catalog(Brightest(), catalog.with_columns(location_id=["here", "there", "here", None]), bootstrap=80)
    assert result.resampling is not None
    assert (result.resampling.unit, result.resampling.units) == ("location", 3)
    apart = evaluate_catalog(Brightest(), catalog, bootstrap=80)
    assert apart.resampling is not None
    assert (apart.resampling.unit, apart.resampling.units) == ("tile", 4)
    counts = []
    for index in range(4):
        label, found, _ = truths(tmp_path, index, 0)
        matrix = np.bincount(label[label != 255].astype(int) * 3 + found[label != 255], minlength=9).reshape(3, 3)
        counts.append(class_counts(matrix, boundary_counts(found, label, 3)))
    assert result.intervals == bootstrap_intervals(np.stack(counts), ["a", "b", "a", "c"], 80).summary
    assert result.intervals != apart.intervals


def test_images_that_are_one_tile_each_are_not_told_twice(tmp_path: Path) -> None:
    result = evaluate_catalog(Brightest(), plant(tmp_path, parts=1), bootstrap=20)
    assert result.images == ()
    assert result.resampling is not None
    assert result.resampling.unit == "tile"
    assert evaluate_catalog(Brightest(), plant(tmp_path, parts=1, images=1)).intervals == {}


def test_everything_beside_the_scores_can_be_left_out(tmp_path: Path) -> None:
    catalog = plant(tmp_path / "data")
    result = evaluate_catalog(Brightest(), catalog, out=tmp_path / "out", boundary_share=0, calibration_bins=0, bootstrap=0, gallery=0)
    assert (result.calibration, result.intervals, result.resampling, result.scores.mean_boundary_iou) == (None, {}, None, None)
    assert {(item.boundary_iou, item.interval) for item in result.per_class} == {(None, None)}
    full = evaluate_catalog(Brightest(), catalog)
    assert result.scores == full.scores.model_copy(update={"mean_boundary_iou": None})
    for wrong in ({"boundary_share": 1.0}, {"boundary_share": -0.1}, {"calibration_bins": -1}, {"bootstrap": -1}):
        with pytest.raises(UsageError, match="expected"):
            evaluate_catalog(Brightest(), catalog, **wrong)


def test_the_table_of_tiles_joins_the_catalog(tmp_path: Path) -> None:
    catalog = plant(tmp_path / "data")
    result = evaluate_catalog(Brightest(), catalog, out=tmp_path / "out", gallery=0)
    rows = list(csv.DictReader((tmp_path / "out" / "tiles.csv").open()))
    assert list(rows[0]) == ["tile_id", "image", "pixels", "mIoU", "OA", "bIoU", "iou/a", "iou/b", "iou/c"]
    assert [row["tile_id"] for row in rows] == [tile.tile_id for tile in result.tiles]
    for row, tile in zip(rows, result.tiles, strict=True):
        index, part = map(int, tile.tile_id.split("-"))
        label, found, _ = truths(tmp_path / "data", index, part)
        found = np.where(label == 255, 255, found)
        ious = [((label == k) & (found == k)).sum() / ((label == k) | (found == k)).sum() for k in range(3)]
        assert [float(row[f"iou/{name}"]) for name in "abc"] == pytest.approx(ious, rel=1e-5)
        assert (row["image"], int(row["pixels"])) == (f"image{index}.png", tile.pixels)
        assert float(row["mIoU"]) == pytest.approx(tile.mean_iou, rel=1e-5)


def test_what_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    evaluate_catalog(Brightest(), plant(tmp_path / "data"), out=tmp_path / "out", gallery=1)
    tree = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for key in ("intervals", "resampling", "calibration", "boundary_share", "images", "inference", "model_hash"):
        del tree[key]
    del tree["scores"]["bIoU"], tree["gallery"][0]["confidence"]
    for item in tree["per_class"]:
        del item["boundary_iou"], item["interval"]
    (tmp_path / "old.json").write_text(json.dumps(tree))
    old = Evaluation.read(tmp_path / "old.json")
    assert (old.inference, old.model_hash) == (None, None)
    assert (old.scores.mean_boundary_iou, old.calibration, old.images, old.gallery[0].confidence) == (None, None, (), None)
    assert old.scores.mean_iou == Evaluation.read(tmp_path / "out").scores.mean_iou


def test_evaluations_are_compared_by_their_boundaries_too(tmp_path: Path) -> None:
    first = evaluate_catalog(Brightest(), plant(tmp_path))
    worse = first.model_copy(update={"scores": first.scores.model_copy(update={"mean_boundary_iou": 0.01})})
    found = compare({"worse": [worse], "first": [first]}, metric="bIoU")
    assert found.groups[1].values == (first.scores.mean_boundary_iou,)
    assert found.pairs[0].first == "first"
    with pytest.raises(DataError, match=r"boundary_share 0\.02, 0\.05; evaluate with one"):
        compare({"first": [first], "wide": [evaluate_catalog(Brightest(), plant(tmp_path), boundary_share=0.05)]}, metric="bIoU")


def test_the_worst_tiles_are_drawn_beforehand_and_none_twice(tmp_path: Path) -> None:
    scored = [
        TileScore(tile_id=str(place), mean_iou=value, overall_accuracy=1, pixels=9) for place, value in enumerate((0.9, 0.1, 0.5, 0.2, 0.7))
    ]
    assert choose(scored, 0, worst=2) == [1, 3]
    assert choose(scored, 2, worst=2) == [1, 3, 2, 0]
    assert choose(scored, 9, worst=9) == [1, 3, 2, 4, 0]
    result = evaluate_catalog(Brightest(), plant(tmp_path / "data"), out=tmp_path / "out", gallery=0, gallery_worst=2)
    ranked = sorted(result.tiles, key=lambda tile: tile.mean_iou or 0)
    assert [entry.tile_id for entry in result.gallery] == [tile.tile_id for tile in ranked[:2]]


def test_validation_measures_nothing_more_than_it_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("not needed in passing")

    for name in ("boundary_counts", "class_counts", "CalibrationHistogram", "coarse"):
        monkeypatch.setattr(measure, name, refuse)
    assert validation_scores(Brightest(), plant(tmp_path))["mIoU"] > 0
    with pytest.raises(AssertionError, match="not needed"):
        evaluate_catalog(Brightest(), plant(tmp_path))


def test_names_of_images_are_shortened_to_what_tells_them_apart() -> None:
    assert short_names(["/d/a/1.tif", "/d/a/2.tif", "/d/b/1.tif"]) == ["a/1.tif", "a/2.tif", "b/1.tif"]
    assert short_names(["https://x.org/a/1.tif", "https://x.org/a/1.tif"]) == ["1.tif", "1.tif"]
    assert short_names(["/d/1.tif", "s3://bucket/1.tif"]) == ["/d/1.tif", "s3://bucket/1.tif"]


def test_memory_does_not_grow_with_the_number_of_tiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    side, tiles = 64, 120
    scheme = ClassScheme(name="many", classes=tuple(LandClass(name=f"c{index}", colour=(0, 0, index)) for index in range(16)))
    tile = plant(tmp_path, parts=1, images=1).tile(0)

    def many(*_: Any) -> Iterator[Sample]:
        for index in range(tiles):
            random = np.random.default_rng(index)
            pixels = Pixels(random.integers(0, 255, (3, side, side), dtype=np.uint8), np.ones((side, side), dtype=bool))
            named = type(tile)(f"t{index}", f"image{index}", Window(0, 0, side, side), *[getattr(tile, name) for name in LATER])
            yield Sample(named, pixels, random.integers(0, 16, (side, side), dtype=np.uint8))

    monkeypatch.setattr(measure, "read_samples", many)

    class Widened(Brightest):
        def forward(self, image: Tensor) -> Tensor:
            return torch.cat([image] * 6, dim=1)[:, :16]

    detail = Detail(0.02, 15, per_tile=True, keep_bytes=0)
    inference = Inference(Widened(scheme), side, 0, 4, "cpu", "32")
    columns = {"tile_id": [f"t{index}" for index in range(tiles)], "location_id": [None] * tiles}
    catalog = SimpleNamespace(__len__=lambda: tiles, fingerprint=lambda: "x", counts=lambda _: {}, column=columns.__getitem__)
    tracemalloc.start()
    measured = measure.measure(inference, catalog, detail)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Counts of 16 classes are 320 bytes a tile; scores and names are some objects more. One tile's pixels alone are 12,288 bytes.
    assert kept < tiles * 3000, kept
    assert peak < kept + 40 * side * side * 16, peak
    result = summarise("m", catalog, scheme, measured, 100)
    assert len(result.tiles) == tiles


LATER = ("label", "label_kind", "sensor", "scheme", "split", "crs")


def test_pictures_of_predictions_that_were_kept_or_not_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = plant(tmp_path / "data")
    evaluate_catalog(Brightest(), catalog, out=tmp_path / "kept")
    monkeypatch.setattr(evaluate, "_KEPT_BYTES", 1)
    evaluate_catalog(Brightest(), catalog, out=tmp_path / "again")
    names = sorted(file.name for file in (tmp_path / "kept" / "gallery").iterdir())
    assert len(names) == 6 * 5
    assert all(
        (tmp_path / "kept" / "gallery" / name).read_bytes() == (tmp_path / "again" / "gallery" / name).read_bytes() for name in names
    )

"""A network that is right by construction (a pixel's class is its brightest band), so every count is known beforehand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tilth.augment.normalise import normalise
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme, LandClass, get_scheme
from tilth.errors import CatalogError, ConfigError, DataError, OutputExistsError, SensorMismatchError, UsageError
from tilth.evaluation import evaluate
from tilth.evaluation.class_group import find_classes
from tilth.evaluation.evaluate import evaluate_catalog, validation_scores
from tilth.evaluation.gallery import CORRECT, IGNORED, MAX_SIDE_PX, PICTURES, WRONG, choose
from tilth.evaluation.result import Evaluation, GalleryEntry, TileScore
from tilth.imagery.picture import NO_DATA_GREY
from tilth.imagery.read import read_label, read_pixels
from tilth.models.identity import model_hash
from tilth.models.inference import predict_tile
from tilth.prediction.scene import predict_scene
from tilth.sensors import get_sensor

SENSOR = get_sensor("rgb")
SCHEME = ClassScheme(
    name="primary",
    classes=(
        LandClass(name="brick", colour=(200, 60, 40)),
        LandClass(name="grass", colour=(60, 160, 60)),
        LandClass(name="water", colour=(40, 80, 200)),
    ),
)


class Brightest(nn.Module):
    """Keeps the Segmenter contract with one 1 x 1 convolution; batch norm and dropout make its mode matter."""

    def __init__(self, scheme: ClassScheme = SCHEME) -> None:
        super().__init__()
        self.sensor, self.scheme = SENSOR, scheme
        self.config = SimpleNamespace(network=SimpleNamespace(title="brightest + none"), model_dump=lambda mode: {})
        self.normalisation = nn.BatchNorm2d(3, affine=False)
        self.dropout = nn.Dropout(0.9)
        self.layer = nn.Conv2d(3, len(scheme), 1, bias=False)
        self.layer.weight.data = torch.eye(3)[: len(scheme), :, None, None].clone()

    def normalise(self, stored: Tensor, valid: Tensor | None = None) -> Tensor:
        return normalise(stored, valid, self.sensor)

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(self.dropout(self.normalisation(image)))


class Tiles:
    """Writes tiles whose image shows given classes and whose label says given ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, seen: np.ndarray, label: np.ndarray | None, valid: np.ndarray | None = None, **columns: Any) -> None:
        image = (np.eye(3, dtype=np.uint8) * 180 + 40)[seen]
        if valid is not None:
            image = np.dstack([image, valid.astype(np.uint8) * 255])
        Image.fromarray(image).save(self.folder / f"{name}.png")
        row = {"tile_id": name, "image": str(self.folder / f"{name}.png"), "window": (0, 0, *seen.shape[::-1]), "sensor": "rgb"}
        if label is not None:
            Image.fromarray(label.astype(np.uint8)).save(self.folder / f"{name}_label.png")
            row |= {"label": str(self.folder / f"{name}_label.png"), "label_kind": "clean", "scheme": SCHEME.name}
        self.rows.append(row | columns)

    def catalog(self, scheme: ClassScheme = SCHEME, sensor: Any = SENSOR) -> Catalog:
        return Catalog.from_rows(self.rows, sensors={sensor.name: sensor}, schemes={scheme.name: scheme})


@pytest.fixture
def tiles(tmp_path: Path) -> Tiles:
    (tmp_path / "data").mkdir()
    return Tiles(tmp_path / "data")


def pictures(entry: GalleryEntry) -> list[str]:
    """Paths of the pictures of a tile."""
    return [getattr(entry, kind) for kind in PICTURES]


def draw(seed: int, height: int, width: int, wrong: float) -> tuple[np.ndarray, np.ndarray]:
    """What is seen, and a label that differs from it in a share of the pixels and is 255 in a tenth."""
    random = np.random.default_rng(seed)
    seen = random.integers(0, 3, (height, width))
    label = np.where(random.random(seen.shape) < wrong, (seen + 1) % 3, seen)
    return seen, np.where(random.random(seen.shape) < 0.1, 255, label)


def test_counts_equal_a_loop_over_tiles_of_any_size_with_ignored_and_invalid_pixels(tiles: Tiles) -> None:
    expected, ignored = np.zeros((3, 3), dtype=int), 0
    for index, (height, width) in enumerate([(37, 53), (64, 31), (1, 9), (70, 70)]):
        seen, label = draw(index, height, width, wrong=0.3)
        valid = np.random.default_rng(index).random(seen.shape) > 0.2
        tiles.add(f"t{index}", seen, label, valid, split="val" if index else "test")
        for found, reference, there in zip(seen.ravel(), label.ravel(), valid.ravel(), strict=True):
            if there and reference != 255:
                expected[reference, found] += 1
            else:
                ignored += 1
    seen, _ = draw(9, 8, 8, 0)
    tiles.add("without label", seen, None)
    told: list[tuple[int, int]] = []
    result = evaluate_catalog(Brightest(), tiles.catalog(), window=32, overlap=8, progress=lambda *done: told.append(done))
    assert np.array_equal(result.confusion, expected)
    assert (result.pixels, result.ignored_pixels) == (expected.sum(), ignored)
    assert [tile.tile_id for tile in result.tiles] == ["t0", "t1", "t2", "t3"]
    assert sum(tile.pixels for tile in result.tiles) == result.pixels
    assert result.split == ("test", "val")
    assert (result.model, result.scheme, result.classes) == ("brightest + none", "primary", ("brick", "grass", "water"))
    assert result.catalog_fingerprint == tiles.catalog().labelled().fingerprint()
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result.gallery == ()


def test_windows_of_a_larger_image_are_evaluated_alone(tiles: Tiles) -> None:
    seen, label = draw(1, 40, 60, wrong=0.5)
    tiles.add("whole", seen, label)
    tiles.rows[0]["window"] = (11, 5, 20, 17)
    result = evaluate_catalog(Brightest(), tiles.catalog())
    part = label[5:22, 11:31]
    assert result.pixels == (part != 255).sum()
    assert sum(result.confusion[k][k] for k in range(3)) == (part == seen[5:22, 11:31]).sum()


def test_an_all_ignored_tile_has_no_score_and_changes_no_other(tiles: Tiles) -> None:
    seen, label = draw(2, 33, 20, wrong=0.25)
    tiles.add("good", seen, label)
    alone = evaluate_catalog(Brightest(), tiles.catalog())
    tiles.add("void", seen, np.full_like(label, 255))
    both = evaluate_catalog(Brightest(), tiles.catalog())
    assert both.scores == alone.scores
    assert both.tiles[1] == TileScore(tile_id="void", mean_iou=None, overall_accuracy=None, pixels=0)
    assert both.ignored_pixels == alone.ignored_pixels + label.size


def test_a_catalog_without_a_counted_pixel_gives_null_everywhere(tiles: Tiles, tmp_path: Path) -> None:
    seen, label = draw(2, 12, 13, wrong=0)
    tiles.add("clouds", seen, label, valid=np.zeros(seen.shape, dtype=bool))
    result = evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(tree["scores"].values()) == {None}
    assert (tree["pixels"], tree["ignored_pixels"], tree["gallery"]) == (0, 156, [])
    assert "NaN" not in result.to_json()
    assert validation_scores(Brightest(), tiles.catalog()) == {}


def test_a_class_without_reference_is_absent_and_its_false_alarms_are_kept(tiles: Tiles) -> None:
    seen = np.array([[0, 0, 1, 2]] * 4)
    tiles.add("no water", seen, np.array([[0, 0, 1, 1]] * 4))
    result = evaluate_catalog(Brightest(), tiles.catalog())
    water = result.per_class[2]
    assert (water.absent, water.iou, water.predicted_pixels) == (True, None, 4)
    assert result.per_class[1].recall == 0.5
    assert result.scores.mean_iou == 0.75
    assert validation_scores(Brightest(), tiles.catalog()) == {
        "mIoU": 0.75,
        "mF1": pytest.approx((1 + 2 / 3) / 2),
        "OA": 0.75,
        "iou/brick": 1.0,
        "iou/grass": 0.5,
        "validation_loss": pytest.approx(_cross_entropy_of(tiles, seen, np.array([[0, 0, 1, 1]] * 4)), rel=1e-5),
    }


def _cross_entropy_of(tiles: Tiles, seen: np.ndarray, label: np.ndarray) -> float:
    """Mean cross-entropy over pixels, tile by tile and without windows; 255 counts nowhere."""
    model = Brightest().eval()
    with torch.no_grad():
        stored = torch.from_numpy((np.eye(3, dtype=np.uint8) * 180 + 40)[seen]).permute(2, 0, 1)[None]
        logits = model(model.normalise(stored))
    return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(label)[None].long(), ignore_index=255))


def test_validation_loss_is_the_cross_entropy_of_counted_pixels(tiles: Tiles) -> None:
    losses, pixels = [], []
    for index, size in enumerate([(9, 14), (21, 6)]):
        seen, label = draw(index, *size, wrong=0.3)
        tiles.add(f"t{index}", seen, label)
        pixels.append(int((label != 255).sum()))
        losses.append(_cross_entropy_of(tiles, seen, label) * pixels[-1])
    tiles.add("nothing", np.zeros((5, 5), dtype=int), np.full((5, 5), 255))
    found = validation_scores(Brightest(), tiles.catalog())
    assert found["validation_loss"] == pytest.approx(sum(losses) / sum(pixels), rel=1e-5)


def test_published_conventions_are_an_option_and_our_own_scores_stay(tiles: Tiles) -> None:
    """Finding 16: an absent class that is never predicted is perfect there, and no class here."""
    tiles.add("no water", np.array([[0, 0, 1, 0]] * 4), np.array([[0, 0, 1, 1]] * 4))
    plain, both = (evaluate_catalog(Brightest(), tiles.catalog(), published=wanted) for wanted in (False, True))
    assert plain.published is None
    assert both.scores == plain.scores
    assert both.scores.mean_recall == 0.75
    assert both.scores.mean_precision == pytest.approx((2 / 3 + 1) / 2)
    assert both.published == pytest.approx(
        {
            "OA": 0.75,
            "AA (published)": (2 / 3 + 1 + 1) / 3,
            "mIoU": (2 / 3 + 1 / 2 + 1) / 3,
            "mF1": (4 / 5 + 2 / 3 + 1) / 3,
            "mPrecision": (2 / 3 + 1 + 1) / 3,
            "mRecall": (1 + 1 / 2 + 1) / 3,
        }
    )


def test_class_that_is_there_and_never_predicted_has_precision_0_for_us_and_1_in_the_tables(tiles: Tiles) -> None:
    tiles.add("no grass", np.zeros((2, 4), dtype=int), np.array([[0, 0, 1, 1]] * 2))
    found = evaluate_catalog(Brightest(), tiles.catalog(), published=True)
    assert found.scores.mean_precision == 0.25
    assert found.published is not None
    assert found.published["AA (published)"] == pytest.approx((0.5 + 1 + 1) / 3)


def test_means_over_some_classes_count_the_pixels_of_all(tiles: Tiles) -> None:
    """Three of four bricks are found, one is taken for grass; of two pixels of grass one is found; water is absent."""
    tiles.add("no water", np.array([[0, 0, 0, 1, 1, 0]]), np.array([[0, 0, 0, 0, 1, 1]]))
    plain, some = (evaluate_catalog(Brightest(), tiles.catalog(), over=over) for over in ((), ("water", "brick")))
    assert plain.group is None
    assert some.scores == plain.scores
    assert some.group is not None
    assert (some.group.name, some.group.classes, some.group.absent) == (None, ("brick", "water"), ("water",))
    expected = {"mIoU": 3 / 5, "mF1": 6 / 8, "AA": 3 / 4, "mPrecision": 3 / 4}
    assert {name: some.group.means[name] for name in expected} == pytest.approx(expected)
    assert Evaluation.model_validate_json(some.to_json()) == some
    with pytest.raises(ConfigError, match="over: 'watr' is no class of scheme 'primary' and no group of its classes; did you mean 'water'"):
        evaluate_catalog(Brightest(), tiles.catalog(), over=("watr",))


def test_group_of_a_built_in_scheme_is_known_by_its_name() -> None:
    names = get_scheme("minifrance").names
    assert len(find_classes("minifrance", names, ("paper12",))) == 12
    mixed = find_classes("minifrance", names, ("complex and mixed cultivation patterns", "paper12", "water"))
    assert mixed == tuple(name for name in names if not name.startswith("orchards"))
    with pytest.raises(ConfigError, match="paper12"):
        find_classes("gid-15", get_scheme("gid-15").names, ("paper12",))


def test_a_scheme_of_one_class_works(tiles: Tiles) -> None:
    scheme = ClassScheme(name=SCHEME.name, classes=SCHEME.classes[:1])
    tiles.add("one", np.zeros((5, 5), dtype=int), np.zeros((5, 5)))
    result = evaluate_catalog(Brightest(scheme), tiles.catalog(scheme))
    assert (result.confusion, result.scores.mean_iou, result.scores.kappa) == (((25,),), 1.0, None)


def test_metrics_json_has_the_agreed_layout_and_reads_back(tiles: Tiles, tmp_path: Path) -> None:
    for index in range(3):
        tiles.add(f"t{index}", *draw(index, 20, 21, wrong=0.1 * index), split="test")
    result = evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "out", model="runs/one/model", gallery=2)
    assert Evaluation.read(tmp_path / "out") == result
    tree = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(tree) == [
        *("schema_version", "model", "catalog_fingerprint", "split", "scheme", "classes", "colours", "confusion"),
        *("scores", "per_class", "tiles", "pixels", "ignored_pixels", "seconds", "gallery"),
        *("intervals", "resampling", "calibration", "boundary_share", "images", "inference", "model_hash", "published", "group"),
    ]
    assert list(tree["scores"]) == ["mIoU", "mF1", "OA", "AA", "mPrecision", "kappa", "fwIoU", "bIoU"]
    fields = ["name", "iou", "f1", "precision", "recall", "reference_pixels", "predicted_pixels", "absent", "boundary_iou", "interval"]
    assert list(tree["per_class"][0]) == fields
    assert list(tree["tiles"][0]) == ["tile_id", "mIoU", "OA", "pixels"]
    assert list(tree["gallery"][0]) == ["tile_id", "mIoU", "image", "label", "prediction", "errors", "confidence"]
    assert (tree["schema_version"], tree["model"], tree["colours"][0]) == (1, "runs/one/model", [200, 60, 40])
    assert [entry["tile_id"] for entry in tree["gallery"]] == ["t2", "t0"]
    assert tree["gallery"][1]["errors"] == "gallery/1_errors.png"


def test_how_and_what_was_measured_is_recorded(tiles: Tiles) -> None:
    tiles.add("one", *draw(0, 20, 21, wrong=0.1))
    result = evaluate_catalog(Brightest(), tiles.catalog(), window=48, overlap=16, flips="horizontal", precision="bf16")
    assert result.inference is not None
    assert result.inference.model_dump() == {"window": 48, "overlap": 16, "flips": "horizontal", "precision": "bf16-mixed"}
    assert result.model_hash == model_hash(Brightest())
    other = Brightest()
    other.layer.weight.data[0, 0] = 2
    assert evaluate_catalog(other, tiles.catalog()).model_hash != result.model_hash


@pytest.mark.parametrize("stopped", ["write_gallery", "tiles_csv"])
def test_an_interrupted_evaluation_leaves_no_scores_beside_pictures_of_another(
    tiles: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: str
) -> None:
    tiles.add("one", *draw(0, 9, 9, wrong=0.1))
    evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "out")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, stopped, stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()
    evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "draw_tile", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "out")
    # Nothing was replaced yet.
    assert (tmp_path / "out" / "metrics.json").exists()


def test_gallery_pictures_show_what_they_say(tiles: Tiles, tmp_path: Path) -> None:
    seen = np.array([[0, 1, 2, 2], [0, 1, 1, 0]])
    label = np.array([[0, 1, 255, 1], [0, 1, 1, 1]])
    valid = np.array([[1, 1, 1, 1], [0, 1, 1, 1]], dtype=bool)
    tiles.add("small", seen, label, valid)
    evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "out")
    shown = {
        kind: np.asarray(Image.open(tmp_path / "out" / "gallery" / f"0_{kind}.png")) for kind in ("image", "label", "prediction", "errors")
    }
    colours = np.array([*SCHEME.colours])
    assert shown["image"][0, 0].tolist() == [220, 40, 40]
    assert shown["label"][0, 1].tolist() == colours[1].tolist()
    assert shown["prediction"][0, 3].tolist() == colours[2].tolist()
    expected = np.array([[CORRECT, CORRECT, IGNORED, WRONG], [IGNORED, CORRECT, CORRECT, WRONG]])
    assert np.array_equal(shown["errors"], expected)
    confidence = np.asarray(Image.open(tmp_path / "out" / "gallery" / "0_confidence.png"))
    probabilities = predict_tile(Brightest(), read_pixels(str(tiles.folder / "small.png")), window=32, overlap=0).amax(0).numpy()
    assert confidence[1, 0] == NO_DATA_GREY
    assert np.array_equal(confidence[valid], np.rint(probabilities * 255)[valid])


def test_gallery_pictures_are_shrunk_together_and_never_enlarged(tiles: Tiles, tmp_path: Path) -> None:
    tiles.add("wide", *draw(0, 301, 1000, wrong=0.5))
    tiles.add("small", *draw(1, 7, 5, wrong=0))
    result = evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "out")
    sizes = {entry.tile_id: {Image.open(tmp_path / "out" / path).size for path in pictures(entry)} for entry in result.gallery}
    assert sizes == {"wide": {(MAX_SIDE_PX, 116)}, "small": {(5, 7)}}


def test_a_shorter_gallery_replaces_a_longer_one_and_leaves_other_files_alone(tiles: Tiles, tmp_path: Path) -> None:
    for index in range(4):
        tiles.add(f"t{index}", *draw(index, 9, 9, wrong=0.1 * index))
    out = tmp_path / "out"
    evaluate_catalog(Brightest(), tiles.catalog(), out=out, gallery=4)
    (out / "gallery" / "my.png").write_bytes(b"mine")
    evaluate_catalog(Brightest(), tiles.catalog(), out=out, gallery=1)
    kinds = ("confidence", "errors", "image", "label", "prediction")
    assert sorted(file.name for file in (out / "gallery").iterdir()) == [*(f"0_{kind}.png" for kind in kinds), "my.png"]


def test_pictures_of_tiles_that_were_not_kept_are_predicted_again(tiles: Tiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(3):
        tiles.add(f"t{index}", *draw(index, 16, 18, wrong=0.2))
    evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "kept")
    monkeypatch.setattr(evaluate, "_KEPT_BYTES", 300)  # room for one tile
    evaluate_catalog(Brightest(), tiles.catalog(), out=tmp_path / "again")
    for file in (tmp_path / "kept" / "gallery").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / "gallery" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, []), (1, ["b"]), (2, ["b", "d"]), (3, ["b", "c", "d"]), (4, ["b", "a", "c", "d"]), (9, ["b", "a", "c", "d"])],
)
def test_the_gallery_goes_evenly_from_worst_to_best(number: int, expected: list[str]) -> None:
    ious = {"d": 0.9, "c": 0.5, "void": None, "b": 0.1, "a": 0.5}
    scored = [TileScore(tile_id=name, mean_iou=value, overall_accuracy=value, pixels=9) for name, value in ious.items()]
    assert [scored[place].tile_id for place in choose(scored, number)] == expected


def test_validation_agrees_with_evaluation_and_leaves_every_mode_as_it_was(tiles: Tiles) -> None:
    tiles.add("one", *draw(4, 40, 25, wrong=0.4))
    model = Brightest().train()
    model.normalisation.eval()  # frozen, as in fine-tuning
    before = [module.training for module in model.modules()]
    found = validation_scores(model, tiles.catalog(), window=32, overlap=4)
    assert [module.training for module in model.modules()] == before
    assert int(model.normalisation.num_batches_tracked) == 0
    result = evaluate_catalog(Brightest().eval(), tiles.catalog())
    assert found["mIoU"] == result.scores.mean_iou
    assert found["iou/water"] == result.per_class[2].iou
    loss = model(torch.zeros(1, 3, 4, 4)).sum()
    loss.backward()
    assert model.layer.weight.grad is not None


class Surrounded(Brightest):
    """Adds the mean of all it is shown, padding included, so that what surrounds an image matters."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) - 9 * image.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(("height", "width"), [(20, 27), (40, 9), (64, 64)])
def test_a_small_image_gets_the_same_classes_from_evaluation_and_prediction(tiles: Tiles, tmp_path: Path, height: int, width: int) -> None:
    seen, _ = draw(6, height, width, wrong=0)
    seen[: height // 2] = 0  # one-sided, so that padding changes the mean
    tiles.add("small", seen, seen)
    scene = predict_scene(Surrounded(), tiles.folder / "small.png", tmp_path / "map.tif", window=128, overlap=32)
    mapped = read_label(str(scene.path))
    probabilities = predict_tile(Surrounded(), read_pixels(str(tiles.folder / "small.png")), window=128, overlap=32)
    assert np.array_equal(mapped, probabilities.argmax(0).numpy())
    tiles.rows.clear()
    tiles.add("small", seen, mapped)
    assert evaluate_catalog(Surrounded(), tiles.catalog(), window=128, overlap=32).scores.overall_accuracy == 1


def test_unusable_validation_tiles_are_left_out_told_and_counted(tiles: Tiles) -> None:
    tiles.add("good", *draw(4, 20, 25, wrong=0.4))
    alone = validation_scores(Brightest(), tiles.catalog())
    for name in ("torn", "gone", "wrong label", "other size", "last"):
        tiles.add(name, *draw(5, 20, 25, wrong=0.4))
    catalog = tiles.catalog()
    (tiles.folder / "torn.png").write_bytes((tiles.folder / "torn.png").read_bytes()[:60])
    (tiles.folder / "gone.png").unlink()
    Image.fromarray(np.full((20, 25), 7, np.uint8)).save(tiles.folder / "wrong label_label.png")
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(tiles.folder / "other size.png")
    (tiles.folder / "last_label.png").unlink()
    told: dict[str, str] = {}
    found = validation_scores(Brightest(), catalog, on_bad=told.__setitem__)
    assert list(told) == ["torn", "gone", "wrong label", "other size", "last"]
    assert all(name in reason for name, reason in told.items())
    assert found == {**alone, "unreadable_tiles": 5}
    assert validation_scores(Brightest(), catalog) == found
    with pytest.raises(DataError, match=r"torn\.png"):
        evaluate_catalog(Brightest(), catalog)
    with pytest.raises(DataError, match=r"none of the 5 validation tiles can be used; the first: .*torn\.png.*tilth catalog check"):
        validation_scores(Brightest(), catalog.take([1, 2, 3, 4, 5]))


def test_a_network_that_answers_nan_is_no_matter_of_tiles(tiles: Tiles) -> None:
    tiles.add("one", *draw(0, 6, 6, wrong=0))
    tiles.add("two", *draw(1, 6, 6, wrong=0))
    model = Brightest()
    model.layer.weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match="tile 'one': the model's output is not finite"):
        validation_scores(model, tiles.catalog())


def test_modes_are_restored_after_a_failure_too(tiles: Tiles) -> None:
    tiles.add("wrong", np.zeros((4, 4), dtype=int), np.full((4, 4), 7))
    model = Brightest().train()
    model.normalisation.eval()
    with pytest.raises(DataError, match=r"tile 'wrong', .*wrong_label\.png: label value 7 is not a class: expected 0 to 2"):
        validation_scores(model, tiles.catalog())
    assert [module.training for module in model.modules()] == [True, False, True, True]


def test_a_catalog_without_labels_is_refused(tiles: Tiles) -> None:
    tiles.add("plain", np.zeros((4, 4), dtype=int), None)
    with pytest.raises(CatalogError, match="none of the 1 tiles has a label"):
        evaluate_catalog(Brightest(), tiles.catalog())


def test_another_sensor_is_refused_with_the_difference(tiles: Tiles) -> None:
    tiles.add("one", *draw(0, 4, 4, wrong=0))
    brighter = SENSOR.model_copy(update={"bands": (SENSOR.bands[0].model_copy(update={"scale": 1.0}), *SENSOR.bands[1:])})
    with pytest.raises(SensorMismatchError, match=r"band 'red' has scale 1\.0 instead of 0\.0039"):
        evaluate_catalog(Brightest(), tiles.catalog(sensor=brighter))
    tiles.rows[0]["sensor"] = "rgbn"
    with pytest.raises(SensorMismatchError, match="'rgbn', the model wants 'rgb': bands red, green, blue, nir instead of red, green, blue"):
        evaluate_catalog(Brightest(), tiles.catalog(sensor=get_sensor("rgbn")))


def test_other_classes_are_refused_and_another_name_or_palette_is_not(tiles: Tiles) -> None:
    tiles.add("one", *draw(0, 4, 4, wrong=0))
    swapped = ClassScheme(name="primary", classes=SCHEME.classes[::-1])
    with pytest.raises(
        CatalogError, match=r"scheme 'primary' \(water, grass, brick\), the model predicts 'primary' \(brick, grass, water\)"
    ):
        evaluate_catalog(Brightest(), tiles.catalog(swapped))
    repainted = ClassScheme(
        name="folder_of_the_labels", classes=tuple(LandClass(name=item.name, colour=(1, 2, 3)) for item in SCHEME.classes)
    )
    tiles.rows[0]["scheme"] = repainted.name
    assert evaluate_catalog(Brightest(), tiles.catalog(repainted)).colours == SCHEME.colours


def test_images_and_labels_that_do_not_fit_are_named(tiles: Tiles) -> None:
    seen, label = draw(0, 6, 6, wrong=0)
    tiles.add("one", seen, label)
    Image.fromarray(np.zeros((6, 6), dtype=np.uint8)).save(tiles.folder / "one.png")
    with pytest.raises(SensorMismatchError, match=r"tile 'one': .*one\.png has 1 bands, sensor 'rgb' has 3"):
        evaluate_catalog(Brightest(), tiles.catalog())


def test_a_network_that_answers_nan_is_not_taken_at_its_word(tiles: Tiles) -> None:
    tiles.add("one", *draw(0, 6, 6, wrong=0))
    model = Brightest()
    model.layer.weight.data.fill_(float("nan"))
    with pytest.raises(DataError, match="tile 'one': the model's output is not finite"):
        evaluate_catalog(model, tiles.catalog())


def test_a_failing_evaluation_leaves_nothing_behind(tiles: Tiles, tmp_path: Path) -> None:
    tiles.add("one", *draw(0, 6, 6, wrong=0))
    tiles.add("two", *draw(1, 6, 6, wrong=0))
    catalog = tiles.catalog()
    with pytest.raises(UsageError, match="overlap"):
        evaluate_catalog(Brightest(), catalog, out=tmp_path / "out", window=8, overlap=8)
    (tiles.folder / "two.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"two\.png"):
        evaluate_catalog(Brightest(), catalog, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError, match="is a file"):
        evaluate_catalog(Brightest(), catalog, out=tmp_path / "file")


def test_a_real_network_is_measured_whatever_the_batch_size(tiles: Tiles) -> None:
    from tilth.models.config import NetworkConfig
    from tilth.models.segmenter import build_segmenter

    tiles.add("one", *draw(3, 45, 70, wrong=0.2))
    model = build_segmenter(NetworkConfig(encoder="resnet10t"), SENSOR, SCHEME).eval()
    one, four = (evaluate_catalog(model, tiles.catalog(), window=32, overlap=8, batch_size=size) for size in (1, 4))
    # Rounding may differ between batch sizes, so a pixel at the edge of two classes may too.
    assert np.abs(np.subtract(one.confusion, four.confusion)).sum() <= 4
    assert one.model == "resnet10t + unet"

"""How sure one may be that given labels are right: of two branches, of one model, on disk, and how well it finds wrong labels."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import tilth
from support.curation_world import SCHEME, picture
from support.dying import die_at_sync
from support.labelling_calls import files
from support.training_sample import NETWORK
from tilth.catalog.confidence import confidence_place, read_confidence
from tilth.catalog.table import Catalog
from tilth.classes import ClassScheme
from tilth.cli.main import main
from tilth.errors import CatalogError, DataError, OutputExistsError, SensorMismatchError, UsageError
from tilth.imagery.raster import Pixels
from tilth.imagery.read import read_info, read_label, read_pixels
from tilth.imagery.write import write_raster
from tilth.labelling.trust import entangled, trust_tile, voices
from tilth.labelling.wrong_labels import auroc, count_right_and_wrong
from tilth.models.config import FusionConfig
from tilth.models.fused import branch_segmenter
from tilth.models.inference import evaluating, predict_tile
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor

RGB = get_sensor("rgb")
BRANCHES = {"red": ("red",), "others": ("green", "blue")}
TILES, SHARD = 7, 3
GRID: dict[str, Any] = {"crs": "EPSG:32633", "transform": (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0)}
INFERENCE = {"window": 64, "device": "cpu"}


def branched(**more: Any) -> Segmenter:
    """A model with branches, sure enough of what it says that its branches differ."""
    network = NETWORK.model_copy(update={"fusion": FusionConfig(branches=BRANCHES, **more)})
    model = build_segmenter(network, RGB, SCHEME, seed=3).eval()
    with torch.no_grad():
        for parameter in model.network.segmentation_head.parameters():
            parameter.mul_(6)
    return model


def plant(folder: Path) -> Catalog:
    """Seven places of odd sizes: one is torn, one has no label at all, one has no tile label, one no reference; georeferenced but one."""
    rows = []
    for number in range(TILES):
        draw = np.random.default_rng(number)
        height, width = 48 + number, 40 + 3 * number
        clean = draw.integers(0, 4, (-(-height // 8), -(-width // 8))).repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)
        clean[:, -4:] = 255
        given = np.where(draw.random(clean.shape) < 0.3, draw.integers(0, 4, clean.shape), clean).astype(np.uint8)
        given[:5] = 255
        suffix = ".png" if number == 6 else ".tif"
        for kind, pixels in (("image", picture(number, height, width).transpose(2, 0, 1)), ("given", given[None]), ("clean", clean[None])):
            if kind == "given" and number == 4:
                pixels = np.full_like(pixels, 255)
            (folder / kind).mkdir(parents=True, exist_ok=True)
            if number == 6:
                Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(folder / kind / "place_6.png")
            else:
                write_raster(folder / kind / f"place_{number}.tif", pixels, **GRID)
        place = {kind: str(folder / kind / f"place_{number}{suffix}") for kind in ("image", "given", "clean")}
        rows.append(
            {"tile_id": f"t{number}", "image": place["image"], "window": (0, 0, width, height), "sensor": "rgb", "label": place["given"],
             "label_kind": "noisy", "scheme": SCHEME.name, "split": "train", "reference": None if number == 2 else place["clean"]}
        )  # fmt: skip
    (folder / "image" / "place_5.tif").write_bytes(b"no picture")
    rows.append({**rows[0], "tile_id": "bare", "label": None, "label_kind": "none", "scheme": None, "reference": None})
    return Catalog.from_rows(rows, {"rgb": RGB}, {SCHEME.name: SCHEME})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``noisy.parquet``, ``model/`` with branches; nothing in it is to be changed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trust")
    plant(folder).save(folder / "noisy.parquet")
    branched().save(folder / "model")
    return folder


def trust(place: Path, out: Path, **more: Any):
    options: dict[str, Any] = {"model": place / "model", "catalog": place / "noisy.parquet", "out": out, "inference": INFERENCE}
    return tilth.trust(**(options | {"pictures": 0, "shard_tiles": SHARD, "max_bad_share": 0.2} | more))


@pytest.fixture(scope="module")
def judged(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("judged") / "out"
    trust(place, out)
    return out


def of_label(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    return np.take_along_axis(probabilities, np.where(given == 255, 0, given)[None].astype(np.int64), 0)[0]


def test_trust_is_the_mean_of_what_branches_say_after_hearing_each_other(place, judged):
    model = Segmenter.load(place / "model")
    found = Catalog.open(judged / "catalog.parquet")
    assert found.column("tile_id") == ["t0", "t1", "t2", "t3", "t4", "t6"]
    assert found.column("label") == [
        uri for row, uri in enumerate(Catalog.open(place / "noisy.parquet").column("label")) if row not in (5, 7)
    ]
    for row, tile in enumerate(found.tiles()):
        pixels, given = read_pixels(tile.image, tile.window), read_label(tile.label)
        said = []
        for name, bands in (("red", [0]), ("others", [1, 2])):
            alone = branch_segmenter(model, name)
            said.append(of_label(predict_tile(alone, Pixels(pixels.data[bands], pixels.valid), window=64, overlap=0).numpy(), given))
        one, other = said
        expected = np.where(given == 255, 255, 100 * (one + other + 2 * one * other) / 4)
        stored_trust = read_confidence(*confidence_place(found, row))
        np.testing.assert_array_equal(stored_trust == 255, given == 255)
        assert np.abs(stored_trust - expected).max() <= 0.51
        mean = found.column("mean_trust")[row]
        assert mean is None if (given == 255).all() else mean == pytest.approx(expected[given != 255].mean() / 100, abs=1e-5)


def test_rasters_lie_on_the_grid_of_the_label(judged):
    for tile, uri in zip(
        Catalog.open(judged / "catalog.parquet").tiles(), Catalog.open(judged / "catalog.parquet").column("confidence_raster"), strict=True
    ):
        label, found = read_info(tile.label), read_info(uri)
        assert (found.width, found.height, found.crs, found.transform) == (label.width, label.height, label.crs, label.transform)
        assert Path(uri).suffix == Path(tile.label).suffix
    assert not (judged / "masks").exists()


def test_a_model_without_branches_says_how_probable_the_label_is_to_it(place, tmp_path):
    model = build_segmenter(NETWORK, RGB, SCHEME, seed=1).eval()
    model.save(tmp_path / "plain")
    result = trust(place, tmp_path / "out", model=tmp_path / "plain")
    found = Catalog.open(tmp_path / "out" / "catalog.parquet")
    tile = found.tile(0)
    expected = of_label(predict_tile(model, read_pixels(tile.image), window=64, overlap=0).numpy(), read_label(tile.label))
    stored = read_confidence(*confidence_place(found, 0))
    assert np.abs(stored[stored < 255] - 100 * expected[stored < 255]).max() <= 0.51
    assert "by model" in result.summary[0]


def test_entangled_is_worked_out_by_hand():
    assert entangled(torch.tensor([[1.0], [1.0]])).item() == 1
    assert entangled(torch.tensor([[1.0], [0.0]])).item() == 0.25
    assert entangled(torch.tensor([[0.3]])).item() == pytest.approx(0.3)
    # Joint last: it hears the mean of the others, and they do not hear it.
    assert entangled(torch.tensor([[1.0], [0.0], [0.5]]), joint=True).item() == pytest.approx((0.5 + 0 + 0.5 * 1.5 / 2) / 3)


def test_a_joint_branch_is_asked_too():
    model = branched(joint=True)
    assert list(voices(model)) == ["red", "others", "joint"]
    stored = torch.rand(1, 3, 64, 64) * 255
    with evaluating(model):
        for logits, voice in zip(model.network.branch_logits(model.normalise(stored)), voices(model).values(), strict=True):
            torch.testing.assert_close(voice(model.normalise(stored)), logits)


def test_asking_branches_leaves_the_model_as_it_was(place):
    model = branched().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for voice in voices(model).values():
        with evaluating(voice):
            voice(torch.rand(1, 3, 32, 32))
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_is_not_finite_is_a_problem_and_no_distrust():
    said = torch.full((4, 8, 8), float("nan"))
    assert "not finite" in trust_tile([said], torch.zeros(8, 8, dtype=torch.uint8))


def test_area_under_the_curve_is_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    given, reference = (draw.integers(0, 4, (50, 60)).astype(np.uint8) for _ in range(2))
    percents = np.clip(draw.normal(55 + 12 * (given == reference), 20), 0, 100).astype(np.uint8)
    percents[:3], given[5], reference[9] = 255, 255, 255
    counts = count_right_and_wrong(percents, given, reference, 4)
    counted = (percents < 255) & (given < 4) & (reference < 4)
    assert counts.sum() == counted.sum()
    right = (given == reference)[counted]
    assert auroc(counts.sum(0)) == pytest.approx(roc_auc_score(right, percents[counted]), abs=1e-12)
    one = counted & (given == 2)
    assert auroc(counts[2]) == pytest.approx(roc_auc_score((given == reference)[one], percents[one]), abs=1e-12)
    assert auroc(np.array([[0, 0], [3, 4]])) is None


def test_clean_labels_tell_how_well_wrong_ones_are_found(judged):
    record = json.loads((judged / "trust.json").read_text())
    found = Catalog.open(judged / "catalog.parquet")
    right, percents, ids = [], [], []
    for row, tile in enumerate(found.tiles()):
        if found.column("reference")[row] is None:
            continue
        given, clean, stored = (
            read_label(tile.label),
            read_label(found.column("reference")[row]),
            read_confidence(*confidence_place(found, row)),
        )
        known = (given < 255) & (clean < 255)
        right.append((given == clean)[known])
        percents.append(stored[known])
        ids.append(given[known])
    right, percents, ids = map(np.concatenate, (right, percents, ids))
    against = record["against_reference"]
    assert (against["tiles"], against["pixels"]) == (5, len(right))
    assert against["wrong_share"] == pytest.approx(1 - right.mean())
    assert against["auroc"] == pytest.approx(roc_auc_score(right, percents))
    for place, item in enumerate(against["classes"]):
        assert item["auroc"] == pytest.approx(roc_auc_score(right[ids == place], percents[ids == place]))


def test_record_and_summary_say_what_was_left_out(place, judged, tmp_path):
    record = json.loads((judged / "trust.json").read_text())
    assert (record["tiles"], record["judged"]) == (8, 6)
    assert [item["tile_id"] for item in record["not_judged"]] == ["t5"]
    assert record["model"]["branches"] == ["red", "others"]
    shutil.copytree(judged, tmp_path / "out")
    result = trust(place, tmp_path / "out", pictures=4)
    assert result.values["made"] == 0
    assert result.outputs["pictures"].is_file()
    assert result.summary[0] == "6 of 8 tiles judged (0 now), by red, others"
    assert "AUROC" in result.summary[2]


def test_the_next_training_reads_trust_as_confidence(judged):
    from tilth.catalog.check import check_catalog

    catalog = Catalog.open(judged / "catalog.parquet")
    assert all(confidence_place(catalog, row) is not None for row in range(len(catalog)))
    assert not [finding for finding in check_catalog(catalog).findings if "confidence" in repr(finding)]


@pytest.mark.parametrize("moment", [12, pytest.param(25, marks=pytest.mark.slow)])
def test_killed_judging_goes_on_to_the_same_bytes(place, judged, tmp_path, moment):
    assert die_at_sync(moment, trust, place, tmp_path / "out") == -signal.SIGKILL
    trust(place, tmp_path / "out")
    assert files(tmp_path / "out") == files(judged)


def test_a_label_that_changed_is_judged_anew_and_no_other(place, judged, tmp_path):
    here = tmp_path / "here"
    shutil.copytree(place, here)
    trust(here, here / "out")
    given = read_label(str(here / "given" / "place_1.tif"))
    write_raster(here / "given" / "place_1.tif", np.where(given == 0, 1, given).astype(np.uint8)[None], **GRID)
    assert trust(here, here / "out").values["made"] == SHARD


def test_parts_make_together_what_one_makes(place, judged, tmp_path):
    half = trust(place, tmp_path / "out", part="2/2")
    assert half.values["missing"] > 0
    assert "are left to other parts" in half.summary[0]
    assert not (tmp_path / "out" / "catalog.parquet").exists()
    trust(place, tmp_path / "out", part="1/2")
    assert files(tmp_path / "out") == files(judged)


def test_what_does_not_fit_is_refused_in_one_line(place, judged, tmp_path):
    catalog = Catalog.open(place / "noisy.parquet")
    with pytest.raises(UsageError, match="its catalog is the one to judge"):
        trust(place, judged, catalog=judged / "catalog.parquet")
    other = ClassScheme(name="two", classes=SCHEME.classes[:2])
    build_segmenter(NETWORK, RGB, other, seed=0).save(tmp_path / "two")
    with pytest.raises(CatalogError, match="map the labels to the model's scheme first"):
        trust(place, tmp_path / "out", model=tmp_path / "two")
    build_segmenter(NETWORK, get_sensor("s1"), SCHEME, seed=0).save(tmp_path / "radar")
    with pytest.raises(SensorMismatchError, match="the model wants 's1'"):
        trust(place, tmp_path / "out", model=tmp_path / "radar")
    catalog.filter(label_kind="none").save(tmp_path / "bare.parquet")
    with pytest.raises(CatalogError, match="none of the 1 tiles has a label"):
        trust(place, tmp_path / "out", catalog=tmp_path / "bare.parquet")
    with pytest.raises(DataError, match="1 of 7 tiles cannot be judged"):
        trust(place, tmp_path / "out", max_bad_share=0)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds mine\.txt and no trust that tilth made"):
        trust(place, tmp_path / "out")


def test_trust_and_labels_do_not_share_a_folder(place, judged, tmp_path):
    shutil.copytree(judged, tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="holds trust that tilth made, and no labels"):
        tilth.label(model=place / "model", catalogs=place / "noisy.parquet", out=tmp_path / "out", pictures=0, inference=INFERENCE)
    assert files(tmp_path / "out") == before


def test_two_labels_of_one_image_are_judged_each_by_itself(place, tmp_path):
    catalog = Catalog.open(place / "noisy.parquet").take([0, 1])
    other = tmp_path / "second.tif"
    write_raster(other, (read_label(catalog.column("label")[0]) + 1).clip(max=3)[None], **GRID)
    twice = {name: [catalog.column(name)[0]] * 2 for name in ("image", "window", "geometry", "reference")}
    both = catalog.with_columns(tile_id=["t0", "again"], label=[catalog.column("label")[0], str(other)], **twice)
    both.save(tmp_path / "both.parquet")
    trust(place, tmp_path / "out", catalog=tmp_path / "both.parquet")
    alone = Catalog.open(tmp_path / "both.parquet")
    found = Catalog.open(tmp_path / "out" / "catalog.parquet")
    assert len(set(found.column("confidence_raster"))) == 2
    for row, name in enumerate(("t0", "again")):
        alone.filter(tile_id=[name]).save(tmp_path / f"{name}.parquet")
        trust(place, tmp_path / name, catalog=tmp_path / f"{name}.parquet")
        wanted = Catalog.open(tmp_path / name / "catalog.parquet")
        np.testing.assert_array_equal(read_confidence(*confidence_place(found, row)), read_confidence(*confidence_place(wanted, 0)))


def test_ids_of_another_scheme_are_named(place, tmp_path):
    catalog = Catalog.open(place / "noisy.parquet").take([0, 1])
    label = tmp_path / "strange.tif"
    write_raster(label, np.full((1, 48, 40), 9, np.uint8), **GRID)
    catalog.with_columns(label=[str(label), catalog.column("label")[1]]).save(tmp_path / "strange.parquet")
    trust(place, tmp_path / "out", catalog=tmp_path / "strange.parquet", max_bad_share=0.5)
    record = json.loads((tmp_path / "out" / "trust.json").read_text())
    assert "strange.tif: holds 9, which is none of the 4 class ids" in record["not_judged"][0]["problem"]


def test_a_reference_that_is_of_no_use_is_named(place, tmp_path, capsys):
    catalog = Catalog.open(place / "noisy.parquet").take([0, 1])
    catalog.with_columns(reference=[str(tmp_path / "gone.tif"), catalog.column("reference")[1]]).save(tmp_path / "gone.parquet")
    words = ["trust", "--model", str(place / "model"), "--catalog", str(tmp_path / "gone.parquet"), "--out", str(tmp_path / "out")]
    assert main([*words, "--pictures", "0", "inference.device=cpu"]) == 0
    said = capsys.readouterr()
    assert "'t0' has a reference that is of no use" in said.err
    assert "clean labels of 1 tiles" in said.out


def test_noise_of_the_labels_is_estimated_and_allowed_for(place, judged, tmp_path):
    result = trust(place, tmp_path / "out", noise="estimated")
    record = json.loads((tmp_path / "out" / "trust.json").read_text())
    noise = torch.tensor(record["given_as"])
    assert noise.sum(1).tolist() == pytest.approx([1, 1, 1, 1], abs=1e-3)
    assert any("what is allowed for" in line for line in result.summary)
    assert json.loads((judged / "trust.json").read_text())["given_as"] is None
    found, before = Catalog.open(tmp_path / "out" / "catalog.parquet"), Catalog.open(judged / "catalog.parquet")
    assert found.column("tile_id") == before.column("tile_id")
    model = Segmenter.load(place / "model")
    tile = found.tile(0)
    pixels, given = read_pixels(tile.image, tile.window), read_label(tile.label)
    said = [
        predict_tile(branch_segmenter(model, name), Pixels(pixels.data[bands], pixels.valid), window=64, overlap=0)
        for name, bands in (("red", [0]), ("others", [1, 2]))
    ]
    expected = trust_tile(said, torch.from_numpy(given), noise=noise)
    stored = read_confidence(*confidence_place(found, 0))
    # The record holds four digits of each share.
    assert np.abs(stored.astype(int) - expected.percents).max() <= 1
    assert not np.array_equal(stored, read_confidence(*confidence_place(before, 0)))
    again = trust(place, tmp_path / "out", noise="estimated")
    assert again.values["made"] == 0
    assert trust(place, tmp_path / "out").values["made"] > 0

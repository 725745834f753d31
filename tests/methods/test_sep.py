"""SEP: labels of another model are learnt by cross-entropy, each pixel by how sure that model was, if asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.s4p_steps import make_batch
from support.training_sample import SCHEME, catalog_of, make_rows, tiny_model
from tilth.augment.config import WeakConfig
from tilth.batch import Batch
from tilth.catalog.table import Catalog
from tilth.errors import ConfigError, RunError
from tilth.imagery.read import read_label
from tilth.methods.base import Stream, build_method
from tilth.sensors import get_sensor
from tilth.training.order import Order
from tilth.training.streams import TileDataset, collate, to_batch

PLAIN = {"strong": None}
LINEAR = {**PLAIN, "confidence_weighting": "linear"}


def with_confidence(batch: Batch, seed: int = 0) -> Batch:
    confidence = torch.rand(batch["mask"].shape, generator=torch.Generator().manual_seed(seed))
    return Batch(**batch, confidence=confidence)


def step(settings: dict, batch: Batch):
    method = build_method("sep", settings, tiny_model())
    method.trained.eval()
    return method, method.step({"labelled": batch}, 0)


def test_without_weights_it_is_supervised_training_with_strong_views():
    batch = make_batch(1)
    supervised = build_method("supervised", {"strong": {}}, tiny_model())
    supervised.trained.eval()
    _, losses = step({}, batch)
    assert float(losses.total.detach()) == float(supervised.step({"labelled": batch}, 0).total.detach())
    assert not losses.shares
    _, plain = step(PLAIN, batch)
    assert float(plain.total.detach()) != float(losses.total.detach())


def test_weighted_loss_is_that_of_its_formula_pixel_by_pixel():
    batch = with_confidence(make_batch(1))
    method, losses = step(LINEAR, batch)
    logits = method.model(batch["image"]).detach().double().log_softmax(dim=1)
    total, labelled, weights = 0.0, 0, 0.0
    for sample, row, column in (batch["mask"] != 255).nonzero().tolist():
        weight = float(batch["confidence"][sample, row, column])
        total -= weight * float(logits[sample, batch["mask"][sample, row, column], row, column])
        labelled, weights = labelled + 1, weights + weight
    assert float(losses.total.detach()) == pytest.approx(total / labelled, rel=1e-5)
    numerator, denominator = losses.shares["label_confidence"]
    assert (float(numerator), int(denominator)) == (pytest.approx(weights, rel=1e-5), labelled)


def test_full_confidence_is_no_weighting_and_half_of_it_half_the_loss():
    batch = make_batch(1)
    _, plain = step(PLAIN, batch)
    for sure in (1.0, 0.5):
        _, weighted = step(LINEAR, Batch(**batch, confidence=torch.full(batch["mask"].shape, sure)))
        assert float(weighted.total.detach()) == pytest.approx(sure * float(plain.total.detach()), rel=1e-5)


def test_weights_that_are_nowhere_are_warned_of():
    method = build_method("sep", LINEAR, tiny_model())
    (warning,) = method.warnings({"label_confidence": [1.0]}, 10)
    assert "tilth label --confidence" in warning
    assert not method.warnings({"label_confidence": [0.97]}, 10)
    assert not method.warnings({}, 10)


@pytest.mark.parametrize("settings", [PLAIN, LINEAR])
def test_ignored_pixels_never_count(settings):
    batch = with_confidence(make_batch(1))
    batch["mask"][:, ::2] = 255
    method, losses = step(settings, batch)
    odd = batch["mask"] == 255
    changed = Batch(**{**batch, "confidence": torch.where(odd, 0.123, batch["confidence"])})
    assert float(step(settings, changed)[1].total.detach()) == float(losses.total.detach())
    logits = method.model(batch["image"]).detach().requires_grad_()
    method.student = lambda _image: logits
    method.step({"labelled": batch}, 0).total.backward()
    assert logits.grad.permute(0, 2, 3, 1)[odd].abs().max() == 0
    assert logits.grad.permute(0, 2, 3, 1)[~odd].abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("settings", [PLAIN, LINEAR])
def test_batch_without_a_label_teaches_nothing(settings):
    method, losses = step(settings, with_confidence(make_batch(1, ignored=True)))
    losses.total.backward()
    assert float(losses.total.detach()) == 0
    assert all(parameter.grad is None or parameter.grad.abs().max() == 0 for parameter in method.model.parameters())


def test_unknown_weighting_is_refused_by_name():
    with pytest.raises(ConfigError, match="confidence_weighting"):
        build_method("sep", {"confidence_weighting": "square"}, tiny_model())


# Confidence on its way from the raster to the batch.


def plant(folder: Path) -> Catalog:
    """Tiles of odd sizes whose confidence says which class a pixel has: 10, 35 or 60 percent; one tile has none."""
    rows = [row for name, size in (("a", (48, 40)), ("b", (33, 51))) for row in make_rows(folder, name, 3, split="train", size=size)]
    for number, row in enumerate(rows):
        if number == 1:
            continue
        mask = read_label(row["label"])
        # The raster is larger than the tile, as that of a scene is.
        whole = np.full((mask.shape[0] + 9, mask.shape[1] + 5), 77, np.uint8)
        whole[6:-3, 4:-1] = np.where(mask == 255, 255, 10 + 25 * mask)
        row["confidence_raster"] = str(folder / f"sure{number}.png")
        row["confidence_window"] = [4, 6, *row["window"][2:]]
        Image.fromarray(whole).save(row["confidence_raster"])
    return catalog_of(rows)


def dataset_of(catalog: Catalog, stream: Stream, weak: WeakConfig | None = None) -> TileDataset:
    order = Order(0, {"labelled": stream}, {"labelled": len(catalog)}, 4)
    return TileDataset(order, {"labelled": catalog}, len(SCHEME), weak or WeakConfig(size=32, rot90=True))


def batches(dataset: TileDataset, steps: int = 8) -> list[Batch]:
    device = torch.device("cpu")
    samples = ([dataset[("labelled", step, slot)] for slot in range(4)] for step in range(steps))
    return [to_batch(collate(found), get_sensor("rgb"), 32, device) for found in samples]


def test_confidence_goes_the_way_of_its_label(tmp_path):
    catalog = plant(tmp_path)
    met = set()
    for batch in batches(dataset_of(catalog, Stream("labelled", confidence=True))):
        assert batch["confidence"].dtype == torch.float32
        for sample, name in enumerate(batch["tile_id"]):
            labelled = batch["mask"][sample] != 255
            ids, sure = batch["mask"][sample][labelled], batch["confidence"][sample][labelled]
            wanted = torch.ones(len(ids)) if name == "a/1" else (10 + 25 * ids) / 100
            torch.testing.assert_close(sure, wanted.float())
            met.add(name)
    assert len(met) == 6


@pytest.mark.parametrize("confidence", [True, False])
def test_all_else_in_a_batch_is_the_same_bit_by_bit(tmp_path, confidence):
    catalog = plant(tmp_path)
    plain = catalog_of([{key: value for key, value in row.items() if "confidence" not in key} for row in catalog.table.to_pylist()])
    for found, wanted in zip(
        batches(dataset_of(catalog, Stream("labelled", confidence=confidence))), batches(dataset_of(plain, Stream("labelled"))), strict=True
    ):
        assert ("confidence" in found) == confidence
        assert "confidence" not in wanted
        for name in ("image", "mask", "valid"):
            assert found[name].dtype == wanted[name].dtype
            assert torch.equal(found[name], wanted[name])
        assert found["tile_id"] == wanted["tile_id"]
        assert found["draw"] == wanted["draw"]


def test_catalog_without_confidence_counts_in_full(tmp_path):
    catalog = catalog_of(make_rows(tmp_path, "a", 3, split="train"))
    for batch in batches(dataset_of(catalog, Stream("labelled", confidence=True)), 2):
        assert (batch["confidence"][batch["mask"] != 255] == 1).all()


def test_tile_whose_confidence_cannot_be_used_is_left_out(tmp_path):
    catalog = plant(tmp_path)
    Image.fromarray(np.full((57, 45), 130, np.uint8)).save(tmp_path / "sure0.png")
    (tmp_path / "sure2.png").unlink()
    dataset = dataset_of(catalog, Stream("labelled", confidence=True))
    bad = dict(item for step in range(6) for slot in range(4) for item in dataset[("labelled", step, slot)].bad)
    assert set(bad) == {"a/0", "a/2"}
    assert "sure0.png: confidence 130 found; expected percents, 0 to 100, and 255" in bad["a/0"]
    assert "sure2.png: no such file" in bad["a/2"]
    # Who does not ask for it does not miss it.
    assert not dataset_of(catalog, Stream("labelled"))[("labelled", 0, 0)].bad
    lost = catalog.with_columns(confidence_window=[None] * len(catalog)).filter(tile_id="a/0")
    with pytest.raises(RunError, match="has a confidence_raster and no confidence_window"):
        dataset_of(lost, Stream("labelled", confidence=True))[("labelled", 0, 0)]
    small = catalog.with_columns(confidence_window=[[0, 0, 9, 9]] * len(catalog)).filter(tile_id="a/0")
    with pytest.raises(RunError, match="has not the size of its window"):
        dataset_of(small, Stream("labelled", confidence=True))[("labelled", 0, 0)]


def test_weights_are_those_of_an_image_resized_to_any_size(tmp_path):
    """Nearest pixels, as labels take them: no percent is there that was not in the raster."""
    catalog = plant(tmp_path)
    for batch in batches(dataset_of(catalog, Stream("labelled", confidence=True), WeakConfig(size=32, scale_min=0.3, scale_max=3))):
        found = {round(100 * value) for value in batch["confidence"][batch["mask"] != 255].unique().tolist()}
        assert found <= {10, 35, 60, 100}

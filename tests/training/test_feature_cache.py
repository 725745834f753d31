"""Maps that are made once and kept: the right ones of each crop, whatever the tiles are like, and none of anything else."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.kept_features import FABRIC, by_hand, diffusion_model, extracted, filled, planned
from support.training_sample import catalog_of, make_rows
from tilth.catalog.table import Catalog
from tilth.errors import ConfigError, OutputExistsError, RunError, TilthError, UnreadableFileError
from tilth.models.diffusion import feature_store
from tilth.sensors import Band, Sensor
from tilth.training.config import LoopConfig
from tilth.training.feature_plan import foresee_features
from tilth.training.feature_samples import RawFeatures


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Three tiles of a size that is no multiple of anything."""
    return catalog_of(make_rows(tmp_path_factory.mktemp("tiles"), "t", 3, split="train", size=(39, 45)))


@pytest.fixture(scope="module")
def kept(tiles, tmp_path_factory):
    return filled(tiles, tmp_path_factory.mktemp("kept"), cache_dtype="fp16")


def row_of(cache, place, variant=0):
    layout = cache.store.layout
    row = cache.store.read(variant * cache.store.crops + place)
    assert layout.whole(row)
    assert layout.readable(row)
    return layout.unpack(torch.from_numpy(np.array(row))[None])


def relative(found, wanted):
    error = sum(float((one - other).square().sum()) for one, other in zip(found, wanted, strict=True))
    return (error / sum(float(other.square().sum()) for other in wanted)) ** 0.5


def test_what_is_kept_is_what_the_network_makes_of_every_crop_in_all_eight_ways(tiles, tmp_path):
    cache, _, method = filled(tiles.take([0, 1]), tmp_path / "kept", cache_variants=8, size=39)
    assert cache.store.rows == 2 * 2 * 8  # 45 columns are two crops of 39
    for place in (0, 3):
        for variant in range(8):
            maps, mask = extracted(cache, tiles, method.model, place, variant)
            found = row_of(cache, place, variant)
            assert torch.equal(found.mask, mask)
            assert relative(found.maps, maps) < 0.01
    # Noise is part of it: turning the maps is not the same.
    assert relative([by_hand(level, 1) for level in row_of(cache, 0, 0).maps], row_of(cache, 0, 1).maps) > 0.05


def test_the_size_that_is_said_is_that_of_the_files_and_it_is_said_before_anything_is_written(tiles, tmp_path):
    cache, told, _ = planned(tiles, tmp_path / "kept")
    before = []
    told.say = lambda text: (before.append((tmp_path / "kept").exists()), told.said.append(text))
    cache.fill(FABRIC, told)
    size = sum(file.stat().st_size for file in (tmp_path / "kept").glob("*.bin"))
    assert cache.store.size == size
    assert f"12 crops x {cache.store.layout.row_bytes:,} bytes = {size:,} bytes" in told.said[-1]
    assert "12 to be made" in told.said[-1]
    assert before == [False]
    again, told, _ = filled(tiles, tmp_path / "kept")
    assert told.said[-1].endswith("all there")
    assert torch.equal(row_of(again, 2).maps[0], row_of(cache, 2).maps[0])


def test_crops_cover_tiles_of_all_sizes_and_a_smaller_one_is_padded(tmp_path):
    rows = make_rows(tmp_path, "large", 2, split="train", size=(50, 64)) + make_rows(tmp_path, "small", 1, split="train", size=(20, 24))
    catalog = catalog_of(rows)
    cache, _, method = filled(catalog, tmp_path / "kept", cache_dtype="fp16")
    assert [crop.row for crop in cache.dataset.crops] == [0] * 4 + [1] * 4 + [2]
    for place in (3, 5, 8):
        maps, mask = extracted(cache, catalog, method.model, place, 0)
        assert torch.equal(row_of(cache, place).mask, mask)
        assert relative(row_of(cache, place).maps, maps) < 1e-3
    small = row_of(cache, 8)
    assert bool((small.mask[0, 20:] == 255).all())
    assert not bool(small.valid[0, :, 24:].any())


def test_a_tile_without_any_label_and_one_band(tmp_path):
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 255, (32, 32), np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / "label.png")
    sensor = Sensor(
        name="grey",
        unit="reflectance",
        rgb=("grey", "grey", "grey"),
        bands=(Band(name="grey", kind="optical", mean=100, std=40, low=0, high=255),),
        dtype="uint8",
    )
    row = {"tile_id": "a", "image": str(tmp_path / "image.png"), "window": (0, 0, 32, 32), "sensor": "grey", "label_kind": "clean"}
    schemes = catalog_of(make_rows(tmp_path, "t", 1, split=None)).schemes
    row |= {"label": str(tmp_path / "label.png"), "scheme": next(iter(schemes))}
    catalog = Catalog.from_rows([row], {"grey": sensor}, schemes)
    model = diffusion_model(sensor=sensor)
    cache, _, method = filled(catalog, tmp_path / "kept", model=model)
    maps, mask = extracted(cache, catalog, model, 0, 0)
    assert bool((mask == 255).all())
    assert torch.equal(row_of(cache, 0).mask, mask)
    assert relative(row_of(cache, 0).maps, maps) < 0.01
    batch = RawFeatures.of([cache.dataset[("labelled", 0, 0)]]).to_batch(torch.device("cpu"))
    assert float(method.step({"labelled": batch}, 0).total.detach()) == 0


def test_samples_are_crops_and_ways_drawn_by_step_and_slot_alone(tiles, tmp_path):
    cache, _, _ = filled(tiles, tmp_path / "kept", cache_variants=8, size=48)
    data = cache.dataset
    seen = [data[("labelled", slot // 2, slot % 2)] for slot in range(12)]
    assert all({sample.tile_id for sample in seen[start : start + 3]} == {"t/0", "t/1", "t/2"} for start in range(0, 12, 3))
    again = data[("labelled", 3, 1)]
    assert again.draw == seen[7].draw
    assert np.array_equal(again.row, seen[7].row)
    rows = {bytes(data[("labelled", step, 0)].row[-4:]) for step in range(150)}
    assert len(rows) == 24  # all of them come


DIFFERENCES = {
    "weights": lambda tiles: ({"model": diffusion_model(seed=1)}, tiles),
    "times: [50, 150] there, [50, 100] here": lambda tiles: ({"model": diffusion_model({"times": [50, 100]})}, tiles),
    "taps": lambda tiles: ({"model": diffusion_model({"reduce": "last"})}, tiles),
    "schedule": lambda tiles: ({"model": diffusion_model({"schedule": "cosine"})}, tiles),
    "noise_seed: 0 there, 3 here": lambda tiles: ({"model": diffusion_model({"noise_seed": 3})}, tiles),
    "share_noise": lambda tiles: ({"model": diffusion_model({"share_noise": False})}, tiles),
    "gain": lambda tiles: ({"model": diffusion_model({"ranges": [[-3, 3]] * 3})}, tiles),
    "sensor: bands, number 2, mean": lambda tiles: ({"model": other_mean(tiles)}, other_mean_tiles(tiles)),
    "precision": lambda tiles: ({"loop": {"precision": "bf16-mixed"}}, tiles),
    "crop": lambda tiles: ({"size": 48}, tiles),
    "variants: 1 there, 8 here": lambda tiles: ({"cache_variants": 8}, tiles),
    "dtype": lambda tiles: ({"cache_dtype": "int8"}, tiles),
    "maps": lambda tiles: ({"model": diffusion_model({"pool_before": True})}, tiles),
}


def other_mean_tiles(tiles):
    sensor = tiles.sensor()
    bands = (sensor.bands[0], sensor.bands[1].model_copy(update={"mean": 0.3}), sensor.bands[2])
    return Catalog(tiles.table, {"rgb": sensor.model_copy(update={"bands": bands})}, tiles.schemes)


def other_mean(tiles):
    # The same ranges, so that nothing else differs.
    ranges = diffusion_model().config.network.options.get("ranges")
    return diffusion_model({"ranges": ranges}, sensor=other_mean_tiles(tiles).sensor())


@pytest.mark.parametrize("name", DIFFERENCES)
def test_features_of_anything_else_are_refused_and_the_first_difference_is_named(kept, tiles, name):
    more, catalog = DIFFERENCES[name](tiles)
    # With auto as well: somebody who gives a folder wants what is in it.
    given = {"cache": "auto" if name == "taps" else "disk", "cache_dtype": "fp16", "loop": {"steps": 300}} | more
    given["loop"] = {"steps": 300} | given["loop"]
    with pytest.raises(ConfigError) as caught:
        planned(catalog, kept[0].store.folder, **given)
    assert f"holds other features, made with {name}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_tiles_are_refused_and_fewer_of_the_same_are_not(kept, tiles, tmp_path):
    folder = kept[0].store.folder
    few, _, _ = planned(tiles.take([2, 1]), folder, cache_dtype="fp16")
    assert not few.store.missing()
    for slot in range(8):
        sample = few.dataset[("labelled", 0, slot)]
        assert sample.tile_id in ("t/1", "t/2")
    assert few.store.number("t/2", 0, 0) == 8
    more = catalog_of(make_rows(tmp_path, "u", 1, split="train", size=(39, 45)))
    with pytest.raises(ConfigError, match="none of 'u/0'"):
        planned(Catalog.concat([tiles, more]), folder, cache_dtype="fp16")
    moved = tiles.with_columns(window=[[1, 0, 44, 39], *tiles.column("window")[1:]])
    with pytest.raises(ConfigError, match="files or window of tile 't/0' changed"):
        planned(moved, folder, cache_dtype="fp16")


def test_a_folder_of_something_else_and_damaged_ones_are_refused(kept, tiles, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputExistsError, match="other files"):
        planned(tiles, tmp_path / "mine")
    filled(tiles, tmp_path / "kept")
    file = next((tmp_path / "kept").glob("*.bin"))
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UnreadableFileError, match="damaged"):
        planned(tiles, tmp_path / "kept")
    (tmp_path / "kept" / "features.json").write_text("{")
    with pytest.raises(UnreadableFileError, match="header"):
        planned(tiles, tmp_path / "kept")


def test_what_does_not_fit_is_refused_or_made_anew(tiles, tmp_path):
    with pytest.raises(TilthError, match=r"more than settings.cache_limit_gb=0.0001; raise it"):
        planned(tiles, tmp_path / "kept", cache_limit_gb=0.0001)
    cache, told, method = planned(tiles, tmp_path / "kept", cache="auto", cache_limit_gb=0.0001)
    assert cache is None
    assert "made anew in every step" in told.said[0]
    assert method.config.cache == "online"
    assert not (tmp_path / "kept").exists()


def test_auto_keeps_what_is_used_twice_by_a_frozen_encoder_where_a_folder_is_given(tiles, tmp_path):
    cache, told, _ = planned(tiles, None, cache="auto")
    assert cache is None
    assert "settings.cache_folder=FOLDER would keep them, 12 crops x" in told.said[0]
    cache, told, method = planned(tiles, tmp_path / "kept", cache="auto", loop={"steps": 11})
    assert cache is None
    assert "used 1.8 times" in told.said[0]
    learning = {"steps": 400, "transfer": {"frozen": "never"}}
    cache, told, method = planned(tiles, tmp_path / "kept", cache="auto", loop=learning)
    assert cache is None
    assert "the encoder learns" in told.said[0]
    with pytest.raises(ConfigError, match="frozen"):
        planned(tiles, tmp_path / "kept", loop=learning)
    cache, told, method = planned(tiles, tmp_path / "kept", cache="auto", loop={"steps": 12})
    assert cache is not None
    assert method.config.cache == "disk"
    assert "linear stretch" in told.said[1]
    with pytest.raises(ConfigError, match="cache_folder"):
        planned(tiles, None, cache="disk")


def test_a_dry_run_foresees_the_size_and_nothing_where_nothing_would_be_kept(tiles, tmp_path):
    cache, _, method = planned(tiles, tmp_path / "kept")
    network, classes = diffusion_model().config.network, len(method.model.scheme)

    def foreseen(steps, frozen="always", **settings):
        given = {"cache_folder": str(tmp_path / "kept"), **settings}
        loop = LoopConfig(steps=steps, batch_size=2, transfer={"frozen": frozen})
        return foresee_features(type(method), given, network, tiles, classes, 32, loop)

    assert f"{cache.store.size:,} bytes" in foreseen(12)
    assert foreseen(11) is None
    assert foreseen(11, cache="disk") is not None
    assert foreseen(12, cache="online") is foreseen(12, cache_folder=None) is foreseen(12, "never") is None


def test_tiles_that_cannot_be_read_are_left_out_and_reported(tmp_path):
    catalog = catalog_of(make_rows(tmp_path / "t", "t", 3, split="train", size=(32, 32)))
    (tmp_path / "t" / "t1.png").write_bytes(b"no picture")
    cache, told, _ = filled(catalog, tmp_path / "kept")
    assert ["tile t/1 left out" in text for text in told.warned] == [True]
    samples = [cache.dataset[("labelled", 0, slot)] for slot in range(3)]
    assert "t/1" not in {sample.tile_id for sample in samples}
    assert [[tile for tile, _ in sample.bad] for sample in samples].count(["t/1"]) == 1
    for place in (0, 2):
        (tmp_path / "t" / f"t{place}.png").write_bytes(b"no picture")
    cache, _, _ = filled(catalog, tmp_path / "none")
    with pytest.raises(RunError, match="cannot be read"):
        cache.dataset[("labelled", 0, 0)]


def test_one_large_tile_that_cannot_be_read_is_one_failure_however_many_crops_it_has(tmp_path):
    catalog = catalog_of(make_rows(tmp_path / "t", "t", 2, split="train", size=(96, 96)))
    (tmp_path / "t" / "t1.png").write_bytes(b"no picture")
    cache, _, _ = filled(catalog, tmp_path / "kept")
    samples = [cache.dataset[("labelled", 0, slot)] for slot in range(18)]
    assert {sample.tile_id for sample in samples} == {"t/0"}
    assert sum(len(sample.bad) for sample in samples) == 9  # each of its crops is met once


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_file_that_was_edited_is_noticed_though_it_has_the_size_it_had(tmp_path, kind):
    catalog = catalog_of(make_rows(tmp_path / "t", "t", 1, split="train", size=(32, 32)))
    cache, _, _ = planned(catalog, tmp_path / "kept")
    cache._make = lambda numbers, device: [cache.store.layout.unreadable() for _ in numbers]
    cache.fill(FABRIC, planned(catalog, tmp_path / "kept")[1])
    planned(catalog, tmp_path / "kept")
    file = Path(catalog.column(kind)[0])
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ConfigError, match="files or window of tile 't/0' changed"):
        planned(catalog, tmp_path / "kept")


def rows_a_file(monkeypatch, kept, rows):
    monkeypatch.setattr(feature_store, "_FILE_BYTES", rows * kept[0].store.layout.row_bytes)


def fill_and_die(catalog, folder, rows, model):
    cache, told, _ = planned(catalog, folder, model=model, cache_dtype="fp16")
    inner, made = cache._make, [0]

    def make(numbers, device):
        made[0] += 1
        if made[0] > rows:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(numbers, device)

    cache._make = make
    cache.fill(FABRIC, told)


def test_filling_that_was_killed_goes_on_after_the_last_whole_row(tiles, kept, monkeypatch, tmp_path):
    rows_a_file(monkeypatch, kept, 3)
    model = diffusion_model()
    whole, _, _ = filled(tiles, tmp_path / "whole", model=model, cache_dtype="fp16")
    torch.set_num_threads(1)  # a forked process has none of the others
    child = multiprocessing.get_context("fork").Process(target=fill_and_die, args=(tiles, tmp_path / "kept", 6, model))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    names = {file.name for file in (tmp_path / "kept").iterdir()}
    assert names == {"features.json", "features.lock", "features-00000.bin", "features-00001.part"}
    part = tmp_path / "kept" / "features-00001.part"
    part.write_bytes(part.read_bytes() + bytes(1000))  # the beginning of another row
    cache, told, _ = planned(tiles, tmp_path / "kept", model=model, cache_dtype="fp16")
    made = []
    inner = cache._make
    cache._make = lambda numbers, device: (made.extend(numbers), inner(numbers, device))[1]
    cache.fill(FABRIC, told)
    assert sorted(set(made)) == list(range(5, 12))
    assert not list((tmp_path / "kept").glob("*.part"))
    for number in range(12):
        assert np.array_equal(cache.store.read(number), whole.store.read(number))


def test_a_folder_that_was_begun_for_more_tiles_waits_for_them(tiles, tmp_path):
    cache, told, _ = planned(tiles, tmp_path / "kept")
    cache._make = lambda numbers, device: (_ for _ in ()).throw(KeyboardInterrupt) if numbers[0] else [cache.store.layout.unreadable()]
    with pytest.raises(KeyboardInterrupt):
        cache.fill(FABRIC, told)
    assert json.loads((tmp_path / "kept" / "features.json").read_text())["tiles"]
    with pytest.raises(ConfigError, match="not finished"):
        planned(tiles.take([0]), tmp_path / "kept")


def fill_slowly(catalog, folder, model, queue):
    torch.set_num_threads(1)
    cache, told, _ = planned(catalog, folder, model=model, cache_dtype="fp16")
    inner, made = cache._make, []

    def make(numbers, device):
        time.sleep(0.02)
        made.extend(numbers)
        return inner(numbers, device)

    cache._make = make
    cache.fill(FABRIC, told)
    queue.put(made)


def test_two_processes_share_the_work(tiles, kept, monkeypatch, tmp_path):
    rows_a_file(monkeypatch, kept, 2)
    forked = multiprocessing.get_context("fork")
    queue, model = forked.Queue(), diffusion_model()
    children = [forked.Process(target=fill_slowly, args=(tiles, tmp_path / "kept", model, queue)) for _ in range(2)]
    for child in children:
        child.start()
    made = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    assert all(child.exitcode == 0 for child in children)
    assert {number for numbers in made for number in numbers} == set(range(12))
    assert sum(len(numbers) for numbers in made) <= 12 + 2 * 2  # each makes its first row to take the time
    cache, _, _ = planned(tiles, tmp_path / "kept", model=model, cache_dtype="fp16")
    assert all(cache.store.layout.whole(cache.store.read(number)) for number in range(12))


def test_a_store_goes_to_loader_processes_without_its_open_files(kept):
    store = kept[0].store
    store.read(0)
    assert store._open
    assert not store.__getstate__()["_open"]
    assert dataclasses.is_dataclass(store.layout)

"""A pool becomes a selection with a reason in every row; interrupted or not, again or anew."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilth
from support.curation_world import SIDE, catalog_of, picture, save, with_alpha
from support.dying import die_at_sync
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.curation.clusters import ArrayRows, assign
from tilth.curation.filters import DROPPED, REASONS
from tilth.curation.selection import share_out
from tilth.errors import DataError, OutputExistsError, SensorMismatchError

FILTERED = {
    "copy": "duplicate",
    "brighter": "near duplicate",
    "blank": "blank",
    "cloud": "bright",
    "corner": "no data",
    "nothing": "no data",
    "as_labelled": "duplicate",
    "torn": "unreadable",
    "ground": "labelled ground",
}


def curate(world: Path, out: Path, **more: Any):
    options: dict[str, Any] = {"unlabelled": world / "pool.parquet", "model": world / "model", "report": False}
    options |= {"inference": {"window": SIDE, "device": "cpu"}, "scoring": {"shard_tiles": 5}}
    return tilth.curate(**(options | {"out": out} | more))


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["tile_id"]: row for row in Catalog.open(out / "decisions.parquet").table.to_pylist()}


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def filtered(world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("filtered") / "out"
    curate(world, out, labelled=[world / "labelled.parquet"])
    return out


def test_every_tile_is_kept_or_dropped_for_the_reason_that_it_was_made_for(filtered):
    found = rows(filtered)
    assert {name: row["reason"] for name, row in found.items() if row["reason"] != "passed"} == FILTERED
    assert found["copy"]["copy_of"] == "plain_03"
    assert found["brighter"]["copy_of"] == "plain_05"
    assert found["as_labelled"]["copy_of"] == "lab_1"
    assert "torn.png" in found["torn"]["problem"]
    for name, row in found.items():
        assert row["selected"] == (name not in FILTERED)
        assert (row["entropy_rank"] is not None) == row["selected"]
    assert found["nothing"]["entropy"] is None
    assert found["corner"]["valid_share"] == pytest.approx(0.25)
    assert sum(found["corner"]["predicted_pixels"]) == SIDE * SIDE // 4


def test_selection_is_a_catalog_like_any_other(filtered):
    chosen = Catalog.open(filtered / "catalog.parquet")
    assert len(chosen) == 14
    assert set(chosen.counts("reason")) == {"passed"}
    assert main(["catalog", "check", str(filtered / "catalog.parquet")]) == 0
    assert main(["catalog", "show", str(filtered / "catalog.parquet")]) == 0


def test_record_counts_reasons_and_classes(filtered):
    record = json.loads((filtered / "curation.json").read_text())
    assert record["kept"] == {"passed": 14}
    assert record["dropped"] == {reason: list(FILTERED.values()).count(reason) for reason in DROPPED if reason in FILTERED.values()}
    assert list(record["dropped"]) == [reason for reason in DROPPED if reason in record["dropped"]]
    assert record["background"] == ["Background"]
    for group in ("pool", "passed", "selected", "labelled"):
        assert sum(row[group] for row in record["classes"]) == pytest.approx(1)
    selected = np.array(Catalog.open(filtered / "catalog.parquet").column("predicted_pixels")).sum(axis=0)
    np.testing.assert_allclose([row["selected"] for row in record["classes"]], selected / selected.sum())
    assert record["sources"] == {
        "land": {"tiles": 7, "passed": 7, "selected": 7},
        "sea": {"tiles": 7, "passed": 7, "selected": 7},
        "unknown": {"tiles": 9, "passed": 0, "selected": 0},
    }


def test_every_filter_can_be_switched_off(world, tmp_path, filtered):
    shutil.copytree(filtered, tmp_path / "out")
    off = {"least_valid": 0, "least_contrast": 0, "most_bright": 1, "foreground_guard": False, "duplicates": "none"}
    curate(world, tmp_path / "out", filters=off)
    assert {name: row["reason"] for name, row in rows(tmp_path / "out").items() if not row["selected"]} == {
        "torn": "unreadable",
        "nothing": "no data",
    }
    curate(world, tmp_path / "out", filters={"duplicates": "exact"})
    found = rows(tmp_path / "out")
    assert found["copy"]["reason"] == "duplicate"
    # Without labelled tiles nobody knows that these are copies of some.
    assert [found[name]["reason"] for name in ("brighter", "as_labelled", "ground")] == ["passed"] * 3


def test_guard_wants_foreground_but_of_exempt_sources(world, tmp_path, filtered):
    shutil.copytree(filtered, tmp_path / "out")
    pixels = {name: row["foreground_pixels"] for name, row in rows(filtered).items() if row["reason"] == "passed"}
    limit = sorted(pixels.values())[7]
    curate(world, tmp_path / "out", filters={"min_foreground_pixels": limit, "foreground_exempt": ["sea"]})
    for name, row in rows(tmp_path / "out").items():
        if name in pixels:
            assert row["reason"] == ("passed" if pixels[name] >= limit or row["source"] == "sea" else "no foreground")
    assert sum(row["reason"] == "no foreground" for row in rows(tmp_path / "out").values())


@pytest.mark.parametrize("reading", ["foreground", "all_classes", "foreground_renormalised"])
def test_without_clusters_the_surest_are_taken(world, tmp_path, filtered, reading):
    shutil.copytree(filtered, tmp_path / "out")
    result = curate(world, tmp_path / "out", tiles=6, entropy=reading, diversity={"quotas": "none"})
    assert result.values["scored"] == 0
    found = rows(tmp_path / "out")
    order = sorted((row for row in found.values() if row["entropy_rank"] is not None), key=lambda row: row["entropy_rank"])
    assert [row["entropy"] for row in order] == sorted(row["entropy"] for row in order)
    assert [row["reason"] for row in order] == ["lowest entropy"] * 6 + ["entropy too high"] * (len(order) - 6)
    assert all(row["cluster"] is None for row in found.values())


@pytest.mark.parametrize("fill", [True, False])
def test_quotas_follow_the_labelled_tiles(world, tmp_path, filtered, fill):
    """Told again from the stored scores, by other means."""
    out = tmp_path / "out"
    shutil.copytree(filtered, out)
    result = curate(world, out, tiles=10, labelled=[world / "labelled.parquet"], diversity={"clusters": 3, "fill_shortfall": fill})
    record = json.loads((out / "curation.json").read_text())
    examples = np.array([row["examples"] for row in record["clusters"]])
    assert examples.sum() == 6  # one of the seven labelled tiles is for validation
    quotas = share_out(10, examples)
    assert [row["quota"] for row in record["clusters"]] == quotas.tolist()
    found = rows(out)
    order = sorted((row for row in found.values() if row["entropy_rank"] is not None), key=lambda row: row["entropy_rank"])
    left, within, skipped = quotas.tolist(), [], []
    for row in order:
        (within if left[row["cluster"]] else skipped).append(row["tile_id"])
        left[row["cluster"]] = max(0, left[row["cluster"]] - 1)
    fills = skipped[: 10 - len(within)] if fill else []
    assert {row["tile_id"] for row in order if row["reason"] == "within quota"} == set(within)
    assert {row["tile_id"] for row in order if row["reason"] == "fills up"} == set(fills)
    assert {row["tile_id"] for row in order if row["reason"] == "cluster full"} == set(skipped) - set(fills)
    assert record["shortfall"] == sum(left)
    assert result.values["selected"] == len(within) + len(fills) == len(Catalog.open(out / "catalog.parquet"))


def test_clusters_are_those_of_the_stored_features(world, tmp_path, filtered):
    from safetensors.numpy import load_file

    from tilth.curation.store import Scores, ShardPlan

    out = tmp_path / "out"
    shutil.copytree(filtered, out)
    curate(world, out, tiles=5, labelled=[world / "labelled.parquet"], diversity={"clusters": 2})
    centres = load_file(out / "scores" / "clusters.safetensors")["centres"]
    names = sorted(path.name for path in (out / "scores").glob("pool-*.arrow"))
    scores = Scores(out / "scores", [ShardPlan(name, 0, 0, "") for name in names])
    nearest, likeness = assign(ArrayRows(scores.features.part(0, len(scores))), centres)
    for index, row in enumerate(rows(out).values()):
        if row["cluster"] is not None:
            assert (row["cluster"], row["similarity"]) == (nearest[index], pytest.approx(likeness[index], abs=1e-6))


def test_clusters_of_the_pool_share_alike(world, tmp_path, filtered, capsys):
    out = tmp_path / "out"
    shutil.copytree(filtered, out)
    words = ["curate", str(world / "pool.parquet"), "--model", str(world / "model"), "--out", str(out), "--tiles", "9", "--no-report"]
    words += [f"inference.window={SIDE}", "inference.device=cpu", "scoring.shard_tiles=5", "diversity.quotas=equal", "diversity.clusters=4"]
    assert main(words) == 0
    lines, err = capsys.readouterr()
    assert lines.splitlines()[0].startswith("9 of 23 tiles selected, ")
    assert "(0 scored now)" in lines
    assert "  kept, within quota: " in lines
    assert "4 clusters after " in lines
    assert "tile 'torn' cannot be used: " in err
    assert [row["quota"] for row in json.loads((out / "curation.json").read_text())["clusters"]] == [3, 2, 2, 2]


def test_too_few_tiles_are_told(world, tmp_path, filtered, capsys):
    out = tmp_path / "out"
    shutil.copytree(filtered, out)
    words = ["curate", str(world / "pool.parquet"), "--model", str(world / "model"), "--labelled", str(world / "labelled.parquet")]
    words += [
        "--out",
        str(out),
        "--tiles",
        "20",
        "--no-report",
        f"inference.window={SIDE}",
        "inference.device=cpu",
        "scoring.shard_tiles=5",
    ]
    assert main(words) == 0
    err = capsys.readouterr().err
    assert "14 tiles were selected of 20 wanted; 14 passed the filters" in err
    assert "6 clusters instead of 64: there are not more tiles that differ" in err


def test_page_shows_every_reason(world, tmp_path, filtered):
    out = tmp_path / "out"
    shutil.copytree(filtered, out)
    result = curate(world, out, tiles=8, labelled=[world / "labelled.parquet"], diversity={"clusters": 3}, report=True, pictures=2)
    page = (out / "report.html").read_text()
    assert result.outputs["report"] == out / "report.html"
    shown = set(Catalog.open(out / "decisions.parquet").counts("reason"))
    assert {path.stem.partition("-")[2].replace("-", " ") for path in (out / "pictures").glob("*.png")} == shown
    for reason in shown:
        assert f": {reason}</h3>" in page
    assert "<script" not in page
    assert page.count("data:image/") == len(shown)
    assert "http" not in page.replace("http-equiv", "")


def test_same_command_again_does_nothing_anew_and_leaves_the_same_bytes(world, tmp_path):
    options = {"labelled": [world / "labelled.parquet"], "tiles": 8, "diversity": {"clusters": 3}}
    first = curate(world, tmp_path / "out", **options)
    before = files(tmp_path / "out")
    again = curate(world, tmp_path / "out", **options)
    assert files(tmp_path / "out") == before
    assert (first.values["scored"], again.values["scored"]) == (30, 0)
    assert again.values["kept_scores"] == 30


@pytest.mark.parametrize("moments", [(8, 31), pytest.param((1, 18, 27, 34), marks=pytest.mark.slow)], ids=["few", "more"])
def test_killed_curation_goes_on_to_the_same_bytes(world, tmp_path, moments):
    options = {"labelled": [world / "labelled.parquet"], "tiles": 8, "diversity": {"clusters": 3}}
    curate(world, tmp_path / "whole", **options)
    whole = files(tmp_path / "whole")
    out = tmp_path / "out"
    # Three syncs a file: the content twice, and the folder.
    for moment in moments:
        shutil.rmtree(out, ignore_errors=True)
        assert die_at_sync(moment, curate, world, out, **options) == -signal.SIGKILL
        curate(world, out, **options)
        assert files(out) == whole


def test_pool_that_grows_is_scored_where_it_grew(world, tmp_path):
    rows_of = [save(tmp_path / "more", f"more_{number}", picture(300 + number)) for number in range(3)]
    catalog_of(rows_of).save(tmp_path / "more.parquet")
    first = curate(world, tmp_path / "out")
    assert first.values["scored"] == 23
    again = curate(world, tmp_path / "out", unlabelled=[world / "pool.parquet", tmp_path / "more.parquet"])
    # The last shard of five held three tiles.
    assert (again.values["scored"], again.values["kept_scores"]) == (6, 20)
    assert again.values["tiles"] == 26


def test_scores_of_another_model_or_settings_are_not_overwritten(world, tmp_path, filtered):
    out = tmp_path / "out"
    shutil.copytree(filtered, out)
    before = files(out)
    for more in ({"inference": {"window": 32}}, {"scoring": {"background": ["ship"]}}):
        with pytest.raises(OutputExistsError, match="of another model, or of other scoring or inference settings"):
            curate(world, out, **more)
    assert files(out) == before


def test_pool_in_splits_gives_its_training_tiles(world, tmp_path):
    tiles = [save(tmp_path / "p", f"t{number}", picture(400 + number), split="val" if number < 3 else "train") for number in range(5)]
    catalog_of(tiles).save(tmp_path / "p.parquet")
    assert curate(world, tmp_path / "out", unlabelled=tmp_path / "p.parquet").values["tiles"] == 2
    both = curate(world, tmp_path / "both", unlabelled=tmp_path / "p.parquet", unlabelled_split=["train", "val"])
    assert both.values["tiles"] == 5


def test_pool_without_a_usable_tile_is_refused_with_its_reasons(world, tmp_path):
    blank = [save(tmp_path / "b", f"b{number}", np.full((SIDE, SIDE, 3), 50, np.uint8)) for number in range(3)]
    blank.append(save(tmp_path / "b", "void", with_alpha(picture(0), 0)))
    catalog_of(blank).save(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="none of the 4 tiles of the pool passes the filters: 1 no data, 3 blank"):
        curate(world, tmp_path / "out", unlabelled=tmp_path / "b.parquet")
    for row in blank:
        Path(row["image"]).write_bytes(b"?")
    with pytest.raises(DataError, match="none of the 4 tiles of the pool can be read; the first: "):
        curate(world, tmp_path / "torn", unlabelled=tmp_path / "b.parquet")


def test_model_of_another_scale_is_refused(world, tmp_path):
    from tilth.sensors import get_sensor

    sensor = get_sensor("rgb")
    scaled = sensor.model_copy(update={"bands": tuple(band.model_copy(update={"scale": 1.0}) for band in sensor.bands)})
    pool = Catalog.open(world / "pool.parquet")
    Catalog(pool.table, {"rgb": scaled}, pool.schemes).save(tmp_path / "scaled.parquet")
    with pytest.raises(SensorMismatchError, match="use tiles of the model's sensor and scale"):
        curate(world, tmp_path / "out", unlabelled=tmp_path / "scaled.parquet")
    assert not (tmp_path / "out").exists()


def test_all_reasons_have_a_meaning_on_the_page():
    from tilth.reporting.curation import MEANINGS

    assert set(MEANINGS) == set(REASONS)

"""``tilth features`` as a whole: what it leaves, that it leaves the same again, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import tilth
from support.tiny_farm import tree
from support.training_sample import NETWORK, SCHEME, make_rows
from support.wrong_calls import Case, refuse
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.evaluation.feature_result import FeatureRecord
from tilth.models.config import NetworkConfig
from tilth.models.encoder_folder import save_encoder
from tilth.models.folder import save_network
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.reporting import ReportInput, build_report
from tilth.sensors import get_sensor

UNET = {"width": 8, "norm_groups": 4, "res_blocks": 1, "multipliers": [1, 1, 2, 2, 2]}
SMALL = {
    "tiles": 3,
    "test_tiles": 2,
    "window": 48,
    "pictures": 1,
    "maps": {"strides": [4, 8], "times": [0, 50]},
    "clusters": {"count": 4, "restarts": 1},
    "tsne": {"pixels": 12, "perplexity": 5},
    "probes": {"pixels": 40, "neighbours": 3},
}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog, an encoder folder of a noise predictor, a model folder, and a network folder; none of them trained."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("farm")
    rows = [row for split in ("train", "test") for row in make_rows(root / "land", split, 3, split=split, size=(64, 64))]
    Catalog.from_rows(rows, {"rgb": get_sensor("rgb")}, {SCHEME.name: SCHEME}).save(root / "catalog.parquet")
    catalog = Catalog.open(root / "catalog.parquet")
    noisy = NetworkConfig(name="ddpm_segmentor", options={"unet_options": UNET})
    sensor, scheme = catalog.sensor(), catalog.scheme()
    model = build_segmenter(noisy, sensor, scheme)
    save_encoder(model, root / "denoiser" / "model")
    save_network(model.network.encoder.unet, root / "unet")
    build_segmenter(NETWORK, sensor, scheme).save(root / "unet-trained")
    build_segmenter(NETWORK, get_sensor("s1"), scheme).save(root / "radar")
    bare = catalog.table.drop_columns(["label", "label_kind", "scheme"])
    Catalog(bare, catalog.sensors).save(root / "bare.parquet")
    return root


@pytest.fixture(scope="module")
def look(farm: Path) -> Path:
    out = farm.parent / "look"
    tilth.features(
        model=farm / "denoiser",
        catalog=farm / "catalog.parquet",
        out=out,
        beside=[str(farm / "unet-trained")],
        device="cpu",
        **SMALL,
    )
    return out


def test_everything_is_there_and_opens(look):
    record = FeatureRecord.read(look)
    assert [item.name for item in record.encoders] == ["denoiser", "unet-trained"]
    places = [(item.encoder, item.side, item.stride, item.time) for item in record.maps]
    noisy = [(side, stride, time) for time in (0, 50) for side, stride in (("encoder", 4), ("encoder", 8), ("decoder", 8), ("decoder", 4))]
    assert places == [
        *(("denoiser", *place) for place in noisy),
        *(("unet-trained", "encoder", stride, None) for stride in (4, 8)),
        ("bands", "bands", 1, None),
    ]
    assert (record.learn_tiles, record.test_tiles) == (3, 2)
    for item in record.maps:
        assert 0 <= item.linear_mean_iou <= item.linear_accuracy <= 1
        assert item.cluster_agreement is None or 0 < item.cluster_agreement <= 1
    assert sum(item.cluster_agreement is not None for item in record.maps) == 10
    assert [item.kind for item in record.figures] == [*["clusters", "colours"] * 2, "tsne", "probes"]
    for figure in record.figures:
        picture = Image.open(look / figure.file).convert("RGB")
        assert min(picture.size) > 100
        assert len(picture.getcolors(2**24)) > 10
    assert {"features.json", "probes.csv", "tsne.parquet", "tsne.svg", "probes.svg"} <= set(tree(look))


def test_tables_say_what_the_record_says(look):
    record = FeatureRecord.read(look)
    rows = list(csv.DictReader((look / "probes.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(record.maps)
    assert [float(row["mIoU"]) for row in rows if row["probe"] == "linear"] == [item.linear_mean_iou for item in record.maps]
    assert [name for name in rows[0] if name.startswith("IoU ")] == [f"IoU {name}" for name in record.classes]
    points = pq.read_table(look / "tsne.parquet").to_pandas()
    assert list(points.groupby(["encoder", "side"], sort=False).groups) == [
        ("denoiser", "encoder"),
        ("denoiser", "decoder"),
        ("unet-trained", "encoder"),
    ]
    assert set(points["stride"]) == {8}
    assert points.groupby(["encoder", "side", "class"]).size().max() <= 12
    assert np.isfinite(points[["x", "y"]]).all(axis=None)


def test_points_are_of_the_class_that_their_pixel_has(look, farm):
    from tilth.imagery.read import read_label

    labels = {tile.tile_id: tile for tile in Catalog.open(farm / "catalog.parquet").tiles()}
    for row in pq.read_table(look / "tsne.parquet").slice(0, 20).to_pylist():
        assert read_label(labels[row["tile_id"]].label)[row["row"], row["column"]] == row["class_id"]


def test_the_same_seed_gives_the_same_bytes_and_replaces_what_was_there(look, farm, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(look, out)
    (out / "note.txt").write_text("mine")
    options = SMALL | {"tsne": {"pixels": 0}, "pictures": 0}
    for target in (out, tmp_path / "other"):
        tilth.features(model=farm / "denoiser", catalog=farm / "catalog.parquet", out=target, device="cpu", **options)
    names = ["features.json", "probes.csv", "probes.png", "probes.svg"]
    assert tree(tmp_path / "other") == names
    assert tree(out) == ["features.json", "note.txt", "probes.csv", "probes.png", "probes.svg"]
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    maps = json.loads((out / "features.json").read_text())["maps"]
    for one, other in zip(maps, json.loads((look / "features.json").read_text())["maps"], strict=False):
        if one["encoder"] == "denoiser":
            assert one["linear_mean_iou"] == other["linear_mean_iou"], "the encoder beside and pictures change no number"


def test_a_network_alone_and_tiles_without_labels(farm, tmp_path):
    options = SMALL | {"tsne": {"pixels": 0}}
    tilth.features(model=farm / "unet", catalog=farm / "bare.parquet", out=tmp_path / "out", beside="random", device="cpu", **options)
    record = FeatureRecord.read(tmp_path / "out")
    assert record.classes == ()
    assert [item.name for item in record.encoders] == ["unet", "random"]
    assert {item.linear_mean_iou for item in record.maps} == {item.cluster_agreement for item in record.maps} == {None}
    assert [item.kind for item in record.figures] == ["clusters", "colours"] * 2
    assert tree(tmp_path / "out") == sorted(["features.json", *(item.file for item in record.figures)])


def test_numbers_are_found_again_by_hand(farm, look):
    """One map, without any of what looks at it: whole tiles through the network, resized, and scikit-learn."""
    from sklearn.metrics import accuracy_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    from tilth.insight.config import LookConfig
    from tilth.insight.pool import choose_pool, views_of
    from tilth.insight.views import spread_picks

    catalog, config = Catalog.open(farm / "catalog.parquet"), LookConfig(**SMALL)
    model = Segmenter.load(farm / "unet-trained")
    pool = choose_pool(catalog.filter(split="train"), catalog.filter(split="test"), config)
    sides: dict[str, list] = {"learn": [], "test": []}
    for role, view in views_of(pool, config):
        with torch.no_grad():
            padded = torch.nn.functional.pad(
                model.normalise(torch.from_numpy(view.pixels.data).float()[None]), (0, 16, 0, 16), mode="replicate"
            )
            found = next(one for one in model.encode(padded) if one.shape[-1] == 8)
        whole = torch.nn.functional.interpolate(found, (64, 64), mode="bilinear")[0].numpy()
        picks = spread_picks(view, 40, 0)
        sides[role].append((whole[:, picks.rows, picks.columns].T, view.mask[picks.rows, picks.columns]))
    (known, right), (asked, wanted) = ([np.concatenate(parts) for parts in zip(*side, strict=True)] for side in sides.values())
    scale = StandardScaler().fit(known)
    said = KNeighborsClassifier(3).fit(scale.transform(known), right).predict(scale.transform(asked))
    listed = {(item.encoder, item.stride): item for item in FeatureRecord.read(look).maps if item.encoder == "unet-trained"}
    assert listed["unet-trained", 8].neighbour_accuracy == pytest.approx(accuracy_score(wanted, said), abs=0.02)


def test_kept_features_are_not_overwritten(farm, tmp_path):
    (tmp_path / "features.json").write_text('{"version": 1, "weights": "a", "tiles": []}')
    with pytest.raises(tilth.TilthError, match="no look at features; choose another --out"):
        tilth.features(model=farm / "denoiser", catalog=farm / "catalog.parquet", out=tmp_path, device="cpu", **SMALL)
    assert tree(tmp_path) == ["features.json"]


def test_the_report_shows_table_and_pictures(look, tmp_path):
    text = build_report(ReportInput(features=[look]), tmp_path / "report.html").read_text()
    record = FeatureRecord.read(look)
    assert ">Features</h2>" in text
    assert text.count("<img") == len(record.figures)
    for item in record.encoders:
        assert f'<th scope="row">{item.name}</th>' in text
    best = max(item.linear_mean_iou for item in record.maps)
    assert f"<strong>{100 * best:.1f}\u202f%</strong>" in text
    (look_copy := tmp_path / "copy").mkdir()
    shutil.copy(look / "features.json", look_copy)
    with pytest.raises(tilth.TilthError, match="no such picture"):
        build_report(ReportInput(features=[look_copy]), tmp_path / "report.html")


WRONG: list[Case] = [
    (["{farm}/nothing", "{farm}/catalog.parquet"], 1, ("{farm}/nothing: no such folder",)),
    (["{farm}/denoiser", "{farm}/none.parquet"], 1, ("no such catalog file",)),
    (["{farm}/land", "{farm}/catalog.parquet"], 1, ("{farm}/land", "model folder")),
    (["{farm}/radar", "{farm}/catalog.parquet"], 1, ("radar: a model for sensor 's1'", "the tiles are of 'rgb'")),
    (["{farm}/denoiser", "{farm}/catalog.parquet", "--test-split", "nobody"], 1, ("no labelled tile to test on",)),
    (["{farm}/denoiser", "{farm}/catalog.parquet", "--split", "test"], 1, ("show pixels of tiles to test on",)),
    (["{farm}/denoiser", "{farm}/catalog.parquet", "maps.times=[0,9999]"], 2, ("9999",)),
    (["{farm}/denoiser", "{farm}/catalog.parquet", "maps.strides=[64]"], 2, ("maps.strides: the encoder has none of 64",)),
    (["{farm}/denoiser", "{farm}/catalog.parquet", "maps.strides=[4,4]"], 2, ("give each once",)),
    (["{farm}/denoiser", "{farm}/catalog.parquet", "--beside", "{farm}/land"], 1, ("{farm}/land",)),
    (["{farm}/denoiser", "{farm}/catalog.parquet", "--beside", "imagenet:nothing"], 2, ("nothing",)),
    (["{farm}/denoiser", "{farm}/catalog.parquet", "--device", "tpu"], 2, ("device=tpu: there is no such device here",)),
    (["{farm}/denoiser", "{farm}/catalog.parquet", "clusters.count=1"], 2, ("clusters.count",)),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: " ".join(case[0][2:]) or case[0][0])
def test_wrong_calls_are_refused_in_one_line_and_leave_nothing(case, farm, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    words, code, fragments = case
    refuse((["features", *words, "--out", "{out}/look"], code, fragments), farm, out, main, lambda: capsys.readouterr())

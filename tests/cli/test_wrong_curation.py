"""Wrong calls of ``tilth curate``: one line that names the thing and the way out, and no folder left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.curation_world import SIDE, make_model, plant
from support.tiny_farm import tree
from support.wrong_calls import Case, check_line, fill, refuse
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.sensors import get_sensor

WORDS = [f"inference.window={SIDE}", "inference.device=cpu"]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = plant(tmp_path_factory.mktemp("farm"), make_model())
    pool = Catalog.open(folder / "pool.parquet")
    pool.filter(tile_id="nobody").save(folder / "empty.parquet")
    pool.with_columns(split=["val"] * len(pool)).save(folder / "held_out.parquet")
    Catalog(pool.table, {"rgb": get_sensor("rgbn")}).save(folder / "rgbn.parquet")
    labelled = Catalog.open(folder / "labelled.parquet")
    labelled.with_columns(split=["test"] * len(labelled)).save(folder / "tested.parquet")
    (folder / "cut.parquet").write_bytes((folder / "pool.parquet").read_bytes()[:300])
    (folder / "something").mkdir()
    (folder / "something" / "else.txt").write_text("precious")
    (folder / "file").write_text("precious")
    return folder


def curate(*more: str, pool: str = "pool", model: str = "model", out: str = "{out}/deep") -> list[str]:
    return ["curate", f"{{farm}}/{pool}.parquet", "--model", f"{{farm}}/{model}", "--out", out, *WORDS, *more]


CASES: dict[str, Case] = {
    "no pool": (["curate", "--model", "{farm}/model", "--out", "{out}/deep"], 2, ("missing UNLABELLED",)),
    "no model": (["curate", "{farm}/pool.parquet", "--out", "{out}/deep"], 2, ("missing --model",)),
    "lost pool": (curate(pool="none"), 1, ("none.parquet: no such catalog file",)),
    "pool cut short": (curate(pool="cut"), 1, ("cut.parquet: not a readable Parquet file",)),
    "empty pool": (curate(pool="empty"), 1, ("the pool has no tile",)),
    "pool without a tile in the split": (curate(pool="held_out"), 1, ("held_out.parquet: no tile in split train; splits there: val",)),
    "same pool twice": (
        ["curate", "{farm}/pool.parquet", "{farm}/pool.parquet", "--model", "{farm}/model", "--out", "{out}/deep"],
        1,
        ("tile_id 'plain_00' occurs more than once",),
    ),
    "folder that is no model": (curate(model="something"), 1, ("something: not a model folder, config.json is missing",)),
    "model of another sensor": (
        curate(pool="rgbn"),
        1,
        ("the pool are of sensor 'rgb' (bands red, green, blue, nir", "the model wants 'rgb' (bands red, green, blue,"),
    ),
    "labelled tiles of another sensor": (curate("--labelled", "{farm}/rgbn.parquet"), 1, ("the labelled tiles are of sensor 'rgb'",)),
    "quotas without labelled tiles": (
        curate("--tiles", "5"),
        2,
        ("diversity.quotas=labelled", "give --labelled CATALOG, or choose equal or none"),
    ),
    "quotas of unlabelled tiles": (
        curate("--tiles", "5", "--labelled", "{farm}/held_out.parquet", pool="pool"),
        1,
        ("--labelled: none of its 23 tiles has a label; build the catalog with masks",),
    ),
    "labelled tiles in another split": (
        curate("--tiles", "5", "--labelled", "{farm}/tested.parquet"),
        1,
        ("--labelled: no labelled tile in split 'train'; splits there: test",),
    ),
    "more tiles than there are": (curate("--tiles", "24", "diversity.quotas=none"), 2, ("--tiles 24: the pool has only 23 tiles",)),
    "no tiles": (curate("--tiles", "0"), 2, ("--tiles: expected greater than or equal to 1",)),
    "unknown setting": (curate("filters.most_brigth=1"), 2, ("'filters.most_brigth'", "did you mean 'most_bright'?")),
    "unknown option": (curate("--labeled", "x"), 2, ("--labelled",)),
    "unknown reading": (curate("--entropy", "all"), 2, ("'foreground', 'all_classes' or 'foreground_renormalised'", "'all'")),
    "unknown quotas": (curate("diversity.quotas=some"), 2, ("'labelled', 'equal' or 'none'",)),
    "share above 1": (curate("filters.least_valid=7"), 2, ("filters.least_valid: expected less than or equal to 1",)),
    "background that the model does not have": (curate("scoring.background=[sihp]"), 2, ("no class 'sihp'; did you mean 'ship'?",)),
    "all classes background": (
        curate("scoring.background=[Background, ship, plane, tank]"),
        2,
        ("all 4 classes of the model are named",),
    ),
    "overlap larger than a window": (curate("inference.overlap=64"), 2, ("overlap (64) must be smaller than window (64)",)),
    "device that is not there": (curate("inference.device=cuda:77"), 2, ("inference.device=cuda:77: there is no such device here",)),
    "out is a file": (curate(out="{farm}/file"), 1, ("file: is a file; curation needs a folder",)),
    "out holds something else": (curate(out="{farm}/something"), 1, ("something: holds else.txt and no curation of tilth",)),
    "out below a file": (curate(out="{farm}/file/deep"), 1, ("cannot be made", "is a file")),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_curation_is_refused_in_one_line(name, farm, tmp_path, capsys):
    refuse(CASES[name], farm, tmp_path, main, capsys.readouterr)


def test_two_curations_in_one_folder_at_once_are_refused(farm, tmp_path, capsys):
    from tilth.imagery.files import folder_lock

    words = fill(curate("--no-report"), farm, tmp_path)
    assert main(words) == 0
    before = tree(tmp_path)
    capsys.readouterr()
    with folder_lock(tmp_path / "deep", "testing in"):
        assert main(words) == 1
    check_line(capsys.readouterr().err, ("another process is curating into it",), farm)
    assert tree(tmp_path) == before

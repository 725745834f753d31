"""Places that cannot be written to, outputs that are in the way, and input that disappears: one line, and whole files or none."""

import re
import shutil
from collections.abc import Callable

import pytest

from support.small_disk import find_namespace, run_calls
from support.tiny_farm import WORDS, tree
from support.wrong_calls import Case, check_line, fill, refuse, state
from tilth.cli.main import main
from tilth.verbs.console import TextConsole

SMALL = ["inference.window=32", "inference.overlap=8"]
SCENE = ["catalog", "build", "{farm}/scenes/sound.tif", "--sensor", "rgb", "--scheme", "{farm}/schemes/six.json"]
MAP = "{farm}/maps/sound.tif"
NO_SCORE = "validation_split=null"
CODES = "{values: {0: land}, unlisted: ignore}"
TWO_SCENES = ["predict", "{farm}/model_rgb", "{farm}/scenes/sound.tif", "{farm}/scenes/south_up.tif", "--out", "{out}/o", *SMALL]

# name: words that write below {out}, and how much room there is when it fails half way
WRITERS: dict[str, tuple[list[str], int | None]] = {
    "landscapes": (["landscapes", "{out}/o", "--scenes", "2", "--size", "64"], 40_960),
    "catalog build": (["catalog", "build", "{farm}/pairs", "--sensor", "rgb", "--out", "{out}/o/x.parquet"], None),
    "polygons as labels": (
        [*SCENE, "--labels", "{farm}/vectors/sound.gpkg", "--label-column", "kind", "--out", "{out}/o/x.parquet"],
        8_192,
    ),
    "codes as labels": (
        [*SCENE, "--labels", "{farm}/labels/codes", "--label-codes", "{farm}/codes.json", "--out", "{out}/o/x.parquet"],
        8_192,
    ),
    "labels resampled": ([*SCENE, "--labels", "{farm}/labels/half_pixel", "--align", "resample", "--out", "{out}/o/x.parquet"], 8_192),
    "catalog import": (["catalog", "import", "{farm}/tables/sound.csv", "--sensor", "rgb", "--out", "{out}/o/x.parquet"], None),
    "catalog check": (["catalog", "check", "{farm}/sound.parquet", "--out", "{out}/o/x.json"], None),
    "sound rest": (["catalog", "check", "{farm}/sound.parquet", "--clean", "{out}/o/x.parquet"], None),
    "catalog split": (["catalog", "split", "{farm}/tiles.parquet", "--block-m", "100", "--out", "{out}/o/x.parquet"], None),
    "contact sheet": (["catalog", "show", "{farm}/sound.parquet", "--out", "{out}/o/x.png"], 8_192),
    "starter recipe": (["inspect", "{farm}/pairs", "--out", "{out}/o"], None),
    "pack": (["pack", "{farm}/tiles.parquet", "--out", "{out}/o"], 8_192),
    "prepare": (["datasets", "prepare", "image-mask-colours", "{farm}/pairs_colour", "--sensor", "rgb", "--out", "{out}/o"], 8_192),
    "predict": (
        ["predict", "{farm}/model_rgb", "{farm}/scenes/sound.tif", "--out", "{out}/o/m.tif", "--confidence", "--probabilities", *SMALL],
        40_960,
    ),
    "polygons": (["polygons", MAP, "--out", "{out}/o/x.gpkg"], 40_960),
    "sample": (["sample", MAP, "--samples", "30", "--minimum", "2", "--out", "{out}/o/x.gpkg"], 40_960),
    "assess": (["assess", MAP, "--reference", "{farm}/points/sound.csv", "--out", "{out}/o"], 8_192),
    "evaluate": (["evaluate", "{farm}/model_rgb", "{farm}/sound.parquet", "--out", "{out}/o", *SMALL], 8_192),
    "report": (["report", "--out", "{out}/o/r.html", f"maps=[{{path: {MAP}}}]"], 40_960),
    "finetune": (
        ["finetune", "segment", "--labelled", "{farm}/sound.parquet", "--labelled-split", "test", "--out", "{out}/o", *WORDS, NO_SCORE],
        40_960,
    ),
}
STRIPS = re.compile(r"o|o/[a-z_]+\.tif\.partial(/stamp\.json|/[0-9]{6}\.strip)?")
NO_ROOM = ("No space left on device", "was not written whole", "disk is full", "MiB free", "is there room on the disk?")

ROOM: dict[str, Callable[[int | None], int | None]] = {"read only": lambda _: None, "full": lambda _: 0, "too small": lambda room: room}
DISKS = [(name, kind) for name, (_, room) in WRITERS.items() for kind in ("read only", "full", *(("too small",) if room else ()))]


@pytest.fixture(scope="module")
def disks(weeds, tmp_path_factory):
    """What became of every writer on every disk, all in one process."""
    folder = tmp_path_factory.mktemp("disks")
    namespace = find_namespace(folder)
    if namespace is None:
        pytest.skip("no file system can be mounted here")
    calls, before = [], state(weeds)
    for words, room in [*((WRITERS[name][0], ROOM[kind](WRITERS[name][1])) for name, kind in DISKS), (TWO_SCENES, 40_960)]:
        filled = [word.replace("{farm}", str(weeds)).replace("{out}", "{disk}") for word in words]
        calls.append({"words": filled, "room": room})
    found = dict(zip([*DISKS, ("two maps", "too small")], run_calls(namespace, calls, folder / "disk"), strict=True))
    assert state(weeds) == before
    return found


@pytest.mark.parametrize(("name", "kind"), DISKS)
def test_disk_without_room_is_one_line_and_keeps_nothing(name, kind, weeds, disks):
    found = disks[name, kind]
    assert found["code"] == 1, found["err"]
    assert found["out"] == ""
    check_line(found["err"], ("/disk/o",), weeds)
    last = found["err"].splitlines()[-1]
    assert any(words in last for words in (("Read-only file system",) if kind == "read only" else NO_ROOM)), last
    # What was computed of a map is kept to go on from.
    assert [left for left in found["left"] if not STRIPS.fullmatch(left)] == []
    assert found["left"] == [] or (name, kind) == ("predict", "too small")


def test_map_that_was_finished_before_the_disk_was_full_stays_whole(weeds, disks):
    found = disks["two maps", "too small"]
    assert found["code"] == 1
    check_line(found["err"], ("/disk/o/south_up.tif.partial",), weeds)
    assert [left for left in found["left"] if not STRIPS.fullmatch(left)] == ["o/sound.tif", "o/sound.tif.aux.xml"]


A_FILE = ("{farm}/file is a file",)
IN_THE_WAY: dict[str, Case] = {
    "map below a file": (["predict", "{farm}/model_rgb", "{farm}/scenes/sound.tif", "--out", "{farm}/file/m.tif", *SMALL], 1, A_FILE),
    "maps into a file": (["predict", "{farm}/model_rgb", "{farm}/scenes/sound.tif", "--out", "{farm}/file", *SMALL], 1, A_FILE),
    "map as png": (
        ["predict", "{farm}/model_rgb", "{farm}/scenes/sound.tif", "--out", "{out}/m.png"],
        2,
        ("give a .tif file for one scene, a folder for several",),
    ),
    "mosaic into a folder": (
        ["predict", "{farm}/model_rgb", "{farm}/scenes/sound.tif", "--mosaic", "--out", "{farm}/nothing"],
        2,
        ("a mosaic becomes one map; give a .tif file",),
    ),
    "map of something else": (
        ["predict", "{farm}/model_rgb", "{farm}/scenes/sound.tif", "--out", MAP, *SMALL],
        1,
        ("maps/sound.tif: exists already", "--overwrite"),
    ),
    "polygons below a file": (["polygons", MAP, "--out", "{farm}/file/p.gpkg"], 1, ("file: cannot be made: it is a file",)),
    "points below a file": (["sample", MAP, "--out", "{farm}/file/p.csv"], 1, ("file: cannot be made: it is a file",)),
    "assessment into a file": (["assess", MAP, "--reference", "{farm}/points/sound.csv", "--out", "{farm}/file"], 1, ("file: is a file",)),
    "scores into a file": (["evaluate", "{farm}/model_rgb", "{farm}/sound.parquet", "--out", "{farm}/file"], 1, ("file: is a file",)),
    "scores below a file": (["evaluate", "{farm}/model_rgb", "{farm}/sound.parquet", "--out", "{farm}/file/x", *SMALL], 1, A_FILE),
    "page below a file": (["report", "--out", "{farm}/file/r.html", f"maps=[{{path: {MAP}}}]"], 1, ("file: cannot be made: it is a file",)),
    "page over a folder": (["report", "--out", "{farm}/nothing", f"maps=[{{path: {MAP}}}]"], 2, ("a report is an HTML file",)),
    "catalog over a folder": (["catalog", "check", "{farm}/sound.parquet", "--out", "{farm}/nothing"], 1, ("nothing: is a folder",)),
    "starter into a file": (["inspect", "{farm}/pairs", "--out", "{farm}/file"], 1, ("file: cannot be made: it is a file",)),
    "findings over a folder": (["inspect", "{farm}/pairs", "--facts", "{farm}/nothing"], 1, ("nothing: is a folder",)),
    "pack into a file": (["pack", "{farm}/sound.parquet", "--out", "{farm}/file"], 1, ("file: is a file; packed tiles need a folder",)),
    "pack below a file": (["pack", "{farm}/sound.parquet", "--out", "{farm}/file/p"], 1, A_FILE),
    "pack among other things": (
        ["pack", "{farm}/sound.parquet", "--out", "{farm}/pairs"],
        1,
        ("holds 3 files (classes.json, images, masks) and no pack", "another --out"),
    ),
    "data set into a file": (
        ["datasets", "prepare", "image-mask", "{farm}/pairs", "--sensor", "rgb", "--out", "{farm}/file"],
        1,
        ("file: is a file; give a folder",),
    ),
    "data set among other things": (
        ["datasets", "prepare", "image-mask", "{farm}/pairs", "--sensor", "rgb", "--out", "{farm}/maps"],
        1,
        ("maps: is not empty and holds no prepared data set",),
    ),
    "run among other things": (
        ["finetune", "segment", "--labelled", "{farm}/sound.parquet", "--labelled-split", "test", "--out", "{farm}/maps", *WORDS, NO_SCORE],
        1,
        ("maps: already holds files; choose another --out",),
    ),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_output_that_is_in_the_way_is_named_and_kept(name, weeds, tmp_path, capsys):
    refuse(IN_THE_WAY[name], weeds, tmp_path, main, capsys.readouterr)


@pytest.mark.parametrize(
    ("thing", "fragment"), [("file", "is in the way of the strips"), ("folder", "holds 'mine.txt' and no unfinished map")]
)
def test_place_of_an_unfinished_map_is_not_taken_from_others(thing, fragment, weeds, tmp_path, capsys):
    partial = tmp_path / "m.tif.partial"
    if thing == "file":
        partial.write_text("mine")
    else:
        partial.mkdir()
        (partial / "mine.txt").write_text("mine")
    before = state(tmp_path)
    words = ["predict", str(weeds / "model_rgb"), str(weeds / "scenes" / "sound.tif"), "--out", str(tmp_path / "m.tif"), *SMALL]
    assert main(words) == 1
    check_line(capsys.readouterr().err, (fragment, "move it away"), weeds)
    assert state(tmp_path) == before


def test_starter_that_was_worked_on_is_not_replaced(weeds, tmp_path, capsys):
    words = ["inspect", str(weeds / "pairs"), "--out", str(tmp_path / "starter")]
    assert main(words) == 0
    before = state(tmp_path)
    capsys.readouterr()
    assert main(words) == 1
    check_line(capsys.readouterr().err, ("recipe.yaml: is there already and may have been worked on",), weeds)
    assert state(tmp_path) == before


# name: words, file that goes while they work, fragments, what is left
GOING: dict[str, tuple[list[str], str, tuple[str, ...], list[str]]] = {
    "label": (
        ["catalog", "build", "{data}/pairs", "--sensor", "rgb", "--strict", "--label-codes", CODES, "--out", "{out}/x.parquet"],
        "pairs/masks/a.png",
        ("pairs/masks/a.png: no such file",),
        [],
    ),
    "scene": (
        ["predict", "{farm}/model_rgb", "{data}/scenes/sound.tif", "{data}/scenes/wide.tif", "--out", "{out}", *SMALL],
        "scenes/wide.tif",
        ("scenes/wide.tif: no such file",),
        ["sound.tif", "sound.tif.aux.xml"],
    ),
    "mask of a set": (
        ["datasets", "prepare", "image-mask-colours", "{data}/pairs_colour", "--sensor", "rgb", "--out", "{out}/o"],
        "pairs_colour/masks/a.png",
        ("pairs_colour/masks/a.png: no such file",),
        [],
    ),
}


@pytest.mark.parametrize("name", GOING)
def test_input_that_disappears_meanwhile_is_named(name, weeds, tmp_path, capsys, monkeypatch):
    words, going, fragments, left = GOING[name]
    data, out = tmp_path / "data", tmp_path / "out"
    for folder in ("pairs", "pairs_colour"):
        shutil.copytree(weeds / folder, data / folder)
    (data / "scenes").mkdir()
    for scene in ("sound", "wide"):
        shutil.copy(weeds / "scenes" / "sound.tif", data / "scenes" / f"{scene}.tif")
    out.mkdir()
    monkeypatch.setattr(TextConsole, "status", lambda *_: (data / going).unlink(missing_ok=True))
    assert main([word.replace("{data}", str(data)) for word in fill(words, weeds, out)]) == 1
    check_line(capsys.readouterr().err, fragments, weeds)
    assert tree(out) == left

"""Wrong calls of the real commands: one line that names the thing and the way out, an exit code, and nothing left behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tilth
from support.tiny_farm import TRAINING, WORDS, grow, plant, tree
from support.wrong_calls import Case, check_line, fill, refuse
from tilth.cli.main import main
from tilth.imagery.write import write_json, write_raster

CLASSES = {"name": "two", "classes": [{"name": "land", "colour": [9, 9, 9]}, {"name": "water", "colour": [0, 0, 255]}]}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound data, one model, and every kind of wrong data, each in a folder of its own."""
    torch.set_num_threads(1)
    root = plant(tmp_path_factory.mktemp("farm"))
    grow(root)
    pairs(root / "pairs")
    tilth.catalog_build(inputs=[root / "pairs"], sensor="rgb", out=root / "pairs.parquet", split="test")
    tilth.catalog_build(inputs=[root / "pairs" / "images"], sensor="rgb", out=root / "plain.parquet")
    two_sizes(root / "two_sizes")
    bad_labels(root / "bad_labels")
    tilth.catalog_build(inputs=[root / "bad_labels"], sensor="rgb", out=root / "bad_labels.parquet", split="train")
    unknown_stem(root / "unknown_stem")
    cut_short(root)
    others(root)
    return root


def pairs(folder: Path, mask_size: int = 64, values: int = 2) -> None:
    """Four image and mask pairs of 64 pixels."""
    draw = np.random.default_rng(1)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(4):
        Image.fromarray(draw.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(draw.integers(0, values, (mask_size, mask_size), dtype=np.uint8)).save(folder / "masks" / f"{number}.png")
    write_json(folder / "classes.json", CLASSES)


def two_sizes(folder: Path) -> None:
    pairs(folder, mask_size=32)


def bad_labels(folder: Path) -> None:
    pairs(folder, values=9)


def unknown_stem(folder: Path) -> None:
    pairs(folder)
    (folder / "splits").mkdir()
    (folder / "splits" / "train.txt").write_text("0\n1\n7\n")


def cut_short(root: Path) -> None:
    """A GeoTIFF and a JPEG that end in the middle."""
    whole = (root / "land" / "images" / "scene_000.tif").read_bytes()
    (root / "short.tif").write_bytes(whole[: len(whole) // 2])
    (root / "stub.tif").write_bytes(whole[:60])
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(root / "short.jpg", quality=95)
    whole = (root / "short.jpg").read_bytes()
    (root / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "empty").mkdir()
    (root / "text.parquet").write_text("no table")
    (root / "file").write_text("")


def others(root: Path) -> None:
    """A scene of another sensor, configuration files, recipes."""
    write_raster(root / "radar.tif", np.ones((2, 64, 64), np.float32), crs="EPSG:32632", transform=(10, 0, 500_000, 0, -10, 5_000_000))
    (root / "twin").mkdir()
    shutil.copy(root / "land" / "images" / "scene_000.tif", root / "twin")
    (root / "options.yaml").write_text("windw: 64\n")
    (root / "nested.yaml").write_text("loop: {schedule: {warmup: 5}}\n")
    recipe = "name: r\ndescription: d\nvalues: {data: null, size: 64}\nstages:\n"
    (root / "recipe.yaml").write_text(
        recipe + "  - {name: a, verb: landscapes, options: {out: '${out}/a', size: '${size}', seed: '${data}'}}\n"
    )
    (root / "verb.yaml").write_text(recipe.replace("null", "1") + "  - {name: a, verb: landscape, options: {out: '${out}/a'}}\n")
    build = f"  - {{name: a, verb: catalog build, options: {{inputs: [{root}/none], sensor: rgb, out: '${{out}}/a.parquet'}}}}\n"
    (root / "first.yaml").write_text(recipe.replace("null", "1") + build)
    options = TRAINING | {"task": "segment", "labelled": [f"{root}/bad_labels.parquet"], "out": "${out}/run", "validation_split": None}
    write_json(root / "training.yaml", {"name": "t", "description": "d", "stages": [{"name": "a", "verb": "finetune", "options": options}]})
    late = "  - {name: a, verb: landscapes, options: {out: '${out}/a'}}\n  - {name: b, verb: catalog show, options: {catalg: x}}\n"
    (root / "late.yaml").write_text(recipe.replace("null", "1") + late)


TRAIN = ["finetune", "segment", "--labelled", "{farm}/catalog.parquet", "--out", "{out}/run", *WORDS]
PRETRAIN = ["pretrain", "s4p", *TRAIN[2:]]

CASES: dict[str, Case] = {
    "wrong verb": (["plough"], 2, ("no verb 'plough'", "choices: assess, catalog, ")),
    "near-miss verb": (["finetun", "segment"], 2, ("no verb 'finetun'", "did you mean 'finetune'?")),
    "verb without its group": (["build", "x"], 2, ("did you mean 'catalog build'?",)),
    "near-miss verb of a group": (["catalog", "chek"], 2, ("did you mean 'check'?",)),
    "wrong option": (["landscapes", "{out}/x", "--colour", "red"], 2, ("no option '--colour'", "choices: ")),
    "near-miss option": (["landscapes", "{out}/x", "--scense", "2"], 2, ("did you mean '--scenes'?",)),
    "option that is a setting": (["finetune", "segment", "--learning-rate", "1"], 2, ("did you mean 'loop.learning_rate=...'?",)),
    "setting without its group": ([*TRAIN, "steps=5"], 2, ("unknown key 'steps'", "did you mean 'loop.steps=...'?")),
    "help as a verb": (["help"], 2, ("did you mean 'tilth --help'?",)),
    "recipe whose first stage fails": (["run", "{farm}/recipe.yaml", "--out", "{farm}/file/x", "values.data=1"], 1, ("cannot be made",)),
    "recipe whose data are missing": (["run", "{farm}/first.yaml", "--out", "{out}/x"], 1, ("none: no such file or folder",)),
    "recipe whose training fails": (["run", "{farm}/training.yaml", "--out", "{out}/x"], 1, ("outside the scheme",)),
    "wrong type": (["landscapes", "{out}/x", "--scenes", "many"], 2, ("--scenes: expected a valid integer", "'many'")),
    "value out of range": (["landscapes", "{out}/x", "--size", "8"], 2, ("--size: expected greater than or equal to 32", "'8'")),
    "missing sensor": (
        ["catalog", "build", "{farm}/pairs", "--out", "{out}/x.parquet"],
        2,
        ("missing --sensor", "tilth catalog build --help"),
    ),
    "missing out": (["evaluate", "{farm}/run", "{farm}/catalog.parquet"], 2, ("missing --out",)),
    "unknown key in --config": (
        ["predict", "{farm}/run", "a.tif", "--config", "{farm}/options.yaml"],
        2,
        ("unknown key 'windw'", "choices: "),
    ),
    "unknown nested key in --config": (
        [*TRAIN, "--config", "{farm}/nested.yaml"],
        2,
        ("'loop.schedule.warmup'", "did you mean 'warmup_from'", "warmup_steps"),
    ),
    "no such --config": ([*TRAIN, "--config", "{farm}/none.yaml"], 1, ("none.yaml: no such file",)),
    "unknown sensor": (
        ["catalog", "build", "{farm}/pairs", "--sensor", "rgbb", "--out", "{out}/x.parquet"],
        2,
        ("'rgbb'", "did you mean 'rgb'?"),
    ),
    "unknown sensor of landscapes": (["landscapes", "{out}/x", "--sensor", "rgbb"], 2, ("'rgbb'", "did you mean 'rgb'?")),
    "no such scheme": (
        ["catalog", "build", "{farm}/pairs", "--sensor", "rgb", "--scheme", "{farm}/none.json", "--out", "{out}/x.parquet"],
        1,
        ("none.json: no such class scheme file", "give a YAML or JSON file"),
    ),
    "missing folder": (
        ["catalog", "build", "{farm}/none", "--sensor", "rgb", "--out", "{out}/x.parquet"],
        1,
        ("none: no such file or folder",),
    ),
    "folder without images": (
        ["catalog", "build", "{farm}/empty", "--sensor", "rgb", "--out", "{out}/x.parquet"],
        1,
        ("no image found", ".tif"),
    ),
    "masks of another size": (
        ["catalog", "build", "{farm}/two_sizes", "--sensor", "rgb", "--strict", "--out", "{out}/x.parquet"],
        1,
        ("64 x 64 pixels", "32 x 32", "must share one grid"),
    ),
    "wrong number of bands": (
        ["catalog", "build", "{farm}/radar.tif", "--sensor", "rgb", "--out", "{out}/x.parquet"],
        1,
        ("radar.tif", "bands 3", "choose the sensor that fits"),
    ),
    "truncated tif": (
        ["catalog", "build", "{farm}/stub.tif", "--sensor", "rgb", "--out", "{out}/x.parquet", "--strict"],
        1,
        ("stub.tif", "truncated"),
    ),
    "split file names a missing stem": (
        ["catalog", "build", "{farm}/unknown_stem", "--sensor", "rgb", "--out", "{out}/x.parquet"],
        1,
        ("train.txt", "'7'", "line 3", "list stems without suffix"),
    ),
    "catalog is no parquet": (["catalog", "show", "{farm}/text.parquet"], 1, ("text.parquet", "arquet")),
    "no such catalog": (["catalog", "check", "{farm}/none.parquet"], 1, ("none.parquet", "no such")),
    "too few blocks": (
        ["catalog", "split", "{farm}/tiles.parquet", "--out", "{out}/x.parquet", "--block-m", "1e6"],
        1,
        ("make block_m smaller",),
    ),
    "catalog without labels": ([*TRAIN, "labelled=[{farm}/plain.parquet]"], 1, ("no tile has a label", "build the catalog with masks")),
    "catalog without splits": ([*TRAIN, "labelled=[{farm}/tiles.parquet]"], 1, ("no labelled tile in split 'train'", "splits there: none")),
    "no such split": ([*TRAIN, "--labelled-split", "trian"], 1, ("'trian'", "splits there: test, train, val")),
    "no such validation split": ([*TRAIN, "--validation-split", "vla"], 1, ("'vla'", "validation_split=null")),
    "unknown method": (["pretrain", "s4", *PRETRAIN[2:]], 2, ("unknown method 's4'", "did you mean 's4p'?")),
    "unknown method setting": (
        [*PRETRAIN, "--unlabelled", "{farm}/catalog.parquet", "--labelled-tiles", "4", "settings.treshold=1"],
        2,
        ("'treshold'", "did you mean 'threshold'?"),
    ),
    "device of validation": ([*TRAIN, "inference.device=cpu"], 2, ("unknown key 'inference.device'",)),
    "plateau without validation": (
        [*TRAIN, "loop.schedule.kind=plateau", "validation_split=null"],
        2,
        ("loop.schedule.kind=plateau", "choose another schedule"),
    ),
    "unknown encoder": ([*TRAIN, "network.encoder=resnet81"], 2, ("'resnet81'", "did you mean 'resnet")),
    "unknown task": (["finetune", "detect", *TRAIN[2:]], 2, ("TASK", "'segment'")),
    "s4p without unlabelled": (PRETRAIN, 2, ("unlabelled tiles", "--unlabelled CATALOG")),
    "s4p in finetune": ([*TRAIN, "--method", "s4p"], 2, ("tilth pretrain s4p",)),
    "pool without rows": (
        [*PRETRAIN, "--unlabelled", "{farm}/catalog.parquet", "--unlabelled-split", "no"],
        1,
        ("split no", "splits there: test"),
    ),
    "two limits of labels": ([*TRAIN, "--labelled-tiles", "3", "--labelled-percent", "5"], 2, ("exclude each other",)),
    "more labels than there are": ([*TRAIN, "--labelled-tiles", "300"], 1, ("300",)),
    "label outside the scheme in training": (
        [*TRAIN, "labelled=[{farm}/bad_labels.parquet]", "--validation-split", "null"],
        1,
        ("outside", "tilth catalog check"),
    ),
    "warm-up longer than the run": ([*TRAIN, "loop.schedule.warmup_steps=9"], 2, ("warmup_steps (9)", "smaller than steps")),
    "no model": (
        ["evaluate", "{farm}/empty", "{farm}/catalog.parquet", "--out", "{out}/x"],
        1,
        ("empty: not a model folder", "tilth pretrain or finetune"),
    ),
    "model of another sensor": (
        ["predict", "{farm}/run", "{farm}/radar.tif", "--out", "{out}/x.tif"],
        1,
        ("has 2 bands", "the model expects sensor 'rgb'"),
    ),
    "folder without a scene": (["predict", "{farm}/run", "{farm}/empty", "--out", "{out}/x"], 1, ("empty: is a folder without a raster",)),
    "scene cut short": (["predict", "{farm}/run", "{farm}/short.tif", "--out", "{out}/x.tif"], 1, ("short.tif", "truncated")),
    "jpg cut short": (["predict", "{farm}/run", "{farm}/short.jpg", "--out", "{out}/x.tif"], 1, ("short.jpg", "truncated")),
    "no such scene": (
        ["predict", "{farm}/run", "{farm}/twin/scene_000.tif", "{farm}/none.tif", "--out", "{out}/x"],
        1,
        ("none.tif", "no such"),
    ),
    "run folder not empty": ([*TRAIN, "--out", "{farm}/run"], 1, ("already holds a finished run", "choose another --out")),
    "nothing to resume": ([*TRAIN, "--resume"], 1, ("no checkpoint to resume from", "start without --resume")),
    "scene is the output": (
        ["predict", "{farm}/run", "{farm}/twin/scene_000.tif", "--out", "{farm}/twin/scene_000.tif"],
        2,
        ("would replace the scene",),
    ),
    "scene is in the output folder": (
        ["predict", "{farm}/run", "{farm}/twin/scene_000.tif", "--out", "{farm}/twin"],
        2,
        ("would replace the scene",),
    ),
    "two scenes of one name": (
        ["predict", "{farm}/run", "{farm}/twin/scene_000.tif", "{farm}/land/images/scene_000.tif", "--out", "{out}/x"],
        2,
        ("two scenes are called 'scene_000'", "one by one"),
    ),
    "several scenes into one file": (
        ["predict", "{farm}/run", "{farm}/twin/scene_000.tif", "{farm}/land/images/scene_001.tif", "--out", "{out}/x.tif"],
        2,
        ("there are 2 scenes", "a folder for several"),
    ),
    "windows that overlap too much": (
        ["predict", "{farm}/run", "{farm}/twin/scene_000.tif", "--out", "{out}/x.tif", "inference.window=64", "inference.overlap=64"],
        2,
        ("overlap",),
    ),
    "no tile in the split": (
        ["evaluate", "{farm}/run", "{farm}/catalog.parquet", "--split", "tset", "--out", "{out}/x"],
        1,
        ("tset", "splits there: test, train, val"),
    ),
    "device that is not there": (
        ["evaluate", "{farm}/run", "{farm}/catalog.parquet", "--out", "{out}/x", "inference.device=cuda:99"],
        2,
        ("inference.device=cuda:99", "choices: auto, cpu"),
    ),
    "overlap as large as the window": (
        ["evaluate", "{farm}/run", "{farm}/catalog.parquet", "--out", "{out}/x", "inference.window=64", "inference.overlap=64"],
        2,
        ("inference: overlap (64) must be smaller than window (64)",),
    ),
    "catalog of another scheme": (["evaluate", "{farm}/run", "{farm}/pairs.parquet", "--out", "{out}/x"], 1, ("scheme",)),
    "unknown metric": (["compare", "groups.a={farm}/run", "--out", "{out}/x", "--metric", "miou"], 2, ("'miou'", "choices: AA, ")),
    "nothing to compare": (["compare", "--out", "{out}/x"], 2, ("missing groups",)),
    "seeds without place": (["compare", "groups.a={farm}/run", "--seeds", "0,1", "--out", "{out}/x"], 2, ("needs {seed}",)),
    "no such evaluation": (["compare", "groups.a={farm}/none", "--out", "{out}/x"], 1, ("none",)),
    "report of nothing": (["report", "--out", "{out}/x.html"], 2, ("nothing to report", "give at least one of")),
    "report of no match": (["report", "--out", "{out}/x.html", "--runs", "{farm}/runs/*"], 1, ("nothing matches",)),
    "report of no run": (["report", "--out", "{out}/x.html", "--runs", "{farm}/none"], 1, ("none: no such run folder",)),
    "output below a file": (
        ["catalog", "build", "{farm}/pairs", "--sensor", "rgb", "--out", "{farm}/file/x.parquet"],
        1,
        ("file", "cannot be made"),
    ),
    "scenes below a file": (["landscapes", "{farm}/file/x"], 1, ("cannot be made",)),
    "run below a file": ([*TRAIN, "--out", "{farm}/file/run"], 1, ("{farm}/file/run",)),
    "recipe lacks a value": (["run", "{farm}/recipe.yaml", "--out", "{out}/x"], 2, ("needs a value for 'data'", "values.data=")),
    "recipe has no such value": (
        ["run", "{farm}/recipe.yaml", "--out", "{out}/x", "values.dta=1"],
        2,
        ("no value 'dta'", "did you mean 'data'?"),
    ),
    "recipe with an unknown verb": (
        ["run", "{farm}/verb.yaml", "--out", "{out}/x"],
        2,
        ("no verb 'landscape'", "did you mean 'landscapes'?"),
    ),
    "slip in the last stage": (["run", "{farm}/late.yaml", "--out", "{out}/x"], 2, ("stage 'b'", "'catalg'", "did you mean 'catalog'?")),
    "no such recipe": (["run", "dmo", "--out", "{out}/x"], 2, ("'dmo'", "did you mean 'demo'?")),
    "no such recipe file": (["run", "{farm}/none.yaml", "--out", "{out}/x"], 1, ("none.yaml: no such file",)),
}

OWN_PROCESS = (
    *("wrong verb", "near-miss verb", "near-miss option", "wrong type", "missing sensor", "unknown key in --config", "unknown sensor"),
    *("missing folder", "truncated tif", "recipe lacks a value", "slip in the last stage", "report of nothing", "catalog is no parquet"),
)


@pytest.mark.parametrize("name", CASES)
def test_wrong_call_says_what_is_wrong_and_leaves_nothing(name, farm, tmp_path, capsys):
    refuse(CASES[name], farm, tmp_path, main, capsys.readouterr)


@pytest.mark.parametrize("name", OWN_PROCESS)
def test_wrong_call_ends_the_process_the_same_way(name, farm, tmp_path):
    words, code, fragments = CASES[name]
    command = [str(Path(sys.executable).with_name("tilth")), *fill(words, farm, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    check_line(done.stderr, fragments, farm)
    assert tree(tmp_path) == []


def test_damage_among_many_files_is_left_out_with_a_warning(farm, tmp_path, capsys):
    shutil.copytree(farm / "pairs", tmp_path / "pairs")
    (tmp_path / "pairs" / "images" / "1.png").write_bytes(b"broken")
    assert main(["catalog", "build", str(tmp_path / "pairs"), "--sensor", "rgb", "--out", str(tmp_path / "x.parquet")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("3 tiles, 3 with labels")
    assert [line for line in err.splitlines() if "tilth: warning: left out" in line and "1.png" in line]


@pytest.mark.parametrize(("catalog", "fragment"), [("bad_labels", "label value: expected 0 to 1 or 255"), ("short", "short.jpg")])
def test_check_of_bad_data_ends_with_one_and_lists_it(catalog, fragment, farm, tmp_path, capsys):
    if catalog == "short":
        # Headers are sound, so the build takes it; only reading the pixels shows the damage.
        (tmp_path / "images").mkdir()
        shutil.copy(farm / "short.jpg", tmp_path / "images" / "short.jpg")
        words = ["catalog", "build", str(tmp_path / "images"), "--sensor", "rgb", "--out", str(tmp_path / "short.parquet")]
        assert main(words) == 0
    place = farm / "bad_labels.parquet" if catalog == "bad_labels" else tmp_path / "short.parquet"
    before = tree(tmp_path)
    capsys.readouterr()
    assert main(["catalog", "check", str(place)]) == 1
    out, _ = capsys.readouterr()
    assert fragment in out
    assert "errors" in out.splitlines()[-1]
    assert tree(tmp_path) == before


def test_warning_of_a_wrong_option_does_not_hide_behind_json(farm, capsys):
    """Messages are lines for people even where the value typed is a structure."""
    assert main(["report", "--out", "x.html", f"maps={json.dumps([{'pth': 'x'}])}"]) == 2
    assert "'maps.0.pth'" in capsys.readouterr().err
    assert not (Path.cwd() / "x.html").exists()

"""Which stages a second run of a recipe does again, and which it leaves alone."""

import html
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import tilth
from support.tiny_farm import TRAINING, tree
from tilth.cli.main import main
from tilth.config import apply_overrides
from tilth.errors import ConfigError, OutputExistsError, RunError
from tilth.recipes.stamps import INPUT_OPTIONS, OUTPUT_OPTIONS
from tilth.verbs import registry

SCORE = {"catalog": "${out}/catalog.parquet", "inference": TRAINING["inference"], "gallery": 0}
RECIPE = {
    "name": "tiny",
    "description": "Everything a recipe can do, in seconds.",
    "values": {"land": None, "steps": 2, "block_m": 100, "title": "Tiny", "workers": 0},
    "stages": [
        {
            "name": "build",
            "verb": "catalog build",
            "options": {
                "inputs": ["${land}/images"],
                "labels": "${land}/masks",
                "layout": "scenes",
                "sensor": "rgb",
                "window_px": 64,
                "out": "${out}/tiles.parquet",
            },
        },
        {
            "name": "split",
            "verb": "catalog split",
            "options": {"catalog": "${out}/tiles.parquet", "block_m": "${block_m}", "out": "${out}/catalog.parquet"},
        },
        {
            "name": "train",
            "verb": "finetune",
            "options": TRAINING
            | {
                "task": "segment",
                "labelled": ["${out}/catalog.parquet"],
                "out": "${out}/runs/a",
                "loop": TRAINING["loop"] | {"steps": "${steps}", "workers": "${workers}", "checkpoint_every": 1},
            },
        },
        {"name": "score", "verb": "evaluate", "options": SCORE | {"model": "${out}/runs/a", "out": "${out}/scores/a-0"}},
        {"name": "compare", "verb": "compare", "options": {"groups": {"a": "${out}/scores/a-{seed}"}, "out": "${out}/comparison"}},
        {
            "name": "report",
            "verb": "report",
            "options": {"title": "${title}", "runs": ["${out}/runs/*"], "evaluations": ["${out}/scores/*"], "out": "${out}/report.html"},
        },
    ],
}
ALL = ["build", "split", "train", "score", "compare", "report"]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that was done once: ``land``, ``recipe.yaml`` and ``out``."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("once")
    tilth.landscapes(out=root / "land", scenes=4, size=128, seed=3)
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    assert go(root).values == {"done": ALL, "skipped": []}
    return root


@pytest.fixture
def again(once: Path, tmp_path: Path) -> Path:
    """A copy of it, times of change kept."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    return tmp_path


def go(root: Path, dry_run: bool = False, out: Path | None = None, **values):
    # The folder of data is named relative to the copy, so that the copies are alike.
    os.chdir(root)
    return tilth.run(recipe=root / "recipe.yaml", out=out or Path("out"), values={"land": "land"} | values, dry_run=dry_run)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_second_run_skips_everything_and_changes_no_file(again):
    before = {name: (again / name).stat().st_mtime_ns for name in tree(again)}
    result = go(again)
    assert result.values == {"done": [], "skipped": ALL}
    assert result.outputs["report"] == Path("out/report.html")
    assert {name: (again / name).stat().st_mtime_ns for name in tree(again)} == before


def test_folder_that_was_moved_or_is_named_otherwise_keeps_its_stamps(again):
    assert go(again, out=again / "out").values["done"] == []
    (again / "out").rename(again / "elsewhere")
    assert go(again, out=Path("elsewhere")).values["done"] == []
    os.chdir(again / "elsewhere")
    assert tilth.run(recipe=again / "recipe.yaml", out=".", values={"land": "land"}, dry_run=True).values["to_do"] == ["build", *ALL[1:]]
    (again / "elsewhere" / "land").symlink_to(again / "land")
    assert tilth.run(recipe=again / "recipe.yaml", out=".", values={"land": "land"}, dry_run=True).values["to_do"] == []


def test_changed_option_does_its_stage_again_and_those_that_read_its_outputs(again):
    assert go(again, title="Other").values["done"] == ["report"]
    assert "Other" in (again / "out" / "report.html").read_text()
    recipe = yaml.safe_load((again / "recipe.yaml").read_text())
    recipe["stages"][3]["options"]["gallery"] = 1
    (again / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert go(again, title="Other").values["done"] == ["score", "compare", "report"]


def test_setting_that_does_not_change_a_training_does_not_ask_for_it_again(again):
    assert go(again, workers=1).values["done"] == []


def test_changed_score_is_in_the_report_though_that_names_patterns(again):
    file = again / "out" / "scores" / "a-0" / "metrics.json"
    shutil.copytree(file.parent, again / "out" / "scores" / "b-0")
    assert go(again, dry_run=True).values["to_do"] == ["report"]
    shutil.rmtree(again / "out" / "scores" / "b-0")
    os.utime(file)
    assert go(again).values["done"] == ["compare", "report"]


def test_changed_input_file_does_all_again_but_no_run_is_replaced(again):
    os.utime(again / "land" / "masks" / "scene_001.tif")
    before = tree(again)
    with pytest.raises(OutputExistsError, match=r"out/runs/a \(stage 'split' is done before it\); remove the folder to train anew"):
        go(again)
    assert tree(again) == before
    lines = dict(line.split(": ", 1) for line in go(again, dry_run=True).summary)
    assert lines["build"] == "tilth catalog build - to do (land/masks changed)"
    assert lines["train"] == "tilth finetune - cannot be done: out/runs/a holds a run (stage 'split' is done before it)"
    shutil.rmtree(again / "out" / "runs" / "a")
    assert go(again).values["done"] == ALL


def test_changed_training_stops_the_recipe_before_anything_is_done_and_names_folder_and_change(again, capsys):
    before = tree(again)
    os.chdir(again)
    assert main(["run", "recipe.yaml", "--out", "out", "values.land=land", "values.steps=3", "values.block_m=90"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "runs are never replaced, and 1 would be: out/runs/a (loop.steps 2 -> 3); remove the folder to train anew" in err
    assert tree(again) == before
    weights = (again / "out" / "runs" / "a" / "model" / "model.safetensors").read_bytes()
    assert go(again).values["done"] == []
    assert (again / "out" / "runs" / "a" / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("lost", "redone"),
    [("comparison/comparison.json", ["compare"]), ("scores/a-0/metrics.json", ["score", "compare", "report"]), ("report.html", ["report"])],
)
def test_deleted_output_is_made_again(again, lost, redone):
    (again / "out" / lost).unlink()
    assert go(again).values["done"] == redone
    assert (again / "out" / lost).is_file()


def test_output_that_was_cut_short_is_made_again(again):
    file = again / "out" / "comparison" / "comparison.json"
    file.write_bytes(file.read_bytes()[:9])
    assert go(again).values["done"] == ["compare"]


def test_what_lies_beside_does_not_count(again):
    """Sidecars of viewers, hidden files, and what of a run only resuming and watching need."""
    (again / "land" / "images" / "scene_000.tif.aux.xml").write_text("<PAMDataset/>")
    (again / "land" / ".DS_Store").write_text("")
    (again / "land" / "images" / ".thumbs").mkdir()
    shutil.rmtree(again / "out" / "runs" / "a" / "tensorboard")
    shutil.rmtree(again / "out" / "runs" / "a" / "checkpoints")
    assert go(again).values["done"] == []


def test_word_that_is_also_a_folder_is_no_input(again):
    for name in ("scenes", "segment", "test", "train", "auto", "Tiny"):
        (again / name).mkdir()
        (again / name / "x").write_text("x")
    assert go(again).values["done"] == []


def test_outputs_inside_an_input_folder_do_not_change_it(tmp_path):
    """The catalog beside its images: neither the stage's own output nor a later one's may ask for the stage again."""
    tilth.landscapes(out=tmp_path / "land", scenes=4, size=64)
    stages = [
        {
            "name": "build",
            "verb": "catalog build",
            "options": {"inputs": ["${out}"], "layout": "plain", "sensor": "rgb", "out": "${out}/a.parquet"},
        },
        {"name": "split", "verb": "catalog split", "options": {"catalog": "${out}/a.parquet", "block_m": 50, "out": "${out}/b.parquet"}},
        {"name": "show", "verb": "catalog show", "options": {"catalog": "${out}/b.parquet", "out": "${out}/sheet.png"}},
    ]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"name": "r", "description": "d", "stages": stages}))
    images = tmp_path / "land" / "images"
    assert tilth.run(recipe="r.yaml", out=images).values["done"] == ["build", "split", "show"]
    assert tilth.run(recipe="r.yaml", out=images).values["done"] == []
    shutil.copy(images / "scene_000.tif", images / "scene_009.tif")
    assert tilth.run(recipe="r.yaml", out=images).values["done"] == ["build", "split", "show"]


def test_stage_that_writes_over_its_input_is_refused(tmp_path):
    stage = {"name": "split", "verb": "catalog split", "options": {"catalog": "${out}/a.parquet", "out": "${out}/a.parquet"}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"name": "r", "description": "d", "stages": [stage]}))
    with pytest.raises(ConfigError, match="stage 'split' writes over its own input"):
        tilth.run(recipe="r.yaml", out="x")


def test_stage_that_failed_is_done_when_its_reason_is_gone(tmp_path):
    stage = {"name": "show", "verb": "catalog show", "options": {"catalog": "c.parquet", "out": "${out}/sheet.png"}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"name": "r", "description": "d", "stages": [stage]}))
    with pytest.raises(FileNotFoundError):
        tilth.run(recipe="r.yaml", out="x")
    tilth.landscapes(out="land", scenes=1, size=64)
    tilth.catalog_build(inputs=["land/images"], sensor="rgb", out="c.parquet")
    assert tilth.run(recipe="r.yaml", out="x").values["done"] == ["show"]
    assert tilth.run(recipe="r.yaml", out="x").values["done"] == []


def test_run_that_another_command_made_is_gone_on_with_only_if_it_is_the_same(again):
    (again / "out" / "stages" / "train.json").unlink()
    assert go(again).values["done"] == ["train", "score", "compare", "report"]
    assert go(again).values["done"] == []
    (again / "out" / "stages" / "train.json").unlink()
    with pytest.raises(
        RunError, match=r"out/runs/a: cannot resume, these settings differ from the run's recipe.yaml: loop.steps \(2 -> 3\)"
    ):
        go(again, steps=3)


def test_dry_run_writes_nothing(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    result = go(tmp_path, dry_run=True)
    assert result.summary[0] == "build: tilth catalog build - to do"
    assert result.values["to_do"] == ALL
    assert tree(tmp_path) == ["recipe.yaml"]


def test_stamps_know_every_option_that_is_a_path():
    for name in set(registry.targets()) - {"run", "demo"}:
        for key, info in registry.load(name).options.model_fields.items():
            if "Path" in str(info.annotation):
                assert key in INPUT_OPTIONS | OUTPUT_OPTIONS, f"{name}: {key}"


def test_report_shows_the_command_line_that_was_given(again):
    """As a shell takes it: read back, it asks for the same values."""
    recipe = yaml.safe_load((again / "recipe.yaml").read_text())
    recipe["stages"][-1]["options"]["commands"] = ["${command}"]
    recipe["values"]["nested"] = {}
    (again / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    values = {"title": "It's 10 < 11", "nested": {"a": ["x", None]}, "block_m": "100"}
    go(again, **values)
    texts = re.split("<[^>]*>|\n", (again / "out" / "report.html").read_text())
    line = html.unescape(next(text for text in texts if text.startswith("tilth run ")))
    words = shlex.split(line)
    assert words[:5] == ["tilth", "run", str(again / "recipe.yaml"), "--out", "out"]
    assert apply_overrides({}, words[5:])["values"] == {"land": "land", **values}
    assert main(words[1:]) == 0
    assert go(again, **values).values["done"] == []


def test_stages_whose_pixels_are_gone_are_done_again(tmp_path):
    """A catalog is of no use without the labels and shards that were made with it."""
    tilth.landscapes(out=tmp_path / "land", scenes=2, size=64)
    codes = {"values": dict.fromkeys(range(256), 0)}
    build = RECIPE["stages"][0]["options"] | {"inputs": ["land/images"], "labels": "land/masks"}
    stages = [
        {"name": "build", "verb": "catalog build", "options": build | {"label_codes": codes}},
        {"name": "pack", "verb": "pack", "options": {"catalog": "${out}/tiles.parquet", "out": "${out}/packed", "measure": False}},
    ]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "two", "description": "Two stages.", "stages": stages}))

    def do() -> list[str]:
        return tilth.run(recipe=tmp_path / "recipe.yaml", out=Path("out")).values["done"]

    assert do() == ["build", "pack"]
    assert do() == []
    shard = tmp_path / "out" / "packed" / "images-00000.arrow"
    whole = shard.read_bytes()
    shard.unlink()
    assert do() == ["pack"]
    assert shard.read_bytes() == whole
    label = next((tmp_path / "out" / "tiles_files").rglob("*.tif"))
    label.unlink()
    assert do()[0] == "build"
    assert label.is_file()
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    assert tilth.run(recipe=tmp_path / "recipe.yaml", out=tmp_path / "elsewhere").values["done"] == []

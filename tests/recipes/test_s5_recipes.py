"""The recipes of S5 with the paper's values, and small: every kind of row, from the publishers' folders to a score."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tilth
from support import public_pools, public_sets
from support.tiny_networks import OPTIONS
from tilth.errors import ConfigError
from tilth.recipes.config import StageConfig, expand
from tilth.recipes.plan import prepare
from tilth.recipes.run import load_recipe

ROWS = tuple(load_recipe("s5-pretrain").choices["row"])
BACKBONES = load_recipe("s5-pretrain").choices["backbone"]
GIVEN = {"data": "data", "curated": "curated", "weights": "mae.pth"}

SMALL = {
    **{"steps": 2, "batch": 2, "devices": 1, "size": 64, "scale_min": 1.0, "scale_max": 1.0, "window": 64},
    **{"precision": "32", "accelerator": "cpu", "workers": 0},
}
ENDS = {"validate_every": 2, "checkpoint_every": 2}


def given_for(row: str | None) -> dict[str, str]:
    """What to give a recipe: the row without pre-training takes no weights."""
    return {name: value for name, value in GIVEN.items() if row != "table11-scratch" or name != "weights"}


def stage(name: str, **values: Any) -> StageConfig:
    recipe = load_recipe(name)
    given = {key: value for key, value in (given_for(values.get("row")) | values).items() if key in recipe.values}
    (found,) = [item for item in expand(recipe, Path("out"), given) if item.verb in ("pretrain", "finetune")]
    return found


def tiny(backbone: str) -> dict[str, Any]:
    name = BACKBONES[backbone]["network"]["name"]
    return {"name": name, "image_size": 64, "options": OPTIONS[name]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Catalogs of tiny stand-ins of all sets, made by the recipe from the layouts of their publishers."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("s5")
    for name in public_pools.STAND_INS:
        public_pools.STAND_INS[name](folder / "sets" / name)
    public_sets.plant_loveda(folder / "sets" / "loveda")
    sets = [*public_pools.STAND_INS, "loveda"]
    done = tilth.run(recipe="s5-data", out=folder / "data", values={"root": str(folder / "sets"), "sets": sets})
    assert done.values["done"] == [f"prepare-{name}" for name in sets]
    return folder / "data"


def pretrain(row: str, out: Path, data: Path, **values: Any) -> Path:
    backbone = load_recipe("s5-pretrain").choices["row"][row]["backbone"]
    pool = (
        {} if row.startswith(("pool-samrs", "pool-random", "natural")) else {"unlabelled": [str(data / "millionaid" / "catalog.parquet")]}
    )
    few = {"unlabelled_tiles": 3} if "100k" in row or "500k" in row or row.startswith(("pool-", "table1-")) else {}
    given = {"row": row, "data": str(data), "network": tiny(backbone), "weights": None} | SMALL | ENDS | pool | few | values
    tilth.run(recipe="s5-pretrain", out=out, values=given)
    return out / "runs" / row


# The paper's values, as section 6 and table D of section 12 have them.
RATES = {name: 6e-5 if name in ("deeplab_r101", "swin_t") else 2e-5 for name in BACKBONES}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone_is_trained_as_the_paper_says(backbone):
    options = stage("s5-pretrain", row=f"table4-{backbone}").options
    loop = options["loop"]
    assert loop["batch_size"] == (48 if backbone == "vit_h" else 96)
    assert loop["learning_rate"] == RATES[backbone]
    assert (loop["steps"], loop["weight_decay"], loop["schedule"]) == (120_000, 0.01, {"kind": "cosine"})
    assert (loop["validate_every"], loop["checkpoint_every"], loop["devices"]) == (2000, 20_000, 8)
    assert loop["checkpointing"] == (backbone in ("vit_b", "vit_l", "vit_l_rvsa", "vit_h"))
    assert options["weak"] == {"size": 512, "scale_min": 0.5, "scale_max": 2.0}
    assert options["network"]["image_size"] == 512
    (task,) = prepare([stage("s5-pretrain", row=f"table4-{backbone}")], Path("out"))
    assert task.options.loop.schedule.warmup_steps == 0
    assert task.options.loop.betas == (0.9, 0.999)
    assert not task.options.weak.rot90
    from tilth.methods.base import choose_method

    method, settings = choose_method("s4p", task.options.settings)
    config = method.Config.parse(settings)
    assert (config.threshold, config.unlabelled_weight, config.teacher, config.partner) == (0.95, 1.0, "student", "stream")
    assert not config.teacher_mixed_precision


def test_official_configuration_has_one_rate_and_batch_for_all():
    loop = stage("s5-pretrain", row="table4-vit_h", preset="official_config").options["loop"]
    assert (loop["learning_rate"], loop["batch_size"]) == (5e-5, 96)


def test_value_given_from_outside_goes_before_every_choice():
    loop = stage("s5-pretrain", row="table4-vit_h", batch=16, learning_rate=1e-3).options["loop"]
    assert (loop["learning_rate"], loop["batch_size"]) == (1e-3, 16)
    assert stage("s5-pretrain", row="table4-vit_b", backbone="swin_t").options["network"]["name"] == "upernet_swin_t"


ROW_VALUES = {
    "table5-unimatch": {"settings": {"variant": "unimatch"}, "batch_size": 6},
    "table1-swin_t": {"unlabelled_tiles": 100_000, "unlabelled": ["curated/pool-millionaid/catalog.parquet"]},
    "pool-selected": {"unlabelled_tiles": None, "unlabelled": ["curated/pool-millionaid-100k/catalog.parquet"]},
    "table6-loveda": {"labelled": ["data/loveda/catalog.parquet"]},
    "figure6-100k": {"unlabelled_tiles": 100_000},
    "figure6-500k": {"unlabelled_tiles": 500_000},
    "figure6-full": {"unlabelled_tiles": None, "unlabelled": ["curated/pool-millionseg/catalog.parquet"]},
    "rs4p-vit_h": {"unlabelled": ["curated/pool-rs4p-1m/catalog.parquet"], "batch_size": 48},
    "table11-scratch": {"initial_weights": None},
    "table11-mae": {"initial_weights": "mae.pth"},
    "natural": {"labelled": ["data/ade20k/catalog.parquet"]},
}


@pytest.mark.parametrize("row", ROW_VALUES)
def test_row_differs_where_its_table_does(row):
    recipe = load_recipe("s5-pretrain")
    values = given_for(row) | {"row": row}
    (found,) = expand(recipe, Path("out"), values)
    options = found.options | {"batch_size": found.options["loop"]["batch_size"]}
    assert {name: options[name] for name in ROW_VALUES[row]} == ROW_VALUES[row]


@pytest.mark.parametrize("row", ROWS)
def test_options_of_every_row_validate_before_anything_is_there(row):
    (task,) = prepare(expand(load_recipe("s5-pretrain"), Path("out"), given_for(row) | {"row": row}), Path("out"))
    assert task.stage.name == f"s4p-{row}"


def test_curations_differ_as_the_two_papers_do():
    (seed, pool), (other_seed, other_pool) = (
        expand(load_recipe("s5-curate"), Path("out"), {"data": "data", "weights": "mae.pth", "rule": rule})
        for rule in ("rs4p-1m", "millionseg")
    )
    assert (seed.options["network"]["name"], other_seed.options["network"]["name"]) == ("upernet_vit_h", "upernet_vit_l")
    assert (pool.options["tiles"], other_pool.options["tiles"]) == (1_000_000, None)
    assert (pool.options["diversity"]["quotas"], other_pool.options["diversity"]["quotas"]) == ("labelled", "none")
    assert other_pool.options["filters"]["foreground_exempt"] == ["SAMRS, part SIOR", "SAMRS, part FAST"]
    assert any("dota" in path for path in other_pool.options["unlabelled"])
    assert not any("dota" in path for path in pool.options["unlabelled"])


def test_pool_of_other_sources_takes_nothing_away_from_that_of_the_rule():
    recipe, given = load_recipe("s5-curate"), {"data": "data", "weights": "mae.pth"}
    (seed, pool), (same_seed, other) = (
        expand(recipe, Path("out"), given | more) for more in ({}, {"pool": "millionaid-100k", "tiles": 100_000})
    )
    assert seed == same_seed
    assert (pool.options["out"], other.options["out"]) == ("out/pool-rs4p-1m", "out/pool-millionaid-100k")


def test_sep_learns_labels_of_all_tiles_with_and_without_a_split():
    # A curated pool has both: SAMRS says no splits, MillionAID does.
    options = stage("s5-sep", teacher="t", unlabelled=["pool.parquet"]).options
    assert options["labelled_split"] is None


STEPS = {
    "vaihingen": (75, 1324),
    "potsdam": (75, 7776),
    "loveda": (120, 4191),
    "openearthmap": (100, 2303),
    "vdd": (300, 360),
    "udd6": (600, 106),
}


@pytest.mark.parametrize("target", STEPS)
def test_finetuning_lasts_as_many_epochs_as_published(target):
    epochs, images = STEPS[target]
    options = stage("s5-finetune", target=target, labelled="c.parquet").options
    assert options["loop"]["steps"] == -(-epochs * images // 24)


def test_missing_value_is_asked_for_only_where_it_is_used():
    recipe = load_recipe("s5-pretrain")
    with pytest.raises(ConfigError, match="needs a value for 'data', 'curated', 'weights'"):
        expand(recipe, Path("out"), {})
    own = {"labelled": ["a.parquet"], "unlabelled": ["b.parquet"], "weights": None}
    assert expand(recipe, Path("out"), own)[0].options["initial_weights"] is None
    with pytest.raises(ConfigError, match="does not know it; did you mean 'table4-vit_b'"):
        expand(recipe, Path("out"), {"row": "table4-vitb"})


# One for every day; preparing the sets of the others is watched with their cards.
@pytest.mark.parametrize("row", [row if row == "table4-vit_h" else pytest.param(row, marks=pytest.mark.slow) for row in ROWS])
def test_row_runs_from_folders_of_the_publishers_to_a_model(row, data, tmp_path):
    run = pretrain(row, tmp_path, data)
    assert json.loads((run / "finished.json").read_text())["steps"] == 2
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["network"]["name"] == BACKBONES[load_recipe("s5-pretrain").choices["row"][row]["backbone"]]["network"]["name"]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["rs4p-1m", "millionseg"])
def test_curation_runs_and_its_pool_is_learnt_from(rule, data, tmp_path):
    small = {"data": str(data), "rule": rule, "network": tiny("vit_h"), "weights": None} | SMALL | ENDS
    if rule == "rs4p-1m":
        small |= {"tiles": 4, "diversity": {"quotas": "labelled", "clusters": 2}}
    # The noise of the stand-ins has no foreground that two steps would teach.
    filters = load_recipe("s5-curate").choices["rule"][rule]["filters"] | {"foreground_guard": False}
    done = tilth.run(recipe="s5-curate", out=tmp_path / "curated", values=small | {"filters": filters})
    assert done.values["done"] == [f"seed-{rule}", f"pool-{rule}"]
    record = json.loads((tmp_path / "curated" / f"pool-{rule}" / "curation.json").read_text())
    assert record["selected"] == (4 if rule == "rs4p-1m" else record["tiles"])
    row = "rs4p-vit_b" if rule == "rs4p-1m" else "figure6-full"
    pool = tmp_path / "curated" / f"pool-{rule}" / "catalog.parquet"
    run = pretrain(row, tmp_path / "s4p", data, unlabelled=[str(pool)])
    assert json.loads((run / "data.json").read_text())["streams"]["unlabelled"]["tiles"] == record["selected"]


@pytest.mark.slow
def test_chain_from_s4p_to_labels_to_sep_to_a_score(data, tmp_path):
    teacher = pretrain("table4-vit_h", tmp_path / "s4p", data)
    pool = [str(data / "millionaid" / "catalog.parquet")]
    values = {"teacher": str(teacher), "unlabelled": pool, "network": tiny("vit_b"), "weights": None, "checkpoint_every": 2} | SMALL
    done = tilth.run(recipe="s5-sep", out=tmp_path / "sep", values=values)
    assert done.values["done"] == ["labels", "sep-vit_b"]
    last = {"weights": str(tmp_path / "sep" / "runs" / "sep-vit_b"), "labelled": str(data / "loveda" / "catalog.parquet"), "split": "val"}
    done = tilth.run(recipe="s5-finetune", out=tmp_path / "tuned", values=last | {"target": "loveda"} | SMALL)
    assert done.values["done"] == ["finetune-loveda", "score-loveda"]
    assert (tmp_path / "tuned" / "scores" / "loveda" / "metrics.json").is_file()


def test_page_names_every_row_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "s5.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([a-z0-9]+-[a-z0-9_]+)` \|", page, flags=re.MULTILINE))
    assert {name for name in named if not name.startswith("s5-")} == {row for row in ROWS if row != "natural"}
    assert "`natural`" in page

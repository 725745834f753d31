"""From a recipe to stages without placeholders."""

from pathlib import Path

import pytest

from tilth.errors import ConfigError
from tilth.recipes.config import RecipeConfig, StageConfig, expand
from tilth.recipes.run import load_recipe, recipe_names

OUT = Path("there")


def recipe(*stages: dict, **values) -> RecipeConfig:
    return RecipeConfig(name="r", description="d", values=values, stages=stages)


def one(options: dict, given: dict | None = None, **values) -> dict:
    """Options of a single stage after expansion."""
    return expand(recipe({"name": "a", "verb": "show", "options": options}, **values), OUT, given or {})[0].options


def test_text_that_is_only_a_placeholder_becomes_the_value_itself():
    assert one({"steps": "${n}", "name": "n=${n}", "deep": {"k-${n}": ["${n}"]}}, n=5) == {"steps": 5, "name": "n=5", "deep": {"k-5": [5]}}


def test_list_inside_a_list_is_spliced_and_alone_stays_a_list():
    values = {"scenes": ["a.tif", "b.tif"]}
    assert one({"scenes": ["first.tif", "${scenes}"], "all": "${scenes}", "pairs": [[1, 2]]}, **values) == {
        "scenes": ["first.tif", "a.tif", "b.tif"],
        "all": ["a.tif", "b.tif"],
        "pairs": [[1, 2]],
    }


def test_out_is_always_there_and_given_values_go_before_those_of_the_recipe():
    assert one({"out": "${out}/x", "n": "${n}"}, {"n": 7}, n=5) == {"out": "there/x", "n": 7}


def test_values_refer_to_each_other_over_several_steps():
    assert one({"x": "${c}"}, a=["1"], b=["${a}", "2"], c="${b}") == {"x": ["1", "2"]}
    assert one({"x": "${scene}"}, {"data": "/d"}, data=None, folder="${data}/scenes", scene="${folder}/a.tif") == {"x": "/d/scenes/a.tif"}


def test_stage_is_repeated_for_every_combination_in_order():
    stage = {"name": "${m}-${seed}", "verb": "show", "each": {"m": ["a", "b"], "seed": "${seeds}"}, "options": {"seed": "${seed}"}}
    stages = expand(recipe(stage, seeds=[0, 1]), OUT, {})
    assert [(item.name, item.options["seed"]) for item in stages] == [("a-0", 0), ("a-1", 1), ("b-0", 0), ("b-1", 1)]
    assert all(item.each == {} for item in stages)


WRONG = [
    ({"name": "a", "verb": "v", "options": {"x": "${nn}"}}, {"n": 1, "nm": 2}, "stage 'a': no value 'nn' for '${nn}'; did you mean 'n"),
    ({"name": "a", "verb": "v", "options": {"x": "${n-1}"}}, {"n": 1}, "no value 'n-1'"),
    ({"name": "a", "verb": "v"}, {"data": None, "place": None}, "needs a value for 'data', 'place'; give values.data=..."),
    ({"name": "a", "verb": "v", "each": {"n": [1, 2]}}, {}, "two stages are called 'a'; put a value of 'each' into the name"),
    ({"name": "a-${n}", "verb": "v", "each": {"n": []}}, {}, "each.n must be a list with at least one value"),
    (
        {"name": "a-${n}", "verb": "v", "each": {"n": "${m}"}},
        {"m": 3},
        "each.n must be a list with at least one value, such as [0, 1], got 3",
    ),
    ({"name": "a-${n}", "verb": "v", "each": {"n": ["x/y"]}}, {}, "stage name 'a-x/y'"),
    ({"name": "a", "verb": "v", "options": {"x": "s-${n}"}}, {"n": [1]}, "go through it with 'each'"),
    ({"name": "a", "verb": "v"}, {"a": "${b}", "b": "x${a}"}, "refers to itself"),
]


@pytest.mark.parametrize(("stage", "values", "message"), WRONG)
def test_slip_in_a_recipe_is_named(stage, values, message):
    with pytest.raises(ConfigError) as caught:
        expand(recipe(stage, **values), OUT, {})
    assert message in str(caught.value)


def test_value_the_recipe_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="recipe 'r' has no value 'setps'; did you mean 'steps'"):
        expand(recipe({"name": "a", "verb": "v"}, steps=1), OUT, {"setps": 2})


@pytest.mark.parametrize("wrong", [{"values": {"out": "x"}}, {"stages": [{"name": "a", "verb": "v", "each": {"out": [1]}}]}])
def test_out_is_no_value_of_a_recipe(wrong):
    tree = {"name": "r", "description": "d", "stages": [{"name": "a", "verb": "v"}]} | wrong
    with pytest.raises(ConfigError, match="given with --out"):
        RecipeConfig.parse(tree)


def test_command_is_no_value_of_a_recipe():
    with pytest.raises(ConfigError, match="'command' cannot be a value of a recipe; it is the command line that does the recipe"):
        RecipeConfig.parse({"name": "r", "description": "d", "values": {"command": "x"}, "stages": [{"name": "a", "verb": "v"}]})


@pytest.mark.parametrize("name", ["loop.devices=2", "loop.nodes=3"])
def test_training_on_several_devices_is_refused_before_anything_is_done(name):
    from tilth.recipes.plan import prepare

    key, _, number = name.removeprefix("loop.").partition("=")
    options = {"task": "segment", "labelled": ["c.parquet"], "out": "${out}/run", "loop": {key: int(number), "batch_size": 6}}
    stages = expand(recipe({"name": "train", "verb": "finetune", "options": options}), OUT, {})
    with pytest.raises(ConfigError, match=rf"stage 'train': a recipe trains on one device, and .*{name}.*by itself with tilth finetune"):
        prepare(stages, OUT)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_expands_into_stages_whose_options_validate(name):
    from tilth.recipes.plan import prepare

    found = load_recipe(name)
    assert found.name == name
    given = {value: "data" for value, content in found.values.items() if content is None}
    stages = expand(found, OUT, given)
    tasks = prepare(stages, OUT)
    assert len({task.stamp for task in tasks}) == len(stages) > 5
    assert stages[-1].verb == "report"
    assert "${" not in str(stages)
    assert isinstance(stages[0], StageConfig)

"""From a recipe to stages without placeholders."""

from pathlib import Path

import pytest

from tilth.errors import ConfigError
from tilth.recipes.config import RecipeConfig, StageConfig, expand
from tilth.recipes.run import load_recipe

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
    (
        {"name": "a", "verb": "v", "options": {"x": "${all}"}},
        {"data": None, "place": None, "unused": None, "all": ["${data}/${place}"]},
        "needs a value for 'data', 'place'; give values.data=...",
    ),
    ({"name": "a", "verb": "v", "each": {"n": [1, 2]}}, {}, "two stages are called 'a'; put a value of 'each' into the name"),
    ({"name": "a-${n}", "verb": "v", "each": {"n": []}}, {}, "each.n must be a list with at least one value"),
    (
        {"name": "a-${n}", "verb": "v", "each": {"n": "${m}"}},
        {"m": 3},
        "each.n must be a list with at least one value, such as [0, 1], got 3",
    ),
    ({"name": "a-${n}", "verb": "v", "each": {"n": ["x/y"]}}, {}, "stage name 'a-x/y'"),
    ({"name": "a", "verb": "v", "options": {"x": "s-${n}"}}, {"n": [1]}, "go through it with 'each'"),
    ({"name": "a", "verb": "v", "options": {"x": "${a}"}}, {"a": "${b}", "b": "x${a}"}, "refers to itself"),
    ({"name": "a", "verb": "v", "options": {"x": "${a}"}}, {"a": "${b}", "b": "${a}"}, "refers to itself"),
    ({"name": "a-${n}", "verb": "v", "each": {"n": [1]}, "options": {"x": "${a}"}}, {"a": "x${a}"}, "values.a refers to itself"),
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


CHOICES = {
    "size": {"small": {"width": 8, "speed": "${rate}"}, "large": {"width": 64, "speed": "slow", "weights": None}},
    "speed": {"slow": {"rate": 1, "width": 5}, "fast": {"rate": 2}},
}
VALUES = {"size": "large", "speed": "fast", "width": None, "rate": 3, "weights": "w"}
SHOWN = {"options": {"width": "${width}", "rate": "${rate}", "weights": "${weights}"}}


def chosen(given: dict, values: dict = VALUES, choices: dict = CHOICES, **more: object) -> dict:
    found = RecipeConfig.parse(
        {"name": "r", "description": "d", "values": values, "choices": choices, **more, "stages": [{"name": "a", "verb": "v"} | SHOWN]}
    )
    return expand(found, OUT, given)[0].options


def test_choice_sets_values_and_later_choices_fill_what_is_open():
    # size=large says speed=slow, whose table says the rate; the width is said already.
    assert chosen({}) == {"width": 64, "rate": 1, "weights": None}


def test_what_is_given_goes_before_choices_and_these_before_defaults():
    assert chosen({"speed": "fast", "width": 7}) == {"width": 7, "rate": 2, "weights": None}
    assert chosen({"weights": "mine"})["weights"] == "mine"


def test_number_on_the_command_line_chooses_the_word_of_a_table():
    assert chosen({"size": 10}, choices={"size": {"10": {"width": 4}}})["width"] == 4


def test_null_given_from_outside_is_nothing_and_not_missing():
    assert chosen({"width": None})["width"] is None


def test_settled_nothing_cannot_be_given_and_null_can():
    choices = {"size": {"large": {"width": None}, "small": {"width": 3}}}
    assert chosen({"size": "small", "width": 5}, choices=choices, settled=["width"])["width"] == 5
    assert chosen({"size": "large", "width": 5}, choices=choices)["width"] == 5
    assert chosen({"size": "large", "width": None}, choices=choices, settled=["width"])["width"] is None
    with pytest.raises(ConfigError, match=r"values\.size=large means without width, and values\.width=5 gives some; leave"):
        chosen({"size": "large", "width": 5}, choices=choices, settled=["width"])
    with pytest.raises(ConfigError, match="settled: 'widht' is no value of the recipe; did you mean 'width'"):
        chosen({}, choices=choices, settled=["widht"])


@pytest.mark.parametrize(
    ("given", "values", "choices", "message"),
    [
        ({"size": "lrge"}, VALUES, CHOICES, "values.size=lrge: recipe 'r' does not know it; did you mean 'large'"),
        ({}, VALUES, {"size": {"large": {"widht": 3}}}, "choices.size: 'widht' is no value of the recipe; did you mean 'width'"),
        ({}, VALUES, {"kind": {}}, "choices.kind: 'kind' is no value of the recipe"),
        ({"size": ["large"]}, VALUES, CHOICES, "values.size=['large']: recipe 'r' does not know it"),
        (
            {},
            VALUES,
            {"size": {"large": {}}, "speed": {"fast": {"size": "small"}}},
            "choices.speed sets 'size' too late; put choices.size behind",
        ),
        ({}, VALUES, {"size": {"large": {"size": "small"}}}, "choices.size sets 'size' too late"),
        ({"rate": None}, VALUES | {"width": "w-${rate}"}, {}, "'rate' in 'w-${rate}' is null, nothing; give values.rate=..."),
    ],
)
def test_slip_in_a_choice_is_named(given, values, choices, message):
    with pytest.raises(ConfigError) as caught:
        chosen(given, values, choices)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["demo", "dubai", "dubai-methods", "dubai-small"])
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

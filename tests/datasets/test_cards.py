"""Cards are data: short, complete, closed; what is wrong with one is named with the nearest right word."""

import ast
import importlib.util
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

import tilth
from tilth.datasets import shelf
from tilth.datasets.config import Card
from tilth.datasets.patterns import compile_pattern, fill, placeholders
from tilth.datasets.shelf import card_names, load_card
from tilth.errors import ConfigError, MissingFileError

FOLDER = Path(shelf.__file__).parent / "cards"
GENERIC = {"image-mask", "image-mask-colours"}


@pytest.mark.parametrize("name", card_names())
def test_card_is_short_and_says_what_users_must_know(name):
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.count("\n") < 50
    assert max(map(len, text.splitlines())) <= 140
    card = load_card(name)
    assert card.name == name
    assert card.licence.name
    if name in GENERIC:
        return
    assert card.homepage.startswith("https://")
    assert re.search(r"\b20[012]\d\b", card.citation)
    assert card.download is not None
    assert all(layer.find_sensor() is not None for layer in card.layers)
    for labels in card.labels:
        scheme = labels.scheme(name)
        assert len(set(scheme.colours)) == len(scheme)
        # Masks of VOC, and of Dynamic World, hold class ids already.
        assert (labels.codes(scheme) is None) == (name in {"voc2012", "ssl4eo-s12", "ssl4eo-s12-nol"})


def test_published_splits_are_complete_and_apart():
    for name, sizes in (("isprs-potsdam", {"train": 24, "test": 14}), ("isprs-vaihingen", {"train": 16, "test": 17})):
        stems = load_card(name).splits.stems
        assert {split: len(listed) for split, listed in stems.items()} == sizes
    tiles = [stem for listed in load_card("isprs-vaihingen").splits.stems.values() for stem in listed]
    # The areas of Vaihingen are 1 to 38 without 9, 18, 19, 25 and 36.
    assert sorted(map(int, tiles)) == [number for number in range(1, 39) if number not in {9, 18, 19, 25, 36}]
    assert sum(load_card("loveda").splits.counts.values()) == 5987


def published(name: str) -> tuple[dict[str, Any], set[str]]:
    """Read a class of torchgeo.datasets without importing it, which takes seconds: its literal attributes, its arguments."""
    spec = importlib.util.find_spec("torchgeo")
    if spec is None:
        pytest.skip("needs torchgeo")
    for file in sorted((Path(spec.origin).parent / "datasets").glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                values = {}
                for item in node.body:
                    target = item.targets[0] if isinstance(item, ast.Assign) else getattr(item, "target", None)
                    with suppress(ValueError):
                        values |= {target.id: ast.literal_eval(item.value)} if target is not None else {}
                start = next(item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__")
                return values, {argument.arg for argument in start.args.args}
    raise AssertionError(f"torchgeo has no {name}")


def test_torchgeo_knows_what_is_downloaded_through_it():
    for card in map(load_card, card_names()):
        if card.download is not None and card.download.torchgeo is not None:
            _, arguments = published(card.download.torchgeo)
            for given in card.download.arguments:
                assert {"root", "download", "checksum", *given} <= arguments
    sums = {item["filename"]: item["md5"] for item in published("LoveDA")[0]["info_dict"].values()}
    assert {name: archive.md5 for name, archive in load_card("loveda").archives.items()} == sums


@pytest.mark.parametrize(("name", "known"), [("isprs-potsdam", "Potsdam2D"), ("isprs-vaihingen", "Vaihingen2D")])
def test_splits_colours_and_sums_are_those_of_torchgeo(name, known):
    card, (values, _) = load_card(name), published(known)
    assert {colour.strip("#") for colour in card.labels[0].classes.values()} == {bytes(item).hex().upper() for item in values["colormap"]}
    for split, listed in card.splits.stems.items():
        mine = {fill(card.labels[0].pattern[0], {"stem": stem}).removesuffix("_label.tif") for stem in listed}
        assert mine == set(values["splits"][split])
    sums = dict(zip(values["filenames"], values["md5s"], strict=True))
    assert [sums[file] for file, archive in card.archives.items() if archive.md5] == [
        item.md5 for item in card.archives.values() if item.md5
    ]


GOOD = """
name: mine
title: Mine
description: Made for a test.
licence: {name: CC0-1.0}
layers: [{pattern: "images/{stem}.png", sensor: rgb}]
labels: [{pattern: "masks/{stem}.png", classes: {land: "#000000", water: "#0000FF"}, values: {1: land, 2: water}}]
"""


def card_with(**changes: object) -> dict:
    tree = yaml.safe_load(GOOD)
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = tree
        for parent in parents:
            node = node[int(parent)] if parent.isdigit() else node.setdefault(parent, {})
        node[last] = value
    return tree


def test_good_card_is_good():
    assert Card.parse(card_with()).labels[0].codes(Card.parse(card_with()).labels[0].scheme("x")).values == {1: 0, 2: 1}


WRONG = {
    "unknown key": ({"licens": "x"}, "unknown key 'licens': did you mean 'licence'?"),
    "unknown key of a layer": ({"layers__0__sensr": "rgb"}, "'layers.0.sensr': did you mean 'sensor'?"),
    "unknown key of labels": ({"labels__0__colors": {}}, "'labels.0.colors': did you mean 'colours'?"),
    "unknown key of splits": ({"splits__folder": {}}, "'splits.folder': did you mean 'folders'?"),
    "unknown key of the licence": ({"licence__comercial": True}, "did you mean 'commercial'?"),
    "capital name": ({"name": "Mine"}, "name: "),
    "no licence name": ({"licence": {}}, "missing key 'licence.name'"),
    "unknown sensor": ({"layers__0__sensor": "rgbb"}, "unknown sensor 'rgbb'; did you mean 'rgb'?"),
    "no layer": ({"layers": []}, "layers"),
    "no stem": ({"layers__0__pattern": "images/{name}.png"}, "needs {stem}"),
    "path outside": ({"layers__0__pattern": "../{stem}.png"}, "expected a path below the data set's folder"),
    "absolute path": ({"layers__0__pattern": "/data/{stem}.png"}, "expected a path below the data set's folder"),
    "open brace": ({"layers__0__pattern": "images/{stem.png"}, "braces hold one name each"),
    "mask of an unknown placeholder": ({"labels__0__pattern": "masks/{area}.png"}, "layer 'image' has no {area}"),
    "unknown class": ({"labels__0__values": {1: "wather"}}, "'wather' is no class; did you mean 'water'?"),
    "colour that is none": ({"labels__0__classes": {"land": "green"}, "labels__0__values": {}}, "six hexadecimal digits"),
    "values and colours": ({"labels__0__colours": "classes"}, "give values or colours, not both"),
    "class called ignore": ({"labels__0__classes": {"ignore": "#000000"}, "labels__0__values": {}}, "'ignore' is no class"),
    "no scheme": ({"labels__0__classes": {}, "labels__0__values": {}}, "give either classes or scheme_file"),
    "kind of label that is not there": ({"labels__0__kind": "boxes"}, "labels.0.kind"),
    "split without folders": ({"layers__0__pattern": "{split}/{stem}.png"}, "{split} in a pattern and splits.folders need each other"),
    "folders without split": ({"splits__folders": {"a": "train"}}, "{split} in a pattern and splits.folders need each other"),
    "two kinds of splits": ({"splits": {"files": "{split}.txt", "stems": {"train": "a"}}}, "give one of folders, files and stems"),
    "stem twice": ({"splits__stems": {"train": "a b", "test": "b"}}, "stem 'b' is listed twice"),
    "listing without split": ({"splits__files": "train.txt"}, "files needs {split}"),
    "split by an unknown placeholder": ({"splits__by": "tile"}, "splits.by: layer 'image' has no {tile}"),
    "step without windows": ({"windows__stride_px": 8}, "stride_px needs window_px"),
    "checksum of another length": ({"archives": {"a.zip": {"md5": "abc"}}}, "archives.a.zip.md5"),
    "archive in a folder": ({"archives": {"x/a.zip": {}}}, "must be a file name without folders"),
    "download without a way": ({"download": {}}, "give either torchgeo or instructions"),
    "tolerance of values": ({"labels__0__tolerance": 3}, "tolerance is for colours"),
    "tolerance too wide": (
        {"labels__0__values": {}, "labels__0__colours": "classes", "labels__0__tolerance": 200},
        "differ by 255 only",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_card_is_refused_by_name(case):
    changes, fragment = WRONG[case]
    with pytest.raises(ConfigError) as error:
        Card.parse(card_with(**changes), source="mine.yaml")
    assert str(error.value).startswith("mine.yaml: ")
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "fragment"),
    [
        ({"shares": {"train": [50, 50]}}, "stores.shares: train needs a share for each class of labels, got 2"),
        ({"other_order": "osm-displai"}, "did you mean 'osm-display'?"),
        ({"label": None}, "stores.label and labels need each other"),
        ({"images": [{"key": "s1_{index}"}]}, "stores.images: every array needs a sensor"),
    ],
)
def test_wrong_stores_of_a_card_are_refused_before_anything_is_copied(spoil, fragment):
    tree = load_card("ssl4eo-s12-osm").model_dump(mode="json")
    tree["labels"] = [{"classes_of": "osm"}]
    Card.parse(tree)
    with pytest.raises(ConfigError) as error:
        Card.parse(tree | {"stores": tree["stores"] | spoil})
    assert fragment in str(error.value)


def test_bare_numbers_do_not_become_stems():
    """YAML reads 2_10 as 210; a text is taken apart instead."""
    assert Card.parse(card_with(splits__stems=yaml.safe_load("{train: 2_10 2_11}"))).splits.stems == {"train": ("2_10", "2_11")}


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        ("{split}/{stem}.png", "Train/a.png", {"root_": "", "split": "Train", "stem": "a"}),
        ("{split}/{stem}.png", "x/y/z/Train/a.png", {"root_": "x/y/z/", "split": "Train", "stem": "a"}),
        ("{split}/{stem}.png", "w/x/y/z/Train/a.png", None),
        ("Tile {tile}/i/{stem}.*", "Tile 3/i/p.1.jpg", {"root_": "", "tile": "3", "stem": "p.1"}),
        ("{stem}/{stem}_x.tif", "a/a_x.tif", {"root_": "", "stem": "a"}),
        ("{stem}/{stem}_x.tif", "a/b_x.tif", None),
        ("a.b/{stem}", "aXb/c", None),
    ],
)
def test_patterns_match_whole_paths(pattern, path, values):
    found = compile_pattern(pattern).fullmatch(path)
    assert (None if found is None else found.groupdict()) == values


def test_filling_and_matching_are_inverse():
    values = {"split": "Val", "area": "Urban", "stem": "17"}
    pattern = load_card("loveda").layers[0].pattern[0]
    assert placeholders(pattern) == set(values)
    assert compile_pattern(pattern).fullmatch(fill(pattern, values)).groupdict() == {"root_": ""} | values


def test_list_and_info_say_what_one_needs():
    listed = tilth.datasets_list()
    assert listed.values["datasets"] == list(card_names())
    row = next(line for line in listed.summary if line.startswith("loveda"))
    assert row.split() == ["loveda", "7", "rgb", "0.3", "m", "5,987", "CC-BY-NC-SA-4.0", "no", "yes"]
    said = "\n".join(tilth.datasets_info(name="isprs-potsdam").summary)
    for fragment in (
        "doi:10.5194",
        "commercial use: unknown",
        "5_Labels_all.zip, checksum unknown",
        "md5 c4a8f7d8c7196dd4eba4addd0aae10c1",
        "train 24, test 14",
        "top_potsdam_{stem}_label.tif  (mask)",
        "layer rgbn",
    ):
        assert fragment in said
    assert max(map(len, said.splitlines())) <= 110


def test_card_of_a_user_is_read_by_path(tmp_path):
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert "Mine" in tilth.datasets_info(name=tmp_path / "mine.yaml").summary[0]
    with pytest.raises(MissingFileError, match=r"none\.yaml: no such file"):
        tilth.datasets_info(name=str(tmp_path / "none.yaml"))

"""A training starts from a model of the same classes, of other classes, or from a published file; and says which it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tilth
from support import published_files
from support.tiny_farm import TRAINING, grow, plant
from support.training_sample import Recorder
from tilth.catalog.table import Catalog
from tilth.cli.main import main
from tilth.errors import ConfigError, SensorMismatchError, UnreadableFileError, UsageError
from tilth.evaluation.result import Evaluation
from tilth.models.export import Exported
from tilth.verbs.console import Console

STILL = TRAINING | {"loop": TRAINING["loop"] | {"learning_rate": 1e-12, "weight_decay": 0.0}}


class Told(Recorder, Console):
    """Keeps what a verb says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = plant(tmp_path_factory.mktemp("farm"))
    grow(root)
    return root


def relabelled(farm: Path, name: str, change) -> Path:
    """The catalog with the classes of its scheme changed; the labels' numbers stay."""
    catalog = Catalog.open(farm / "catalog.parquet")
    scheme = next(iter(catalog.schemes.values()))
    other = scheme.model_copy(update={"name": name, "classes": change(scheme.classes)})
    table = catalog.table.set_column(catalog.table.schema.get_field_index("scheme"), "scheme", [[name] * len(catalog)])
    return Catalog(table, catalog.sensors, {name: other}).save(farm / f"{name}.parquet")


def train(catalog: Path, out: Path, weights: Path | str, **more) -> tuple[dict[str, torch.Tensor], list[str]]:
    told = Told()
    tilth.finetune(task="segment", labelled=[catalog], out=out, initial_weights=weights, console=told, **(STILL | more))
    return load_file(out / "model" / "model.safetensors"), told.said


def learnt(tensors: dict[str, torch.Tensor], head: bool) -> dict[str, torch.Tensor]:
    """Weights of the class layer, or all others; statistics move with every step."""
    return {
        name: value
        for name, value in tensors.items()
        if value.is_floating_point() and "running" not in name and name.startswith("network.segmentation_head.") == head
    }


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("more", lambda classes: (*classes, classes[0].model_copy(update={"name": "one more"}))),
        ("turned", lambda classes: classes[::-1]),
        ("renamed_classes", lambda classes: tuple(item.model_copy(update={"name": f"my {item.name}"}) for item in classes)),
    ],
)
def test_model_of_other_classes_gives_all_but_its_class_layer(farm, tmp_path, name, change):
    before = load_file(farm / "run" / "model" / "model.safetensors")
    after, said = train(relabelled(farm, name, change), tmp_path / "run", farm / "run")
    assert all(torch.allclose(before[key], value, atol=1e-9) for key, value in learnt(after, head=False).items())
    weight = "network.segmentation_head.0.weight"
    assert before[weight].shape != after[weight].shape or not torch.allclose(before[weight], after[weight], atol=1e-3)
    (line,) = [line for line in said if "class layer" in line]
    assert line.startswith(f"{farm / 'run'}: a model for classes ")
    assert line.endswith("encoder and decoder are taken, the class layer starts fresh")


def test_fresh_class_layer_is_a_function_of_the_seed(farm, tmp_path):
    catalog = relabelled(farm, "seeds", lambda classes: classes[::-1])
    heads = [
        learnt(train(catalog, tmp_path / f"{place}", farm / "run", loop=STILL["loop"] | {"seed": seed})[0], head=True)
        for place, seed in enumerate((0, 0, 1))
    ]
    weight = "network.segmentation_head.0.weight"
    assert torch.equal(heads[0][weight], heads[1][weight])
    assert not torch.allclose(heads[0][weight], heads[2][weight], atol=1e-3)


def test_model_of_the_same_classes_is_taken_whole(farm, tmp_path):
    before = load_file(farm / "run" / "model" / "model.safetensors")
    after, said = train(farm / "catalog.parquet", tmp_path / "run", farm / "run")
    assert all(torch.allclose(before[key], value, atol=1e-9) for key, value in learnt(after, head=True).items())
    assert (
        said[0] == f"{farm / 'run'}: a model for the {len(tilth.Segmenter.load(farm / 'run').scheme)} classes of the catalog, taken whole"
    )
    assert not [line for line in said if "class layer" in line or "network.*" in line]
    note = json.loads((tmp_path / "run" / "initial_weights.json").read_text())
    assert (note["source"], note["verdict"]) == (str(farm / "run" / "model"), "whole")
    assert note["sha256"] == hashlib.sha256((farm / "run" / "model" / "model.safetensors").read_bytes()).hexdigest()


def resensed(farm: Path, place: Path, **change) -> Path:
    """The catalog with another sensor: other names, or other numbers of its first band."""
    catalog = Catalog.open(farm / "catalog.parquet")
    (name,) = catalog.sensors
    sensor = catalog.sensors[name]
    first = sensor.bands[0].model_copy(update=change)
    other = sensor.model_copy(update={"name": "mine", "bands": (first, *sensor.bands[1:])})
    table = catalog.table.set_column(catalog.table.schema.get_field_index("sensor"), "sensor", [["mine"] * len(catalog)])
    return Catalog(table, {"mine": other}, catalog.schemes).save(place)


def test_name_of_the_sensor_changes_nothing_and_numbers_do(farm, tmp_path):
    train(resensed(farm, tmp_path / "named.parquet"), tmp_path / "run", farm / "run")
    assert tilth.Segmenter.load(tmp_path / "run").sensor.name == "mine"
    with pytest.raises(SensorMismatchError, match=r"must be the same, and mean of band red is 0.485 for the model, 0.1 in the catalog"):
        train(resensed(farm, tmp_path / "other.parquet", mean=0.1), tmp_path / "other", farm / "run")


def test_colours_are_those_of_the_catalog(farm, tmp_path):
    catalog = relabelled(farm, "painted", lambda classes: tuple(item.model_copy(update={"colour": (1, 2, 3)}) for item in classes))
    train(catalog, tmp_path / "run", farm / "run")
    scheme = tilth.Segmenter.load(tmp_path / "run").scheme
    assert (scheme.name, set(scheme.colours)) == ("painted", {(1, 2, 3)})


def test_file_of_a_model_folder_is_the_folder(farm, tmp_path):
    file = farm / "run" / "model" / "model.safetensors"
    _, said = train(relabelled(farm, "by_file", lambda classes: classes[::-1]), tmp_path / "run", file)
    assert any(line.endswith("the class layer starts fresh") for line in said)
    with pytest.raises(SensorMismatchError, match="mean of band red"):
        train(resensed(farm, tmp_path / "other.parquet", mean=0.1), tmp_path / "other", file)


def test_part_is_chosen_of_files_and_not_of_folders(farm, tmp_path):
    file = tmp_path / "both.pth"
    other = {name: value + 1 for name, value in published_files.vit().items()}
    torch.save({"teacher": published_files.vit(), "student": other}, file)
    name = "blocks.0.norm1.weight"
    with published_files.small_networks():
        after, _ = train(
            farm / "catalog.parquet", tmp_path / "run", file, network={"name": "upernet_vit_b", "image_size": 64}, take="student"
        )
    assert torch.allclose(after[f"network.encoder.{name}"], other[name], atol=1e-9)
    with pytest.raises(UsageError, match=r"holds one model, of which parts can be taken \(encoder, .*, all\), and take is 's2'; leave"):
        train(farm / "catalog.parquet", tmp_path / "other", farm / "run", take="s2")
    with pytest.raises(ConfigError, match="take=s2: is a part of initial_weights, and there are none"):
        tilth.finetune(task="segment", labelled=[farm / "catalog.parquet"], out=tmp_path / "other", take="s2")


def part(tensors: dict[str, torch.Tensor], *starts: str) -> dict[str, torch.Tensor]:
    """Weights, without statistics, whose names begin so."""
    return {
        name: value
        for name, value in tensors.items()
        if value.is_floating_point() and "running" not in name and name.startswith(tuple(f"network.{start}" for start in starts))
    }


TAKEN = {
    "encoder": ("encoder.",),
    "de2": ("encoder.", "decoder.blocks.0.", "decoder.blocks.1."),
    "wocls": ("encoder.", "decoder."),
    "all": ("encoder.", "decoder.", "segmentation_head."),
}


@pytest.mark.parametrize("take", TAKEN)
def test_parts_of_a_model_are_taken_and_the_rest_starts_fresh(farm, tmp_path, take):
    before = load_file(farm / "run" / "model" / "model.safetensors")
    after, said = train(farm / "catalog.parquet", tmp_path / "run", farm / "run", take=take)
    taken = part(after, *TAKEN[take])
    assert all(torch.allclose(before[name], value, atol=1e-9) for name, value in taken.items())
    rest = [name for name, value in part(after, "").items() if name not in taken and value.ndim > 1]
    assert not [name for name in rest if torch.allclose(before[name], after[name], atol=1e-6)]
    assert bool(rest) == (take != "all")
    assert said[0].startswith(f"{farm / 'run'}: ")
    assert said[0].endswith("of the model" if take == "all" else "of the model; the rest of resnet10t + unet starts fresh")


def test_encoder_of_a_model_goes_under_any_decoder(farm, tmp_path):
    before = load_file(farm / "run" / "model" / "model.safetensors")
    for decoder in ("pspnet", "deeplabv3plus", "fpn", "upernet"):
        network = {"encoder": "resnet10t", "decoder": decoder}
        after, _ = train(farm / "catalog.parquet", tmp_path / decoder, farm / "run", take="encoder", network=network)
        found = part(after, "encoder.")
        assert found
        # PSPNet has no use for the last stages.
        assert all(torch.allclose(before[name], value, atol=1e-9) for name, value in found.items()), decoder


def test_parts_that_do_not_fit_are_refused_in_one_line(farm, tmp_path):
    turned = relabelled(farm, "turned_for_all", lambda classes: classes[::-1])
    for catalog, more, said in (
        (turned, {"take": "all"}, "class layer cannot be taken; take wocls, the rest"),
        (
            farm / "catalog.parquet",
            {"take": "de1", "network": {"encoder": "resnet10t", "decoder": "fpn"}},
            r"wants decoder\.blocks\.0\..*which the decoder of resnet10t \+ fpn does not have like this",
        ),
        (farm / "catalog.parquet", {"take": "encoder", "network": {"encoder": "resnet18"}}, "is not that of resnet18"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            train(catalog, tmp_path / "run", farm / "run", **more)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_frozen_encoder_of_random_weights_is_warned_of(farm, tmp_path):
    told = Told()
    loop = STILL["loop"] | {"transfer": {"frozen": "always"}}
    tilth.finetune(task="segment", labelled=[farm / "catalog.parquet"], out=tmp_path / "run", console=told, **(STILL | {"loop": loop}))
    assert any("its weights are random" in line for line in told.warnings)


def test_method_without_labels_cannot_freeze_what_it_trains(farm, tmp_path):
    with pytest.raises(ConfigError, match=r"frozen=always: method 'mae' trains the encoder itself"):
        tilth.pretrain(
            method="mae",
            unlabelled=[farm / "catalog.parquet"],
            out=tmp_path / "run",
            network={"name": "upernet_vit_b", "image_size": 64},
            loop={"transfer": {"frozen": "always"}},
        )


def test_tail_of_a_test_set_is_left_out_only_if_asked_for(farm, tmp_path):
    """Finding 15: the published program never scores the last tiles of its test set."""
    scored = {}
    for size in (1, 2):
        tilth.evaluate(
            model=farm / "run", catalog=farm / "catalog.parquet", out=tmp_path / str(size), split=[], whole_batches=size, gallery=0
        )
        scored[size] = [item.tile_id for item in Evaluation.read(tmp_path / str(size)).tiles]
    labelled = Catalog.open(farm / "catalog.parquet").labelled().column("tile_id")
    assert scored[1] == labelled
    assert scored[2] == labelled[: len(labelled) // 2 * 2]
    with pytest.raises(UsageError, match=f"there are only {len(labelled)} labelled tiles"):
        tilth.evaluate(model=farm / "run", catalog=farm / "catalog.parquet", out=tmp_path / "no", split=[], whole_batches=1000)


def test_name_of_a_file_says_nothing(farm, tmp_path):
    """Finding 19: the published program wants words of its training in the path of the weights."""
    file = tmp_path / "a name.of no meaning"
    torch.save({"state_dict": {f"net.{name}": value for name, value in published_files.vit().items()}}, file)
    with published_files.small_networks():
        after, _ = train(farm / "catalog.parquet", tmp_path / "run", file, network={"name": "upernet_vit_b", "image_size": 64})
    name = "blocks.0.norm1.weight"
    assert torch.allclose(after[f"network.encoder.{name}"], published_files.vit()[name], atol=1e-9)


def test_two_sources_of_the_encoder_are_one_too_many(farm, tmp_path):
    with pytest.raises(ConfigError, match=r"network.pretrained=yes and initial_weights=.* both fill the encoder"):
        train(farm / "catalog.parquet", tmp_path / "run", farm / "run", network={"encoder": "resnet18", "pretrained": True})


def test_use_of_a_model_with_fresh_parts_is_warned_of(farm, tmp_path, capsys, monkeypatch):
    """As an import leaves it whose file has other classes."""
    model = tmp_path / "model"
    shutil.copytree(farm / "run" / "model", model)
    note = {"verdict": "complete but for the classes", "missing": ["segmentation_head.0.weight", "segmentation_head.0.bias"]}
    (model / "import.json").write_text(json.dumps(note))
    scene = next((farm / "land" / "images").glob("*.tif"))
    monkeypatch.setattr("tilth.models.export.export_model", lambda _model, target, *_, **__: Exported((target,), None, 0.0))
    for words in (
        ["predict", model, scene, "--out", tmp_path / "map.tif", "inference.window=64", "inference.overlap=0"],
        ["evaluate", model, farm / "catalog.parquet", "--out", tmp_path / "scores", "--split", "val"],
        ["export", model, "--format", "torch", "--out", tmp_path / "x.pt2", "--size", 32],
    ):
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err
        assert "was imported without segmentation_head.0.weight, segmentation_head.0.bias" in capsys.readouterr().err, words[0]


def test_settings_of_another_network_are_said_to_be_of_no_use(farm, tmp_path):
    _, said = train(farm / "catalog.parquet", tmp_path / "run", farm / "run", network={"encoder": "resnet18", "decoder": "fpn"})
    assert f"{farm / 'run'}: brings its network, resnet10t + unet; network.* settings are not looked at" in said


def test_published_file_fills_the_network_of_the_settings(farm, tmp_path):
    file = tmp_path / "vit_b_s4p_upernet.pth"
    with published_files.small_networks():
        published = published_files.official("upernet_vit_b", num_classes=16)
        torch.save({"model": published_files.prefixed("module.", published)}, file)
        after, said = train(
            farm / "catalog.parquet", tmp_path / "run", file, network={"name": "upernet_vit_b", "image_size": published_files.SIDE}
        )
        source = published_files.network("upernet_vit_b", num_classes=16).state_dict()
    for name, value in learnt(after, head=False).items():
        assert torch.allclose(value, source[name.removeprefix("network.")], atol=1e-9), name
    assert said[0] == f"{file}: S5, plain ViT: whole network or encoder (s5-vit)"
    assert said[1].startswith("verdict: complete but for the classes; ")


def test_class_layer_of_a_file_starts_fresh_even_if_it_is_for_as_many_classes(farm, tmp_path):
    """What its class 0 is, the file does not say."""
    file = tmp_path / "vit.pth"
    classes = len(tilth.Segmenter.load(farm / "run").scheme)
    with published_files.small_networks():
        published = published_files.official("upernet_vit_b", num_classes=classes)
        torch.save({"model": published}, file)
        after, said = train(
            farm / "catalog.parquet", tmp_path / "run", file, network={"name": "upernet_vit_b", "image_size": published_files.SIDE}
        )
        source = published_files.network("upernet_vit_b", num_classes=classes).state_dict()
    for name, value in learnt(after, head=False).items():
        assert torch.allclose(value, source[name.removeprefix("network.")], atol=1e-9), name
    head = learnt(after, head=True)
    assert not any(
        torch.allclose(value, source[name.removeprefix("network.")], atol=1e-6) for name, value in head.items() if value.ndim > 1
    )
    assert said[1].startswith("verdict: complete but for the classes; ")
    assert any(
        line.startswith("dropped: segmentation_head.") and f"class layer of {classes} classes, as many as here" in line for line in said
    )
    assert any(line.startswith("note: inside model") for line in said)
    assert not any("sha256" in line for line in said)
    note = json.loads((tmp_path / "run" / "initial_weights.json").read_text())
    assert note["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (note["layout"], note["verdict"]) == ("s5-vit", "complete but for the classes")


def test_folder_of_another_program_is_a_published_file(farm, tmp_path):
    """As on the Hugging Face hub: its config.json is not ours."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    save_file(published_files.vit(), folder / "model.safetensors")
    (folder / "config.json").write_text('{"architecture": "vit_base_patch16_224"}')
    with published_files.small_networks():
        after, said = train(farm / "catalog.parquet", tmp_path / "run", folder, network={"name": "upernet_vit_b", "image_size": 64})
    assert torch.allclose(after["network.encoder.blocks.0.norm1.weight"], published_files.vit()["blocks.0.norm1.weight"], atol=1e-9)
    assert said[1].startswith("verdict: encoder only; ")


def test_file_that_does_not_fit_leaves_no_run(farm, tmp_path):
    torch.save(published_files.resnet(3), tmp_path / "resnet.pth")
    with (
        published_files.small_networks(),
        pytest.raises(UnreadableFileError, match=r"is a file of a ResNet .*, which this network cannot take; upernet_vit_b takes: "),
    ):
        train(farm / "catalog.parquet", tmp_path / "run", tmp_path / "resnet.pth", network={"name": "upernet_vit_b"})
    assert not (tmp_path / "run").exists()

"""Published files become model folders: with what the file says, a sensor, classes, and a note of where they are from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

import tilth
from support import published_files
from support.tiny_farm import tree
from tilth.errors import OutputExistsError, UnreadableFileError, UsageError
from tilth.models.config import NetworkConfig
from tilth.models.encoder_folder import load_encoder
from tilth.models.folder import load_network
from tilth.models.weights.importing import generic_scheme, warning_of_fresh_parts
from tilth.verbs.weights import ImportWeightsOptions


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as published; networks by name stay small while tests of this module run."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shelf")
    with published_files.set_up(folder):
        yield folder


def test_folder_predicts_what_the_published_network_predicts(shelf, tmp_path):
    file = shelf / "vit_b_s4p_upernet.pth"
    done = tilth.import_weights(file=file, as_="upernet_vit_b", out=tmp_path / "model", image_size=64)
    assert done.values["verdict"] == "complete"
    assert (done.values["sensor"], done.values["classes"]) == ("rgb", 16)
    model = tilth.Segmenter.load(tmp_path / "model")
    source = published_files.network("upernet_vit_b", num_classes=16).eval()
    image = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        assert torch.equal(model(image), source(image))
    assert model.scheme.names[:2] == ("class 0", "class 1")
    assert len(set(model.scheme.colours)) == 16


def test_note_beside_the_weights_says_where_they_are_from(shelf, tmp_path):
    file = shelf / "mae_pretrain_vit_base.pth"
    done = tilth.import_weights(file=file, as_="upernet_vit_b", out=tmp_path / "model", classes=3)
    assert tree(tmp_path) == ["model", "model/config.json", "model/import.json", "model/model.safetensors"]
    note = json.loads((tmp_path / "model" / "import.json").read_text())
    assert note["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() == done.values["sha256"]
    assert note["source"] == str(file)
    assert note["verdict"] == "encoder only"
    assert note["resized"]["encoder.position_embedding"].startswith("4 x 4 to 32 x 32 positions")
    assert note["dropped"]["norm.weight"] == "final norm: maps are taken before it"
    assert "decoder.fusion.convolution.weight" in note["missing"]
    assert any(line.startswith("an encoder folder: decoder and classes are not in it") for line in done.summary)
    with pytest.raises(UnreadableFileError, match="an encoder alone, whose decoder and classes nobody trained"):
        tilth.Segmenter.load(tmp_path / "model")
    found = load_encoder(tmp_path / "model")
    assert found.config.left_out == ("pyramid.",)
    model = tilth.build_segmenter(found.config.network, found.config.sensor, generic_scheme(3))
    found.fill(model)
    source = published_files.vit()["blocks.0.norm1.weight"]
    assert torch.equal(model.network.encoder.blocks[0].norm1.weight, source)


def test_sensor_and_scheme_are_those_that_were_given(shelf, tmp_path):
    scheme = tmp_path / "classes.yaml"
    scheme.write_text("name: two\nclasses: [{name: land, colour: [9, 9, 9]}, {name: water, colour: [0, 0, 255]}]\n")
    file = shelf / "vit_b_s4p_upernet.pth"
    tilth.import_weights(file=file, as_="upernet_vit_b", sensor="s2_l1c", scheme=scheme, out=tmp_path / "model")
    model = tilth.Segmenter.load(tmp_path / "model")
    assert model.sensor == tilth.get_sensor("s2_l1c")
    assert model.scheme.names == ("land", "water")
    done = tilth.import_weights(
        file=shelf / "B13_rn50_moco_0099.pth", as_="cromss_unet_resnet50", sensor="s2_l1c", scheme=scheme, out=tmp_path / "encoder"
    )
    found = load_encoder(tmp_path / "encoder")
    assert found.config.sensor == tilth.get_sensor("s2_l1c")
    assert torch.equal(found.tensors["encoder.conv1.weight"], published_files.resnet(13)["conv1.weight"])
    assert any(line.startswith("scheme and classes are not looked at") for line in done.summary)


def test_other_bands_are_fitted(shelf, tmp_path):
    file = shelf / "vit_b_s4p_upernet.pth"
    done = tilth.import_weights(file=file, as_="upernet_vit_b", sensor="s1+s2_l2a", out=tmp_path / "model")
    assert done.values["verdict"] == "complete"
    assert any("3 bands to 14" in line for line in done.summary)


def test_fusion_files_go_into_folders_of_networks_with_their_own_classes(shelf, tmp_path):
    tilth.import_weights(file=shelf / "cromss_mid.ckpt", as_="cromss_mid2_resnet50", out=tmp_path / "fusion")
    network = load_network(tmp_path / "fusion")
    assert network.spec.num_classes == 9
    s1, s2 = torch.randn(1, 2, 64, 64), torch.randn(1, 13, 64, 64)
    with torch.no_grad():
        found = network(s1, s2)
        expected = published_files.network("cromss_mid2_resnet50", num_classes=9).eval()(s1, s2)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("file", "name"), [("ddpm_cd_gen.pth", "ddpm_sr3_128"), ("vit_b_moe.pth", "upernet_vit_b_moe")])
def test_noise_predictors_and_networks_with_experts_too(shelf, tmp_path, file, name):
    done = tilth.import_weights(file=shelf / file, as_=name, out=tmp_path / "model", image_size=64)
    assert done.values["verdict"] == "complete"
    source = published_files.network(name).state_dict()
    assert all(torch.equal(value, source[key]) for key, value in load_network(tmp_path / "model").state_dict().items())


def test_encoders_of_timm_take_files_too(shelf, tmp_path):
    done = tilth.import_weights(file=shelf / "resnet18_torchvision.pth", as_="resnet18", decoder="fpn", classes=2, out=tmp_path / "a")
    assert done.values["verdict"] == "encoder only"
    assert load_encoder(tmp_path / "a").config.network.title == "resnet18 + fpn"
    done = tilth.import_weights(file=shelf / "vit_tiny_patch16_224_timm.pth", as_="vit_tiny_patch16_224", classes=2, out=tmp_path / "b")
    assert load_encoder(tmp_path / "b").config.network.decoder == "upernet"


def test_part_that_is_asked_for_is_taken(shelf, tmp_path):
    for word, seed in (("encoder_q", 0), ("mocok", 1)):
        tilth.import_weights(
            file=shelf / "B13_rn50_moco_0099.pth",
            as_="cromss_unet_resnet50",
            sensor="s2_l1c",
            take=word,
            out=tmp_path / word,
        )
        found = load_encoder(tmp_path / word).tensors["encoder.conv1.weight"]
        assert torch.equal(found, published_files.resnet(13, seed)["conv1.weight"])


def test_folders_of_tilth_are_sources_too(shelf, tmp_path):
    file = shelf / "vit_b_s4p_upernet.pth"
    tilth.import_weights(file=file, as_="upernet_vit_b", out=tmp_path / "one", image_size=64)
    done = tilth.import_weights(file=tmp_path / "one", as_="upernet_vit_b", out=tmp_path / "two", image_size=64)
    assert done.values["verdict"] == "complete"
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "two" / "model.safetensors").read_bytes()


@pytest.fixture
def folder(shelf, tmp_path) -> Path:
    """A model of 14 bands and classes with names, with options that are not the usual ones."""
    scheme = generic_scheme(3)
    classes = tuple(item.model_copy(update={"name": name}) for item, name in zip(scheme.classes, ("field", "wood", "sea"), strict=True))
    network = NetworkConfig(name="upernet_vit_b", image_size=64, options={"depth": 5})
    model = tilth.build_segmenter(network, tilth.get_sensor("s1+s2_l2a"), scheme.model_copy(update={"name": "land", "classes": classes}))
    return model.save(tmp_path / "ours")


@pytest.mark.parametrize("given", [".", "model.safetensors"])
def test_folder_of_tilth_keeps_sensor_classes_and_options(folder, tmp_path, given):
    done = tilth.import_weights(file=folder / given, as_="upernet_vit_b", out=tmp_path / "copy")
    assert done.values["verdict"] == "complete"
    before, after = tilth.Segmenter.load(folder), tilth.Segmenter.load(tmp_path / "copy")
    assert after.config == before.config
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in after.state_dict().items())
    assert warning_of_fresh_parts(tmp_path / "copy") is None
    assert "classes: 3" in done.summary


def test_folder_of_tilth_gets_another_sensor_only_if_it_is_named(folder, tmp_path):
    with pytest.raises(UsageError, match=r"--bands 3: the model sees the 14 bands of sensor 's1\+s2_l2a'"):
        tilth.import_weights(file=folder, as_="upernet_vit_b", bands=[3], out=tmp_path / "copy")
    done = tilth.import_weights(file=folder, as_="upernet_vit_b", sensor="rgb", out=tmp_path / "copy")
    assert any("14 bands to 3" in line for line in done.summary)
    assert tilth.Segmenter.load(tmp_path / "copy").scheme == tilth.Segmenter.load(folder).scheme


def test_folder_of_a_network_keeps_its_options(shelf, tmp_path):
    tilth.import_weights(file=shelf / "cromss_mid.ckpt", as_="cromss_mid2_resnet50", out=tmp_path / "one")
    done = tilth.import_weights(file=tmp_path / "one" / "model.safetensors", as_="cromss_mid2_resnet50", out=tmp_path / "two")
    assert done.values["verdict"] == "complete"
    assert load_network(tmp_path / "two").spec == load_network(tmp_path / "one").spec


def test_fresh_class_layer_is_warned_of(folder, tmp_path):
    tilth.import_weights(file=folder, as_="upernet_vit_b", classes=5, out=tmp_path / "copy")
    said = warning_of_fresh_parts(tmp_path / "copy")
    assert "was imported without segmentation_head." in said
    assert "what it predicts means nothing; train first" in said


def test_file_of_options_may_say_as(tmp_path):
    given = {"file": "x.pth", "out": "y"}
    assert ImportWeightsOptions.parse(given | {"as": "resnet18"}).as_ == "resnet18"
    assert ImportWeightsOptions.parse(given | {"as": "resnet18", "as_": "resnet50"}).as_ == "resnet50"
    assert ImportWeightsOptions.parse(given, ["as=resnet34"]).as_ == "resnet34"


def test_empty_folder_is_filled_and_another_left_alone(shelf, tmp_path):
    (tmp_path / "empty").mkdir()
    words = {"file": shelf / "vit_b_s4p.pth", "as_": "upernet_vit_b", "classes": 2}
    tilth.import_weights(**words, out=tmp_path / "empty")
    before = (tmp_path / "empty" / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="already holds files"):
        tilth.import_weights(**words, out=tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").read_bytes() == before


def test_failure_on_the_way_leaves_nothing(shelf, tmp_path, monkeypatch):
    def fail(self, folder):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tilth.Segmenter, "save", fail)
    with pytest.raises(tilth.TilthError, match="deep/model: cannot be written: No space left on device"):
        tilth.import_weights(file=shelf / "vit_b_s4p_upernet.pth", as_="upernet_vit_b", out=tmp_path / "deep" / "model")
    assert tree(tmp_path) == []


def test_pickle_with_a_program_in_it_runs_nothing(tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"model": Attack()}, tmp_path / "attack.pth")
    with pytest.raises(UnreadableFileError, match="nothing was run"):
        tilth.import_weights(file=tmp_path / "attack.pth", as_="upernet_vit_b", classes=2, out=tmp_path / "model")
    assert tree(tmp_path) == ["attack.pth"]


def test_sensor_of_many_bands_must_be_named(shelf, tmp_path):
    with pytest.raises(UsageError, match=r"missing --sensor: .* 13 bands, .* built-in with that many: s2_l1c"):
        tilth.import_weights(file=shelf / "B13_rn50_moco_0099.pth", as_="cromss_unet_resnet50", classes=2, out=tmp_path / "model")


@pytest.mark.parametrize("classes", [1, 2, 16, 255])
def test_generic_classes_have_names_and_colours_of_their_own(classes):
    scheme = generic_scheme(classes)
    assert len(scheme) == classes
    assert len(set(scheme.colours)) > 0.9 * classes

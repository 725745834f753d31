"""Loading is all or nothing, tells what it did in a few lines, and gives official names back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tilth.classes import ClassScheme, LandClass
from tilth.errors import MissingFileError, UnreadableFileError, UsageError
from tilth.models import create, load_weights, official_state_dict
from tilth.models.config import NetworkConfig
from tilth.models.folder import save_network
from tilth.models.segmenter import build_segmenter
from tilth.models.weights import layouts
from tilth.models.weights.layouts import MODULES, all_layouts
from tilth.models.weights.report import LoadReport, groups
from tilth.sensors import get_sensor

TINY = {"width": 24, "depth": 4, "heads": 2, "decoder_channels": 8}
SCHEME = ClassScheme(name="two", classes=(LandClass(name="land", colour=(9, 9, 9)), LandClass(name="water", colour=(0, 0, 255))))


def vit(seed=0, **options):
    return create("upernet_vit_b", seed=seed, **{"num_classes": 3, "image_size": 64, **TINY, **options})


def snapshot(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(network, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class TestReports:
    def test_all_of_it(self):
        network = vit()
        report = load_weights(network, official_state_dict(vit(seed=1)))
        assert same(network, snapshot(vit(seed=1)))
        assert report.verdict == "complete"
        assert report.layout == "s5-vit"
        assert report.share == 1
        assert report.matched_parameters == report.parameters == sum(value.numel() for value in network.parameters())
        assert not report.missing
        assert not report.unexpected
        assert not report.dropped
        assert "verdict: complete" in str(report)

    def test_all_but_the_classes(self):
        network = vit(num_classes=7)
        before = snapshot(network)
        report = load_weights(network, official_state_dict(vit(seed=1)))
        assert report.verdict == "complete but for the classes"
        assert report.missing == ["segmentation_head.convolution.weight", "segmentation_head.convolution.bias"]
        assert torch.equal(network.segmentation_head.convolution.weight, before["segmentation_head.convolution.weight"])
        assert "class layer of 3 classes, here 7" in str(report)

    def test_an_encoder_alone(self):
        official = {
            name.removeprefix("encoder."): value for name, value in official_state_dict(vit(seed=1)).items() if name.startswith("encoder.")
        }
        network = vit()
        before = snapshot(network)
        report = load_weights(network, {"model": official})
        assert report.verdict == "encoder only"
        assert torch.equal(network.encoder.blocks[3].norm1.weight, vit(seed=1).encoder.blocks[3].norm1.weight)
        assert torch.equal(network.decoder.context.convolution.weight, before["decoder.context.convolution.weight"])

    def test_a_part_says_its_share(self):
        official = official_state_dict(vit(seed=1))
        report = load_weights(vit(), {name: value for name, value in official.items() if ".layers.3." not in name})
        lost = sum(value.numel() for name, value in official.items() if ".layers.3." in name)
        assert report.matched_parameters == report.parameters - lost
        assert report.verdict == f"partial, {math.floor(100 * (1 - lost / report.parameters))} % of the parameters"
        assert all(name.startswith("encoder.blocks.3.") for name in report.missing)

    def test_what_nobody_knows_is_told_and_left_out(self):
        report = load_weights(vit(), official_state_dict(vit()) | {"encoder.strange": torch.zeros(2)})
        assert report.unexpected == ["encoder.strange"]
        assert "unexpected, left out: encoder.strange" in report.lines()

    def test_counters_that_old_files_lack_are_not_missed(self):
        official = official_state_dict(vit(seed=1))
        report = load_weights(vit(), {name: value for name, value in official.items() if not name.endswith("num_batches_tracked")})
        assert report.verdict == "complete"

    def test_a_few_lines_whatever_the_file(self):
        report = LoadReport("x", "X", unexpected=[f"block{i}.part{j}.weight{k}" for i in range(30) for j in range(30) for k in "abcdefgh"])
        report.missing = [f"{word}.{i}" for i in range(40) for word in ("one", "two", "three")] + [
            f"single{word}" for word in "abcdefghijklmnop" * 9
        ]
        lines = report.lines()
        assert len(lines) < 8
        assert max(map(len, lines)) < 250

    def test_groups_count_what_they_sum_up(self):
        assert groups([f"a.{i}.w" for i in range(12)]) == "a.*.w (12)"
        assert groups(["a.w", "b.w"]) == "a.w, b.w"
        assert groups([]) == ""

    def test_the_file_and_its_hash_are_kept(self, tmp_path):
        import hashlib

        file = tmp_path / "a.pth"
        torch.save(official_state_dict(vit()), file)
        report = load_weights(vit(), file)
        assert report.source == str(file)
        assert report.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert report.sha256 in str(report)


class TestNothingIsHalfLoaded:
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda official: official | {"encoder.layers.3.ln2.bias": torch.zeros(7)},
            lambda official: {name: value for name, value in official.items() if not name.startswith("encoder.")},
            lambda official: {f"x.{name}": value for name, value in official.items()},
            lambda official: official_state_dict(vit(width=48, heads=4)),
        ],
    )
    def test_a_load_that_fails_leaves_the_network_as_it_was(self, spoil):
        network = vit()
        before = snapshot(network)
        with pytest.raises(UnreadableFileError) as refused:
            load_weights(network, spoil(official_state_dict(vit(seed=1))))
        assert "\n" not in str(refused.value)
        assert same(network, before)

    def test_a_file_that_cannot_be_read_leaves_the_network_as_it_was(self, tmp_path):
        network = vit()
        before = snapshot(network)
        with pytest.raises(MissingFileError):
            load_weights(network, tmp_path / "none.pth")
        assert same(network, before)

    def test_a_take_that_names_nothing_is_told_with_the_file(self):
        network = vit()
        with pytest.raises(UsageError, match="the state dict given: take=s1: the file holds one task"):
            load_weights(network, official_state_dict(vit()), take="s1")

    def test_parameters_keep_their_identity_type_and_place(self):
        network = vit().to(torch.bfloat16)
        parameters = dict(network.named_parameters())
        load_weights(network, official_state_dict(vit(seed=1)))
        assert all(value is parameters[name] for name, value in network.named_parameters())
        assert network.encoder.position_embedding.dtype == torch.bfloat16
        torch.testing.assert_close(network.encoder.position_embedding, vit(seed=1).encoder.position_embedding.to(torch.bfloat16))

    def test_the_given_tensors_stay_as_they_were(self):
        official = official_state_dict(vit(seed=1))
        before = {name: value.clone() for name, value in official.items()}
        network = vit()
        load_weights(network, official)
        with torch.no_grad():
            for value in network.parameters():
                value.add_(1)
        assert all(torch.equal(value, before[name]) for name, value in official.items())


class TestErrors:
    def test_numbers_that_are_not_finite_are_noted(self):
        official = official_state_dict(vit(seed=1)) | {"encoder.layers.2.ln1.weight": torch.full((24,), torch.nan)}
        report = load_weights(vit(), official)
        assert any("not finite in encoder.blocks.2.norm1.weight" in note for note in report.notes)

    def test_a_folder_of_another_network_says_so(self, tmp_path):
        deep = {"num_classes": 2, "layers": (1, 1, 1, 1), "planes": (64, 8, 8, 8), "decoder_channels": 8, "seed": 0}
        save_network(create("deeplabv3plus_resnet50", **deep), tmp_path)
        network = vit()
        with pytest.raises(UnreadableFileError) as refused:
            load_weights(network, tmp_path)
        assert "nothing" in str(refused.value) or "with another network than upernet_vit_b" in str(refused.value)

    def test_no_layout_shows_names_network_and_choices(self):
        with pytest.raises(UnreadableFileError) as refused:
            load_weights(vit(), {"trunk.stage.0.conv": torch.zeros(1), "trunk.stage.1.conv": torch.zeros(1)})
        message = str(refused.value)
        assert "no known layout (2 tensors such as trunk.stage.0.conv, trunk.stage.1.conv)" in message
        assert "upernet_vit_b takes: " in message
        assert "S5, plain ViT" in message

    def test_a_known_layout_of_another_network_is_named(self):
        swin = create("upernet_swin_t", num_classes=2, width=12, depths=(1, 1, 1, 1), heads=(1, 2, 4, 4), decoder_channels=8, seed=0)
        with pytest.raises(
            UnreadableFileError, match=r"is a file of S5, plain ViT.*, which this network cannot take; upernet_swin_t takes: "
        ):
            load_weights(swin, official_state_dict(vit()))

    def test_a_file_that_brings_the_encoder_nothing_is_an_error(self):
        """It would look like success, and train from noise."""
        decoder = {name: value for name, value in vit().state_dict().items() if name.startswith("decoder.")}
        network = vit(seed=1)
        before = snapshot(network)
        with pytest.raises(UnreadableFileError, match="brings the encoder of upernet_vit_b nothing"):
            load_weights(network, decoder)
        assert same(network, before)

    def test_a_network_that_nobody_published_has_no_official_names(self):
        with pytest.raises(UsageError, match="Linear has no official layout"):
            official_state_dict(nn.Linear(1, 1))


class TestOwnFiles:
    def test_a_network_folder_is_a_source(self, tmp_path):
        other = vit(seed=1)
        save_network(other, tmp_path)
        network = vit()
        report = load_weights(network, tmp_path)
        assert (report.layout, report.verdict) == ("tilth", "complete")
        assert same(network, snapshot(other))

    def test_a_segmenter_folder_fills_a_segmenter_of_other_bands_and_classes(self, tmp_path):
        config = NetworkConfig(encoder="resnet18", decoder="unet", options={"decoder_channels": [8, 8, 8, 8, 8]})
        first = build_segmenter(config, get_sensor("rgb"), SCHEME, seed=1)
        first.save(tmp_path)
        second = build_segmenter(config, get_sensor("s2_l2a"), SCHEME, seed=2)
        report = load_weights(second, tmp_path)
        assert report.verdict == "complete"
        assert list(report.resized) == ["encoder.model.conv1.weight"]
        assert torch.equal(second.network.encoder.model.layer1[0].conv1.weight, first.network.encoder.model.layer1[0].conv1.weight)

    def test_an_encoder_goes_on_to_another_decoder(self, tmp_path):
        first = build_segmenter(NetworkConfig(encoder="resnet18", decoder="unet"), get_sensor("rgb"), SCHEME, seed=1)
        first.save(tmp_path)
        second = build_segmenter(NetworkConfig(encoder="resnet18", decoder="fpn"), get_sensor("rgb"), SCHEME, seed=2)
        report = load_weights(second, tmp_path)
        assert report.verdict == "encoder only"
        assert set(report.dropped.values()) == {"of another decoder or head"}

    def test_names_of_a_librarys_model_fill_the_same_model_inside_a_network(self):
        import timm

        torch.manual_seed(3)
        model = timm.create_model("test_convnext", num_classes=5)
        network = build_segmenter(NetworkConfig(encoder="test_convnext", decoder="fpn"), get_sensor("rgb"), SCHEME).network
        report = load_weights(network, model.state_dict())
        assert (report.layout, report.verdict) == ("encoder", "encoder only")
        image = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            expected = model.eval().forward_intermediates(image, intermediates_only=True)
            found = network.eval().encoder(image)
        torch.testing.assert_close(found[-1], expected[-1])

    def test_two_image_networks_are_not_taken_for_one(self):
        """Their names contain those of a U-Net for one image; which encoder to take is the layout's question."""
        fusion = create("cromss_mid2_resnet50", encoder="resnet18", num_classes=2, seed=1)
        unet = create("cromss_unet_resnet50", encoder="resnet18", num_classes=2, seed=2)
        report = load_weights(unet, official_state_dict(fusion), take="s2")
        assert report.layout == "cromss-fusion"
        assert torch.equal(unet.encoder.conv1.weight, fusion.branch("s2").encoder.conv1.weight)


def test_every_layout_is_listed_and_named_once():
    names = [layout.name for layout in all_layouts()]
    assert len(set(names)) == len(names)
    folder = Path(str(layouts.__file__)).parent
    written = {file.stem for file in folder.glob("*.py") if "\nLAYOUTS" in file.read_text(encoding="utf-8")}
    assert set(MODULES) == written

"""ResNets of torchvision, timm, MoCo and others, with random weights: loaded into any ResNet encoder, they compute the same."""

from __future__ import annotations

import functools

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision

from support.random_models import random_weights
from tilth.errors import UsageError
from tilth.models import create, load_weights

IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@functools.cache
def resnet18(bands, seed):
    return random_weights(timm.create_model("resnet18", in_chans=bands, num_classes=0), seed, 0.05)


class TestResNets:
    def unet(self, encoder="resnet18", bands=3):
        return smp.create_model(
            "unet", encoder_name=encoder, encoder_weights=None, in_channels=bands, classes=2, decoder_channels=(8,) * 5
        ).eval()

    @torch.no_grad()
    def assert_same_maps(self, network, model, image=IMAGE):
        found = network.encoder(image)[-4:]
        x = (
            model.maxpool(model.relu(model.bn1(model.conv1(image))))
            if hasattr(model, "relu")
            else model.maxpool(model.act1(model.bn1(model.conv1(image))))
        )
        for layer, maps in zip((model.layer1, model.layer2, model.layer3, model.layer4), found, strict=True):
            x = layer(x)
            torch.testing.assert_close(maps, x, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
    @pytest.mark.parametrize("source", ["torchvision", "timm"])
    def test_torchvision_and_timm_files_compute_the_same_in_either(self, encoder, source):
        torch.manual_seed(0)
        model = random_weights(torchvision.models.resnet18() if source == "torchvision" else timm.create_model("resnet18"), scale=0.05)
        network = self.unet(encoder)
        report = load_weights(network, model.state_dict())
        assert (report.layout, report.verdict) == ("resnet", "encoder only")
        assert set(report.dropped.values()) == {"classifier or projection head"}
        self.assert_same_maps(network, model)

    def moco(self, bands=3):
        query, key = (resnet18(bands, seed) for seed in (1, 2))
        names = {
            f"module.encoder_{word}.{name}": value
            for word, model in (("q", query), ("k", key))
            for name, value in model.state_dict().items()
        }
        names |= {"module.encoder_q.fc.0.weight": torch.zeros(2, 2), "module.queue": torch.zeros(2, 2), "module.queue_ptr": torch.zeros(1)}
        return {"state_dict": names, "arch": "resnet18", "optimizer": {"state": {}}}, query, key

    def test_moco_gives_the_query_encoder_or_the_key_encoder_by_word(self):
        file, query, key = self.moco()
        network = self.unet()
        report = load_weights(network, file)
        self.assert_same_maps(network, query)
        assert report.dropped["queue"] == "beside the encoder that was taken"
        assert "took encoder_q" in report.notes
        for word in ("encoder_k", "mocok"):
            load_weights(network, file, take=word)
            self.assert_same_maps(network, key)
        with pytest.raises(UsageError, match=r"take='teacher': the file holds encoder_q, encoder_k; "):
            load_weights(network, file, take="teacher")

    def test_decur_is_told_by_bands_or_by_word(self):
        """backbone_1 sees two bands of radar, backbone_2 thirteen (cromss.md section 7.2)."""
        first, second = (resnet18(bands, bands) for bands in (2, 13))
        names = {
            f"module.backbone_{i}.{name}": value for i, model in ((1, first), (2, second)) for name, value in model.state_dict().items()
        }
        network = self.unet(bands=13)
        load_weights(network, {"model": names})
        assert torch.equal(network.encoder.conv1.weight, second.conv1.weight)
        radar = self.unet(bands=2)
        load_weights(radar, {"model": names})
        assert torch.equal(radar.encoder.conv1.weight, first.conv1.weight)
        colour = self.unet()
        with pytest.raises(UsageError, match="the file holds 2 networks, backbone_1, backbone_2; say which to take"):
            load_weights(colour, {"model": names})
        for word in ("s2", "decurs2", "backbone_2"):
            report = load_weights(colour, {"model": names}, take=word)
            assert "13 bands to 3" in report.resized["encoder.conv1.weight"]

    def test_satlas_and_sequences_without_names(self):
        torch.manual_seed(0)
        model = random_weights(torchvision.models.resnet18(), scale=0.05)
        satlas = {f"backbone.resnet.{name}": value for name, value in model.state_dict().items()} | {
            "intermediates.0.fpn.inner.0.weight": torch.zeros(1)
        }
        numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
        seco = {
            f"encoder_q.{numbers[n.split('.')[0]]}.{n.split('.', 1)[1]}": v
            for n, v in model.state_dict().items()
            if not n.startswith("fc.")
        }
        for file in (satlas, seco):
            network = self.unet()
            report = load_weights(network, file)
            assert report.verdict == "encoder only"
            assert not report.unexpected
            self.assert_same_maps(network, model)

    def test_three_convolutions_take_stems_of_their_kind_alone(self):
        network = create(
            "deeplabv3plus_resnet50", num_classes=2, layers=(1, 1, 1, 1), planes=(64, 8, 8, 16), decoder_channels=8, seed=0
        ).eval()
        deep = random_weights(timm.create_model("resnet50s", num_classes=4, layers=(1, 1, 1, 1), channels=(64, 8, 8, 16)), scale=0.03)
        report = load_weights(network, deep.state_dict())
        assert report.verdict == "encoder only"
        assert torch.equal(network.encoder.body.conv1[6].weight, deep.conv1[6].weight)
        shallow = random_weights(timm.create_model("resnet50", num_classes=4, layers=(1, 1, 1, 1), channels=(64, 8, 8, 16)), scale=0.03)
        report = load_weights(network, shallow.state_dict())
        assert torch.equal(network.encoder.body.layer4[0].conv3.weight, shallow.layer4[0].conv3.weight)
        assert torch.equal(network.encoder.body.conv1[6].weight, deep.conv1[6].weight)
        assert report.dropped["conv1.weight"].startswith("another stem")
        assert report.dropped["layer1.0.conv1.weight"].startswith("another stem")
        assert any("stem" in note for note in report.notes)
        assert report.verdict.startswith("partial")

    @pytest.mark.parametrize("name", ["cromss_mid2_resnet50", "cromss_late2_resnet50"])
    def test_one_encoder_of_a_fusion_network_is_filled(self, name):
        network = create(name, encoder="resnet18", num_classes=2, seed=0)
        encoders = {branch: network.branch(branch).encoder for branch in ("s1", "s2")}
        before = encoders["s1"].conv1.weight.clone()
        file, query, _ = self.moco(bands=13)
        load_weights(network, file)
        assert torch.equal(encoders["s2"].conv1.weight, query.conv1.weight)
        assert torch.equal(encoders["s1"].conv1.weight, before)
        colour, query, key = self.moco(bands=3)
        with pytest.raises(UsageError, match="the network has 2 encoders; say which to fill: take='s1', of s1, s2"):
            load_weights(network, colour)
        load_weights(network, colour, take="s1")
        torch.testing.assert_close(encoders["s1"].conv1.weight, query.conv1.weight[:, :2] * 3 / 2)
        load_weights(network, colour, take="s1:encoder_k")
        torch.testing.assert_close(encoders["s1"].conv1.weight, key.conv1.weight[:, :2] * 3 / 2)

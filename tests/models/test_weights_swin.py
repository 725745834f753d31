"""Swin Transformers of timm and torchvision, with random weights: loaded into ours, they compute the same."""

from __future__ import annotations

from typing import ClassVar

import timm
import torch
import torchvision
from torch import nn

from support.random_models import random_weights
from tilth.models import create, load_weights
from tilth.models.weights.layouts import resnet, swin, vit


class TestSwin:
    """At 128 pixels with windows of two, no map is a single window: there the libraries leave the shift out, which S5 does not."""

    SIZES: ClassVar = {"width": 12, "depths": (2, 2, 2, 2), "heads": (1, 2, 3, 4), "window": 2}

    def ours(self):
        return create("upernet_swin_t", num_classes=2, decoder_channels=8, seed=0, **self.SIZES).eval()

    def of_timm(self, **options):
        model = timm.create_model(
            "swin_tiny_patch4_window7_224",
            img_size=128,
            window_size=2,
            embed_dim=12,
            depths=(2, 2, 2, 2),
            num_heads=(1, 2, 3, 4),
            **options,
        )
        return random_weights(model)

    def of_torchvision(self):
        torch.manual_seed(0)
        model = torchvision.models.SwinTransformer(
            patch_size=[4, 4], embed_dim=12, depths=[2, 2, 2, 2], num_heads=[1, 2, 3, 4], window_size=[2, 2], num_classes=3
        )
        return random_weights(model)

    @torch.no_grad()
    def before_norms(self, network, image):
        maps, found = network.encoder.patch_embedding(image), []
        for level, stage in enumerate(network.encoder.stages):
            maps = stage(network.encoder.mergings[level - 1](maps) if level else maps)
            found.append(maps)
        return found

    def test_files_of_timm_compute_the_same(self):
        model, network, image = self.of_timm(), self.ours(), torch.randn(1, 3, 128, 128)
        report = load_weights(network, model.state_dict())
        assert (report.layout, report.verdict) == ("swin", "encoder only")
        assert not report.unexpected
        with torch.no_grad():
            x = model.patch_embed(image)
            for found, layer in zip(self.before_norms(network, image), model.layers, strict=True):
                x = layer(x)
                torch.testing.assert_close(found, x, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(network.encoder(image)[-1].permute(0, 2, 3, 1), model.forward_features(image), atol=1e-4, rtol=1e-4)

    def test_files_of_torchvision_compute_the_same(self):
        model, network, image = self.of_torchvision(), self.ours(), torch.randn(1, 3, 128, 128)
        report = load_weights(network, {f"backbone.backbone.{name}": value for name, value in model.state_dict().items()})
        assert (report.layout, report.verdict) == ("swin", "encoder only")
        assert not report.unexpected
        with torch.no_grad():
            x = model.features[0](image)
            for level, found in enumerate(self.before_norms(network, image)):
                x = model.features[2 * level + 1](model.features[2 * level](x) if level else x)
                torch.testing.assert_close(found, x, atol=1e-4, rtol=1e-4)

    def test_files_of_the_paper_keep_mergings_with_the_stage_before(self):
        model = self.of_timm()
        names = {}
        for name, value in model.state_dict().items():
            number = int(name.split(".")[1]) if name.startswith("layers.") else 0
            names[name.replace(f"layers.{number}.", f"layers.{number - 1}.") if ".downsample." in name else name] = value
        names["layers.0.blocks.1.attn_mask"] = torch.zeros(1)
        assert "layers.0.downsample.norm.weight" in names
        paper, of_timm = self.ours(), self.ours()
        report = load_weights(paper, {"model": names})
        load_weights(of_timm, model.state_dict())
        assert report.layout == "swin"
        assert not report.unexpected
        assert all(torch.equal(value, of_timm.state_dict()[name]) for name, value in paper.state_dict().items())

    def test_into_encoders_of_timm(self):
        model = self.of_torchvision()
        encoder = timm.create_model(
            "swin_tiny_patch4_window7_224",
            img_size=128, window_size=2, embed_dim=12, depths=(2, 2, 2, 2), num_heads=(1, 2, 3, 4), features_only=True,
        ).eval()  # fmt: skip
        network = nn.Module()
        network.encoder = nn.Module()
        network.encoder.model = encoder
        report = load_weights(network, model.state_dict())
        assert (report.layout, report.verdict) == ("swin", "complete")
        image = torch.randn(1, 3, 128, 128)
        with torch.no_grad():
            expected = model.features(image)
            torch.testing.assert_close(encoder(image)[-1], expected, atol=1e-4, rtol=1e-4)


def test_layouts_know_their_own_files_alone():
    """A file is of one family: what one layout recognises, the others leave."""
    shapes = {
        "vit": timm.create_model("vit_tiny_patch16_224", depth=1).state_dict(),
        "resnet": timm.create_model("resnet10t").state_dict(),
        "swin": TestSwin().of_timm().state_dict(),
        "torchvision swin": TestSwin().of_torchvision().state_dict(),
        "convnext": timm.create_model("test_convnext").state_dict(),
    }
    found = {
        name: [
            module.__name__.rpartition(".")[2]
            for module in (vit, resnet, swin)
            if module.LAYOUTS[0].recognises({n: tuple(t.shape) for n, t in state.items()})
        ]
        for name, state in shapes.items()
    }
    assert found == {"vit": ["vit"], "resnet": ["resnet"], "swin": ["swin"], "torchvision swin": ["swin"], "convnext": []}

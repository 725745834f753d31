"""A file of another network is refused or named as such, never called complete; model folders say what no tensor shows."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tilth.classes import ClassScheme, LandClass
from tilth.errors import UnreadableFileError, UsageError
from tilth.models import create, load_weights, official_state_dict
from tilth.models.config import NetworkConfig
from tilth.models.folder import save_network
from tilth.models.segmenter import build_segmenter
from tilth.models.weights.judge import inside_taken_layers, layers_left_over
from tilth.sensors import get_sensor

TINY = {"width": 24, "depth": 4, "heads": 2, "decoder_channels": 8}
VIT = {"num_classes": 3, "image_size": 64, **TINY}
SWIN = {"num_classes": 3, "width": 12, "heads": (1, 2, 4, 4), "decoder_channels": 8}
DEEPLAB = {"planes": (4, 4, 4, 4), "decoder_channels": 8, "num_classes": 3}
UNET = {"in_channels": 3, "num_classes": 2}
SR3 = {"width": 16, "multipliers": (1, 2), "res_blocks": 1, "attention_strides": (2,), "norm_groups": 8}
MOE = {"image_size": 64, "part": 8, **TINY}


class Around(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder


def snapshot(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(network, before):
    return all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def folder_of(network, place):
    save_network(network, place)
    return place


def resnet(name):
    return create("cromss_unet_resnet50", encoder=name, seed=0, **UNET)


def convnext(blocks):
    return timm.models.convnext.ConvNeXt(depths=(1, 1, blocks, 1), dims=(8, 8, 16, 16))


def timm_vit(**options):
    return timm.models.vision_transformer.VisionTransformer(img_size=64, embed_dim=24, num_heads=2, **{"depth": 4, **options})


DEEPER = {
    "swin of S5": lambda place: (
        create("upernet_swin_t", depths=(2, 2, 2, 2), **SWIN),
        official_state_dict(create("upernet_swin_t", depths=(2, 2, 6, 2), **SWIN)),
        "6 layers in encoder.layers.2.blocks, the network 2",
    ),
    "swin of timm": lambda place: (
        create("upernet_swin_t", depths=(1, 1, 1, 1), **SWIN),
        timm.models.swin_transformer.SwinTransformer(embed_dim=12, depths=(1, 1, 3, 1), num_heads=(1, 2, 4, 4)).state_dict(),
        "3 layers in layers.2.blocks, the network 1",
    ),
    "rotated windows": lambda place: (
        create("upernet_vit_b_rvsa", interval=3, **VIT),
        official_state_dict(create("upernet_vit_b_rvsa", interval=3, **VIT | {"depth": 8})),
        "8 layers in encoder.blocks, the network 4",
    ),
    "deeplab": lambda place: (
        create("deeplabv3plus_resnet50", **DEEPLAB),
        official_state_dict(create("deeplabv3plus_resnet101", **DEEPLAB)),
        "23 layers in backbone.layer3, the network 6",
    ),
    "smp": lambda place: (
        resnet("resnet18"),
        {f"net.{name}": value for name, value in resnet("resnet34").state_dict().items()},
        "6 layers in net.encoder.layer3, the network 2",
    ),
    "timm vit": lambda place: (create("upernet_vit_b", **VIT), timm_vit(depth=6).state_dict(), "6 layers in blocks, the network 4"),
    "cromss vit": lambda place: (
        create("cromss_upernet_vit_l", **VIT),
        official_state_dict(create("cromss_upernet_vit_l", **VIT | {"depth": 6})),
        "6 layers in encoder.blocks, the network 4",
    ),
    "own folder": lambda place: (
        create("upernet_vit_b", **VIT),
        folder_of(create("upernet_vit_b", **VIT | {"depth": 8}), place),
        "8 layers in encoder.blocks, the network 4",
    ),
    "names of an encoder": lambda place: (
        Around(convnext(2)),
        convnext(3).state_dict(),
        "3 layers in stages.2.blocks, the network 2",
    ),
}


@pytest.mark.parametrize("case", list(DEEPER))
def test_a_deeper_file_is_refused_with_both_depths_and_changes_nothing(case, tmp_path):
    network, source, said = DEEPER[case](tmp_path)
    before = snapshot(network)
    with pytest.raises(UnreadableFileError) as refused:
        load_weights(network, source)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert same(network, before)


PARTS = {
    "squeeze and excitation": lambda: (Around(timm.create_model("resnet50")), timm.create_model("seresnet50").state_dict(), "se.fc"),
    "attention of SR3": lambda: (
        create("ddpm_sr3_64", **SR3 | {"attention_strides": ()}),
        official_state_dict(create("ddpm_sr3_64", **SR3)),
        "attn",
    ),
    "middle attention of SR3": lambda: (
        create("ddpm_sr3_64", **SR3, middle_attention=False),
        official_state_dict(create("ddpm_sr3_64", **SR3)),
        "mid.0.attn",
    ),
    "norms of queries": lambda: (create("upernet_vit_b", **VIT), timm_vit(qk_norm=True).state_dict(), "q_norm"),
    "norm before the layers": lambda: (create("upernet_vit_b", **VIT), timm_vit(pre_norm=True).state_dict(), "norm_pre"),
    "rotated windows": lambda: (create("upernet_vit_b", **VIT), official_state_dict(create("upernet_vit_b_rvsa", **VIT)), "rel_pos"),
    "scales of EVA": lambda: (
        create("upernet_vit_b", **VIT),
        timm.models.eva.Eva(img_size=64, embed_dim=24, depth=4, num_heads=2, init_values=1e-5).state_dict(),
        "gamma",
    ),
}


@pytest.mark.parametrize("case", list(PARTS))
def test_single_parts_that_the_network_lacks_stand_in_the_verdict(case):
    network, source, part = PARTS[case]()
    report = load_weights(network, source)
    assert report.verdict.startswith("another network: the file also computes with ")
    assert part in report.verdict
    assert "complete" not in report.verdict
    # Programs show no more than these.
    assert part in report.lines()[1]


def test_unknown_tensors_rule_out_complete():
    network = create("upernet_vit_b", **VIT)
    verdict = load_weights(network, official_state_dict(network) | {"encoder.strange": torch.zeros(2)}).verdict
    assert verdict == "filled, but parts of the file are unknown: encoder.strange"


def test_layers_are_counted_where_some_are_taken_and_others_follow():
    taken = ["a.0.w", "a.1.w", "b.3.w"]
    assert layers_left_over(taken, ["a.2.w", "a.4.w"]) == "the file has 5 layers in a, the network 2"
    assert layers_left_over(taken, ["a.1.q.w", "b.1.w", "c.7.w", "d"]) is None
    assert inside_taken_layers(["a.1.q.w", "a.2.w", "c"], taken) == ["a.1.q.w"]


def test_the_pyramid_of_a_file_with_rotated_windows_is_taken():
    source, network = (create(name, seed=seed, **VIT) for seed, name in enumerate(("upernet_vit_b_rvsa", "upernet_vit_b")))
    report = load_weights(network, official_state_dict(source))
    assert torch.equal(network.encoder.pyramid.levels[0][0].weight, source.encoder.pyramid.levels[0][0].weight)
    assert torch.equal(network.encoder.pyramid.levels[1][0].bias, source.encoder.pyramid.levels[1][0].bias)
    assert not [name for name in report.dropped if "fpn" in name and "decode_head" not in name]


class TestFolders:
    def test_other_heads_are_refused_and_another_epsilon_is_noted(self, tmp_path):
        network = create("upernet_vit_b", seed=1, **VIT)
        before = snapshot(network)
        with pytest.raises(UnreadableFileError, match=r"computes otherwise: heads 4, here 2") as refused:
            load_weights(network, folder_of(create("upernet_vit_b", **VIT | {"heads": 4}), tmp_path / "heads"))
        assert "\n" not in str(refused.value)
        assert same(network, before)
        report = load_weights(network, folder_of(create("upernet_vit_b", **VIT, epsilon=1e-3), tmp_path / "epsilon"))
        assert any("epsilon 0.001, here 1e-05" in note for note in report.notes)

    def test_order_of_heads_and_groups_of_norms(self, tmp_path):
        options = {"width": 32, "multipliers": (1, 2), "res_blocks": 1, "attention_strides": (2,), "norm_groups": 8, "head_width": 16}
        for change, said in (({"head_order": "new"}, "head_order"), ({"norm_groups": 4}, "norm_groups 4, here 8")):
            source = folder_of(create("ddpm_guided_256", **options | change), tmp_path / said.split()[0])
            with pytest.raises(UnreadableFileError, match=said):
                load_weights(create("ddpm_guided_256", **options), source)

    def test_the_same_network_has_nothing_to_note(self, tmp_path):
        source = folder_of(create("upernet_vit_b", **VIT), tmp_path)
        assert load_weights(create("upernet_vit_b", seed=1, **VIT), source).notes == []

    def test_another_name_and_other_taps_are_noted(self, tmp_path):
        source = folder_of(create("upernet_vit_b", **VIT, taps=(0, 1, 2, 3)), tmp_path)
        report = load_weights(create("upernet_vit_l", **VIT, taps=(1, 1, 2, 3)), source)
        assert "the folder holds upernet_vit_b, this network is upernet_vit_l" in report.notes
        assert any(note.startswith("other options: taps (0, 1, 2, 3), here (1, 1, 2, 3)") for note in report.notes)

    def test_classes_of_other_names_and_another_sensor(self, tmp_path):
        def model(seed, sensor, *names):
            classes = tuple(LandClass(name=name, colour=(index, 0, 0)) for index, name in enumerate(names))
            config = NetworkConfig(name="upernet_vit_b", image_size=64, options=TINY)
            return build_segmenter(config, get_sensor(sensor), ClassScheme(name="two", classes=classes), seed)

        model(1, "rgb", "land", "water").save(tmp_path)
        other = model(2, "s2_l2a", "water", "land")
        before = snapshot(other.network)
        report = load_weights(other, tmp_path)
        head = other.network.segmentation_head.convolution.weight
        assert torch.equal(head, before["segmentation_head.convolution.weight"])
        assert "class layer for land, water" in report.dropped["segmentation_head.convolution.weight"]
        assert report.verdict == "complete but for the classes"
        assert any("the folder is for sensor 'rgb', this model for 's2_l2a'" in note for note in report.notes)
        assert load_weights(model(3, "rgb", "land", "water"), tmp_path).verdict == "complete"


class TestExperts:
    def test_tasks_in_another_order_keep_their_experts(self, tmp_path):
        source = create("upernet_vit_b_moe", tasks={"a": 2, "b": 3}, seed=1, **MOE).eval()
        image = torch.randn(1, 3, 64, 64)
        for file in (folder_of(source, tmp_path), source.state_dict()):
            network = create("upernet_vit_b_moe", tasks={"b": 3, "a": 2}, seed=2, **MOE).eval()
            assert load_weights(network, file).verdict == "complete"
            with torch.no_grad():
                for task in ("a", "b"):
                    assert torch.equal(network(image, task), source(image, task))

    def test_a_sorted_file_without_its_folder_is_refused(self):
        source = create("upernet_vit_b_moe", tasks={"b": 2, "a": 3}, seed=1, **MOE)
        network = create("upernet_vit_b_moe", tasks={"b": 2, "a": 3}, seed=2, **MOE)
        with pytest.raises(UsageError, match="nothing tells which expert belongs to which task"):
            load_weights(network, dict(sorted(source.state_dict().items())))

    def test_an_ordinary_folder_starts_every_expert(self, tmp_path):
        source = create("upernet_vit_b", seed=1, **VIT)
        network = create("upernet_vit_b_moe", tasks={"a": 2, "b": 3}, seed=2, **MOE)
        report = load_weights(network, folder_of(source, tmp_path))
        assert report.verdict == "complete but for the classes"
        layer, dense = network.encoder.blocks[2].feed_forward, source.encoder.blocks[2].feed_forward.contract.weight
        assert torch.equal(layer.shared.weight, dense[:-8])
        assert all(torch.equal(expert.weight, dense[-8:]) for expert in layer.experts)

    def test_one_task_of_a_folder_is_taken_by_name(self, tmp_path):
        source = create("upernet_vit_b_moe", tasks={"a": 2, "b": 3}, seed=1, **MOE).eval()
        folder_of(source, tmp_path)
        network = create("upernet_vit_b", seed=2, **VIT).eval()
        with pytest.raises(UsageError, match="say which to take: a, b"):
            load_weights(network, tmp_path)
        assert load_weights(network, tmp_path, take="b").verdict == "complete"
        image = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(network(image), source(image, "b"))

    def test_a_file_that_lacks_one_expert_is_one_line(self):
        source = official_state_dict(create("upernet_vit_b_moe", tasks={"a": 2, "b": 3}, seed=1, **MOE))
        cut = {name: value for name, value in source.items() if ".layers.2.ffn.experts.1." not in name}
        with pytest.raises(UsageError, match=r"blocks\.2\.feed_forward\.experts\.1\.weight is missing"):
            load_weights(create("upernet_vit_b", **VIT), cut, take="b")
        without = {name: value for name, value in source.items() if not name.endswith("patch_embed.projection.bias")}
        with pytest.raises(UsageError, match="say which to take"):
            load_weights(create("upernet_vit_b", **VIT), without)

"""What can be taken out of a pre-training file of CromSS, and into which networks."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from torch import Tensor, nn

from support.official_cromss import manifest
from tilth.errors import UnreadableFileError, UsageError
from tilth.models import create, load_weights, official_state_dict
from tilth.models.fusion import FusionNetwork
from tilth.models.weights.layouts.cromss import LAYOUTS, place_of

TINY = {"encoder": "resnet18"}
TAGS = {"mfs1": ("mid", "s1"), "mfs2": ("mid", "s2"), "lfs1": ("late", "s1"), "lfs2": ("late", "s2")}
BANDS = {"s1": 2, "s2": 13, "joint": 15}


@pytest.fixture(scope="module")
def fusions() -> dict[str, FusionNetwork]:
    networks = {}
    for name in ("mid2", "late2", "mid3", "late3"):
        network = create(f"cromss_{name}_resnet50", num_classes=9, seed=len(networks), **TINY)
        assert isinstance(network, FusionNetwork)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # running statistics that are not those of a fresh network
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        networks[name] = network.eval()
    return networks


def lightning(network: nn.Module) -> dict[str, Tensor]:
    return {f"net.{name}": tensor for name, tensor in official_state_dict(network).items()}


def unet(bands: int, name: str = "cromss_unet_resnet50", **options) -> nn.Module:
    return create(name, bands, options.pop("num_classes", 9), seed=99, **TINY, **options).eval()


def same_features(network: nn.Module, fusion: FusionNetwork, branch: str) -> bool:
    image = torch.randn(1, BANDS[branch], 64, 64)
    with torch.no_grad():
        # The first of the fusion network's is the image itself, which not every encoder gives back.
        wanted = fusion.branch(branch).encoder(image)[1:]
        found = network.encoder(image)[1:]
    return all(torch.equal(*pair) for pair in zip(found, wanted, strict=False))


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_takes_the_encoder_of_its_modality_out_of_a_lightning_file(tmp_path, fusions, tag):
    kind, branch = TAGS[tag]
    fusion = fusions[f"{kind}2"]
    network = unet(BANDS[branch], "cromss_fpn_resnet50")
    path = tmp_path / "epoch=199.ckpt"
    torch.save({"state_dict": lightning(fusion), "hyper_parameters": {"args": Namespace(lr=1e-3)}, "epoch": 199}, path)
    report = load_weights(network, path, take=tag)
    encoder = {name for name in network.state_dict() if name.startswith("encoder.")}
    assert (report.layout, set(report.matched), report.unexpected) == ("cromss-fusion", encoder, [])
    assert set(report.missing) == set(network.state_dict()) - encoder
    assert len(report.dropped) + len(encoder) == len(lightning(fusion))
    assert same_features(network, fusion, branch)


@pytest.mark.parametrize("name", ["mid2", "late2", "mid3", "late3"])
@pytest.mark.parametrize("prefix", ["net.", ""])
def test_the_encoder_whose_bands_fit_is_taken_if_nothing_is_said(fusions, name, prefix):
    tensors = {f"{prefix}{key}": tensor for key, tensor in official_state_dict(fusions[name]).items()}
    for branch in fusions[name].branches:
        network = unet(BANDS[branch])
        report = load_weights(network, tensors)
        assert report.layout == "cromss-fusion"
        assert same_features(network, fusions[name], branch)
        assert {key.partition(".")[0] for key in report.matched} == {"encoder"}


def test_bands_that_fit_none_or_several_must_be_answered_with_a_choice(fusions):
    with pytest.raises(UsageError, match=r"sees 4 bands and the file holds s1 \(2 bands\), s2 \(13 bands\).*take='s1'"):
        load_weights(unet(4), lightning(fusions["mid2"]))
    report = load_weights(network := unet(4), lightning(fusions["mid2"]), take="s2")
    assert list(report.resized) == ["encoder.conv1.weight"]
    assert torch.equal(network.encoder.layer1[0].conv1.weight, fusions["mid2"].branch("s2").encoder.layer1[0].conv1.weight)


@pytest.mark.parametrize(
    ("tag", "part", "count"),
    [
        ("mfs1", "encoder", 120),
        ("mfs2", "de1", 132),
        ("lfs1", "de2", 144),
        ("lfs2", "de3", 156),
        ("mfs2", "de4", 168),
        ("lfs2", "wocls", 180),
        ("mfs1", "all", 182),
        ("lfs2", "all", 182),
    ],
)
def test_parts_of_the_decoder_come_along_as_far_as_asked(fusions, tag, part, count):
    kind, branch = TAGS[tag]
    network = unet(BANDS[branch])
    report = load_weights(network, lightning(fusions[f"{kind}2"]), take=f"{tag}:{part}")
    assert len(report.matched) == count
    image = torch.randn(1, BANDS[branch], 64, 64)
    with torch.no_grad():
        features = network.encode(image)
        same = torch.equal(network.decode(features), fusions[f"{kind}2"].branch(branch).decode(features))
    assert same == (part == "all")


def test_counts_of_resnet50_are_the_published_ones():
    with torch.device("meta"):
        official = {f"net.{name}": torch.empty(shape) for name, shape in manifest("late2").items()}
        network = create("cromss_unet_resnet50", num_classes=9)
    published = {"encoder": 318, "de1": 330, "de2": 342, "de3": 354, "de4": 366, "wocls": 378, "all": 380}
    assert {part: len(LAYOUTS[0].convert(official, network, f"lfs2:{part}").tensors) for part in published} == published


def test_a_head_of_other_classes_stays_behind(fusions):
    report = load_weights(unet(13, num_classes=5), lightning(fusions["late2"]), take="lfs2:all")
    assert {"segmentation_head.0.weight", "segmentation_head.0.bias"} <= set(report.dropped)
    assert len(report.matched) == 180


@pytest.mark.parametrize("tag", ["nss1", "nss2:all", None])
def test_a_network_of_one_modality_is_taken_by_its_tag_or_whole(tag):
    source, network = unet(13), unet(13)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    report = load_weights(network, {f"net.{name}": tensor for name, tensor in source.state_dict().items()}, take=tag)
    assert report.layout == "cromss-resnet"
    assert len(report.matched) == (182 if tag in (None, "nss2:all") else 120)
    assert all(torch.equal(network.state_dict()[name], source.state_dict()[name]) for name in report.matched)


def test_a_decoder_of_another_kind_stays_behind_with_a_reason():
    source, network = unet(13), unet(13, "cromss_fpn_resnet50")
    report = load_weights(network, {f"net.{name}": tensor for name, tensor in source.state_dict().items()})
    assert {name.partition(".")[0] for name in report.matched} == {"encoder"}
    assert all("not part of" in reason for reason in report.dropped.values())
    with pytest.raises(UsageError, match="decoder does not have; take the encoder alone"):
        load_weights(network, {f"net.{name}": tensor for name, tensor in source.state_dict().items()}, take="nss2:all")


def test_three_branches_fill_two_and_two_fill_three_but_for_the_joint_one(fusions):
    for kind in ("mid", "late"):
        two, three = (create(f"cromss_{kind}{branches}_resnet50", num_classes=9, **TINY) for branches in (2, 3))
        report = load_weights(two, lightning(fusions[f"{kind}3"]))
        assert report.missing == []
        assert set(report.dropped.values()) == {"the network has no branch 'joint'"}
        report = load_weights(three, lightning(fusions[f"{kind}2"]))
        assert report.missing
        assert all(".joint." in name for name in report.missing)


@pytest.mark.parametrize("kind", ["mid", "late"])
def test_other_bands_and_classes_are_fitted_in_every_branch(fusions, kind):
    network = create(f"cromss_{kind}2_resnet50", (1, 9), 5, **TINY)
    report = load_weights(network, lightning(fusions[f"{kind}2"]))
    assert set(report.resized) == {"encoder.s1.conv1.weight", "encoder.s2.conv1.weight"}
    assert set(report.missing) == {name for name in network.state_dict() if "head" in name}
    assert report.verdict == "complete but for the classes"


def test_middle_into_late_fusion_brings_the_encoders_alone(fusions):
    network = create("cromss_late2_resnet50", num_classes=9, **TINY)
    report = load_weights(network, lightning(fusions["mid2"]))
    assert {name.partition(".")[0] for name in report.matched} == {"encoder"}
    assert set(report.dropped.values()) == {"file and network differ in whether branches share their decoder"}
    image = torch.randn(1, 2, 64, 64)
    network.eval()
    with torch.no_grad():
        pairs = zip(network.branch("s1").encoder(image), fusions["mid2"].branch("s1").encoder(image), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


def test_what_cannot_be_taken_is_answered_in_one_line(fusions):
    cases = [
        (unet(13), "mfs2:head", "no part is called 'head'"),
        (unet(13), "lfs2", "is of mid fusion and holds s1, s2"),
        (unet(13), "joint", "is of mid fusion and holds s1, s2"),
        (unet(13, "cromss_fpn_resnet50"), "mfs2:de1", "decoder does not have; take the encoder alone"),
        (create("cromss_unet_resnet50", num_classes=9, encoder="resnet34"), "mfs2", "another ResNet than the network's"),
        (create("cromss_mid2_resnet50", num_classes=9, **TINY), "mfs2", "takes the file whole"),
        (create("cromss_upernet_vit_l", depth=4, width=16, heads=2), None, "."),
    ]
    for network, take, message in cases:
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        with pytest.raises((UsageError, UnreadableFileError), match=message) as caught:
            load_weights(network, lightning(fusions["mid2"]), take=take)
        assert "\n" not in str(caught.value)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_encoders_of_timm_take_the_same_files(fusions):
    from tilth.models.config import NetworkConfig
    from tilth.models.networks import build_network

    network = build_network(NetworkConfig(encoder="resnet18", decoder="unet"), 13, 9).eval()
    load_weights(network, lightning(fusions["mid2"]), take="mfs2")
    assert same_features(network, fusions["mid2"], "s2")


def test_names_of_a_file_are_placed_by_branch_and_part():
    assert place_of("net.encoder1.conv1.weight") == ("s1", "encoder", "conv1.weight")
    assert place_of("encoder_com.bn1.bias") == ("joint", "encoder", "bn1.bias")
    assert place_of("net.model2.decoder.blocks.0.conv1.0.weight") == ("s2", "decoder", "blocks.0.conv1.0.weight")
    assert place_of("segmentation_head.0.bias") == (None, "segmentation_head", "0.bias")
    assert place_of("net.model2.classifier.weight") is None
    assert place_of("criterion.weight") is None

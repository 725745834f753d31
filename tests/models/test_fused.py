"""A network for a sum of sensors: one image in, the mean of its branches' maps out, and each branch can be taken out."""

from __future__ import annotations

import pytest
import torch

from support.training_sample import NETWORK, SCHEME
from tilth.errors import ConfigError, UsageError
from tilth.models.config import FusionConfig, NetworkConfig
from tilth.models.fused import FusedNetwork, branch_segmenter, fuse, place_branches
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor

BOTH = get_sensor("s1+s2_l2a_9")


def make(seed: int = 0, sensor=BOTH, network: NetworkConfig = NETWORK, **fusion) -> Segmenter:
    return build_segmenter(network.model_copy(update={"fusion": FusionConfig(**fusion)}), sensor, SCHEME, seed)


def branches_of(model: Segmenter) -> FusedNetwork:
    assert isinstance(model.network, FusedNetwork)
    return model.network


@pytest.mark.parametrize("kind", ["mid", "late"])
@pytest.mark.parametrize("joint", [False, True])
def test_map_is_the_mean_of_the_branches_probabilities(kind, joint):
    model = make(kind=kind, joint=joint).eval()
    image = torch.randn(2, 11, 45, 70)
    with torch.no_grad():
        each = branches_of(model).branch_logits(image)
        assert [tuple(item.shape) for item in each] == [(2, 3, 45, 70)] * (3 if joint else 2)
        torch.testing.assert_close(model(image).softmax(1), torch.stack([item.softmax(1) for item in each]).mean(0))


def test_saturated_branches_average_exactly():
    sure = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1)
    assert fuse([sure, -sure]).softmax(1).flatten().tolist() == [0.5, 0.5]
    assert fuse([sure, sure]).softmax(1).flatten().tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["mid", "late"])
def test_a_branch_sees_its_own_bands_alone_and_can_be_taken_out(kind, tmp_path):
    model = make(kind=kind).eval()
    image, other = torch.randn(2, 11, 40, 40), torch.randn(2, 11, 40, 40)
    other[:, 2:] = image[:, 2:]
    with torch.no_grad():
        first, second = (branches_of(model).branch_logits(item) for item in (image, other))
        assert torch.equal(first[1], second[1])
        assert not torch.equal(first[0], second[0])
        alone = branch_segmenter(model, "s2")
        assert alone.sensor.band_names == get_sensor("s2_l2a_9").band_names
        torch.testing.assert_close(alone(image[:, 2:]), first[1])
        read = Segmenter.load(alone.save(tmp_path / "s2"))
        torch.testing.assert_close(read(image[:, 2:]), first[1])


def test_bands_that_do_not_stand_together_are_found():
    model = make(branches={"some": ("B12", "VV"), "others": ("B04",)}).eval()
    assert model.config.network.fusion is not None
    assert model.config.network.fusion.positions == {"some": (10, 0), "others": (4,)}
    image = torch.randn(1, 11, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(branch_segmenter(model, "some")(image[:, [10, 0]]), branches_of(model).branch_logits(image)[0])


def test_folders_are_read_back_and_say_what_they_hold(tmp_path):
    model = make(kind="late", joint=True).eval()
    read = Segmenter.load(model.save(tmp_path / "model"))
    image = torch.randn(1, 11, 32, 32)
    with torch.no_grad():
        assert torch.equal(read(image), model(image))
    assert read.config.network.title == "late fusion of s1, s2_l2a_9, joint: test_byobnet + unet"


def test_folders_of_other_networks_say_nothing_of_branches(tmp_path):
    build_segmenter(NETWORK, BOTH, SCHEME).save(tmp_path)
    assert "fusion" not in (tmp_path / "config.json").read_text()


def test_the_same_seed_gives_the_same_branches():
    one, two, other = make(1), make(1), make(2)
    assert all(torch.equal(left, right) for left, right in zip(one.parameters(), two.parameters(), strict=True))
    assert any(not torch.equal(left, right) for left, right in zip(one.parameters(), other.parameters(), strict=True))


def test_parts_of_a_sum_are_told_by_its_name_or_by_the_kind_of_bands():
    assert place_branches(FusionConfig(), BOTH).positions == {"s1": (0, 1), "s2_l2a_9": tuple(range(2, 11))}
    renamed = BOTH.model_copy(update={"name": "my_two"})
    assert list(place_branches(FusionConfig(), renamed).positions) == ["radar", "optical"]
    assert place_branches(FusionConfig(use=("s1",), joint=True), BOTH).positions == {"s1": (0, 1), "joint": (0, 1)}


def test_what_cannot_be_told_or_is_not_there_is_refused_in_one_line():
    rgb = get_sensor("rgb")
    for fusion, sensor, said in (
        ({}, rgb, r"network\.fusion\.branches\.first=\[red\]"),
        ({"branches": {"a": ("VX",)}}, BOTH, "has no band 'VX'"),
        ({"use": ("s2",)}, BOTH, "no branch 's2'; did you mean|choices"),
        ({"branches": {"half": ("VV",)}}, BOTH, "torch has for itself"),
        ({"positions": {"a": (0, 40)}}, BOTH, "has 11 bands"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            make(sensor=sensor, **fusion)
        assert "\n" not in str(caught.value)
    for name in ("joint", "a.b", "1"):
        with pytest.raises(ValueError, match="cannot be called"):
            FusionConfig(branches={name: ("VV",)})
    with pytest.raises(ValueError, match="every band once"):
        FusionConfig(branches={"a": ("VV", "VV")})
    with pytest.raises(UsageError, match="no branch 's3'"):
        branch_segmenter(make(), "s3")
    with pytest.raises(UsageError, match="has no branches"):
        branch_segmenter(build_segmenter(NETWORK, rgb, SCHEME), "s1")


def test_one_image_that_shrinks_to_a_pixel_is_told_of_in_one_line():
    with pytest.raises(ValueError, match="two images per batch"):
        make(network=NetworkConfig(name="cromss_deeplabv3plus_resnet50", options={"encoder": "resnet18"})).train()(
            torch.randn(1, 11, 32, 32)
        )

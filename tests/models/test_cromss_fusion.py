"""Middle and late fusion compute what the published networks compute, for any bands and sizes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from support.official_cromss import FIXTURES, manifest, official_tensors, recipe, shapes_of
from tilth.errors import ConfigError, SensorMismatchError, UsageError
from tilth.models import create, load_weights, official_state_dict
from tilth.models.folder import load_network, save_network
from tilth.models.fusion import FusionNetwork

NAMES = ("mid2", "late2", "mid3", "late3")
TINY = {"encoder": "resnet18", "decoder_channels": (16, 8, 8, 8, 4)}


def fusion(name: str, **options) -> FusionNetwork:
    network = create(f"cromss_{name}_resnet50", **options)
    assert isinstance(network, FusionNetwork)
    return network


def statistics_of(features: torch.Tensor) -> np.ndarray:
    values = features.double().flatten()
    chosen = values[np.linspace(0, len(values) - 1, 16).astype(int)]
    return np.concatenate([[values.mean(), values.std(unbiased=False), values.abs().max()], chosen])


@pytest.mark.parametrize("name", [name if name in ("mid2", "late3") else pytest.param(name, marks=pytest.mark.slow) for name in NAMES])
def test_logits_and_features_are_the_published_ones(name):
    stored = np.load(FIXTURES / f"net_{name}.npz")
    network = fusion(name, num_classes=9).eval()
    report = load_weights(network, {f"net.{key}": tensor for key, tensor in official_tensors(manifest(name)).items()})
    assert (report.layout, report.missing, report.unexpected, report.dropped) == ("cromss-fusion", [], [], {})
    s1, s2 = recipe("input:s1", (1, 2, 64, 64)), recipe("input:s2", (1, 13, 64, 64))
    images = dict(zip(("s1", "s2", "joint"), (s1, s2, torch.cat([s1, s2], dim=1)), strict=True))
    with torch.no_grad():
        found = network(s1, s2)
        assert len(found) == int(name[-1])
        for index, (branch, logits) in enumerate(zip(network.branches, found, strict=True), start=1):
            wanted = stored[f"logits{index}"]
            step = int(stored["stride"])
            assert np.abs(logits.numpy()[..., ::step, ::step] - wanted).max() < 1e-3 * wanted.std()
            for stage, features in enumerate(network.branch(branch).encoder(images[branch])):
                expected = stored[f"feat{index}_stage{stage}"]
                assert np.abs(statistics_of(features) - expected).max() < 1e-3 * expected[1]


def test_shared_batch_norm_meets_s1_before_s2():
    stored = np.load(FIXTURES / "batch_norm_mid2.npz")
    network = fusion("mid2", num_classes=9)
    load_weights(network, official_tensors(manifest("mid2")))
    both = recipe("input:step_img", (2, 15, 64, 64))
    other = copy.deepcopy(network)
    with torch.no_grad():
        network(both[:, :2], both[:, 2:])
        for branch, image in (("s2", both[:, 2:]), ("s1", both[:, :2])):
            other.branch(branch)(image)
    found, swapped = official_state_dict(network), official_state_dict(other)
    assert len(stored.files) == 12
    for key in stored.files:
        np.testing.assert_allclose(found[key].numpy(), stored[key], rtol=1e-4, atol=1e-4, err_msg=key)
        if key.startswith("decoder") and not key.endswith("tracked"):
            # What is shared shows the order, if by less than the tolerance: the last pass weighs more.
            assert np.abs(found[key].numpy() - stored[key]).max() < 0.1 * np.abs(swapped[key].numpy() - stored[key]).max()


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_counts_are_the_published_ones(name):
    counts = {"mid2": 56_058_521, "late2": 65_072_754, "mid3": 79_604_185, "late3": 97_632_651}
    with torch.device("meta"):
        network = fusion(name, num_classes=9)
    assert shapes_of(official_state_dict(network)) == manifest(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == counts[name]


@pytest.mark.parametrize(("bands", "branches", "fusion_kind"), [((2, 13), 2, "mid"), ((1, 4), 3, "late"), ((5, 3), 3, "mid")])
@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_any_bands_and_sizes_give_one_map_for_each_branch(bands, branches, fusion_kind, size):
    network = fusion(f"{fusion_kind}{branches}", in_channels=bands, num_classes=4, **TINY)
    assert list(network.bands.values()) == [*bands, sum(bands)][:branches]
    logits = network(*(torch.randn(2, count, *size) for count in bands))
    assert [tuple(found.shape) for found in logits] == [(2, 4, *size)] * branches
    sum(found.square().mean() for found in logits).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_a_branch_depends_on_its_own_image_and_joint_on_both():
    network = fusion("mid3", num_classes=3, **TINY).eval()
    s1, s2 = torch.randn(1, 2, 32, 32), torch.randn(1, 13, 32, 32)
    with torch.no_grad():
        before, after = network(s1, s2), network(s1, s2 + 1)
    assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [True, False, False]


def test_middle_fusion_shares_what_follows_the_encoders_and_late_fusion_nothing():
    s1, s2 = torch.randn(1, 2, 32, 32), torch.randn(1, 13, 32, 32)
    for name, others in (("mid2", [False, False]), ("late2", [False, True])):
        network = fusion(name, num_classes=3, **TINY).eval()
        head = official_state_dict(network)
        bias = head["segmentation_head.0.bias" if name == "mid2" else "model1.segmentation_head.0.bias"]
        with torch.no_grad():
            before = network(s1, s2)
            bias += 1
            after = network(s1, s2)
        assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == others


def test_images_that_do_not_belong_together_are_refused_in_one_line():
    network = fusion("mid2", num_classes=3, **TINY)
    for s1, s2 in (((1, 2, 32, 32), (1, 13, 32, 64)), ((1, 2, 32, 32), (2, 13, 32, 32)), ((1, 13, 32, 32), (1, 2, 32, 32))):
        with pytest.raises(SensorMismatchError, match=r"expected \(B, 2, H, W\) and \(B, 13, H, W\) with equal B, H and W") as caught:
            network(torch.zeros(s1), torch.zeros(s2))
        assert "\n" not in str(caught.value)


def test_wrong_options_are_answered_with_the_right_ones():
    with pytest.raises(ConfigError, match="one band count for S1 and one for S2"):
        fusion("mid2", in_channels=13)
    with pytest.raises(ConfigError, match=r"expected 2 .* or 3"):
        fusion("mid2", branches=4)
    with pytest.raises(ConfigError, match="did you mean 'resnet50'"):
        fusion("mid2", encoder="resnet5O")
    with pytest.raises(ConfigError, match="choices: late, mid"):
        fusion("mid2", fusion="early")
    with pytest.raises(UsageError, match="no branch 's3'"):
        fusion("mid2", **TINY).branch("s3")


@pytest.mark.parametrize("name", ["mid2", "late3"])
def test_folders_with_the_names_of_earlier_versions_are_read(name, tmp_path):
    network = fusion(name, num_classes=3, **TINY).eval()
    save_network(network, tmp_path)
    earlier = {"encoder": "encoders"} | ({"decoder": "decoders", "segmentation_head": "heads"} if name == "late3" else {})
    names = {key: key.partition(".")[0] for key in network.state_dict()}
    tensors = {earlier.get(first, first) + key.removeprefix(first): network.state_dict()[key].clone() for key, first in names.items()}
    assert "encoders.s1.conv1.weight" in tensors
    save_file(tensors, tmp_path / "model.safetensors")
    read, images = load_network(tmp_path), (torch.randn(1, 2, 32, 32), torch.randn(1, 13, 32, 32))
    with torch.no_grad():
        assert all(torch.equal(*pair) for pair in zip(read(*images), network(*images), strict=True))


def test_the_same_seed_gives_the_same_network_and_survives_saving():
    one, two, other = (fusion("late2", num_classes=3, seed=seed, **TINY) for seed in (1, 1, 2))
    assert all(torch.equal(left, right) for left, right in zip(one.parameters(), two.parameters(), strict=True))
    other.load_state_dict(one.state_dict())
    images = torch.randn(1, 2, 32, 32), torch.randn(1, 13, 32, 32)
    with torch.no_grad():
        assert all(torch.equal(left, right) for left, right in zip(one.eval()(*images), other.eval()(*images), strict=True))

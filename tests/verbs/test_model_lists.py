"""Lists of networks say what is there."""

import pytest
import torch

import tilth
from support.published_files import small_networks
from tilth.errors import ConfigError
from tilth.models.by_name import available
from tilth.models.describe import options_of
from tilth.models.named import NAMES


def test_every_network_is_listed_with_kind_bands_and_parameters():
    with small_networks():
        found = tilth.models_list()
        counts = available()
    assert list(found.values["networks"]) == list(NAMES)
    for line, (name, named) in zip(found.summary[1:], NAMES.items(), strict=False):
        assert line.split()[:2] == [name, named.kind]
        assert f"{counts[name]:,}" in line
        assert found.values["networks"][name]["parameters"] == counts[name]
    assert "2 + 13" in next(line for line in found.summary if line.startswith("cromss_mid2"))


def test_network_is_described_with_its_own_defaults():
    found = tilth.models_info(name="upernet_vit_b")
    assert found.values["parameters"] == 103_158_289
    assert found.values["layout"] == "s5-vit"
    assert found.values["options"]["size"] == "b"
    line = next(line for line in found.summary if line.startswith("  drop_path "))
    assert line.split()[1] == "0.1"
    assert "rate at the last layer" in line


@pytest.mark.parametrize("name", NAMES)
def test_every_option_of_every_network_is_described(name):
    for setting in options_of(name):
        assert setting.description, f"{name}: {setting.name}"
        assert ":func:" not in setting.description
        assert "``" not in setting.description


def test_unknown_network_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'upernet_vit_b'"):
        tilth.models_info(name="upernet-vit-b")


def test_listing_leaves_the_global_random_state():
    before = torch.get_rng_state()
    with small_networks():
        tilth.models_list()
        tilth.models_info(name="upernet_vit_b")
    assert torch.equal(torch.get_rng_state(), before)

"""Folders of networks by name bring every kind back bit by bit, and say in one line what is wrong with them."""

from __future__ import annotations

import json

import pytest
import torch

from tilth.errors import MissingFileError, TilthError, UnreadableFileError, UsageError
from tilth.models import create
from tilth.models.folder import load_network, save_network

VIT = {"width": 24, "depth": 4, "heads": 2, "decoder_channels": 8, "image_size": 64}
KINDS = {
    "upernet_vit_b": ({"num_classes": 3, **VIT}, lambda draw: (draw(1, 3, 40, 72),)),
    "upernet_vit_b_moe": ({"tasks": {"a": 2, "b": 3}, "part": 8, **VIT}, lambda draw: (draw(1, 3, 64, 64), "b")),
    "cromss_mid2_resnet50": ({"encoder": "resnet18", "num_classes": 2}, lambda draw: (draw(1, 2, 64, 64), draw(1, 13, 64, 64))),
    "cromss_upernet_dofa_l": (
        {"num_classes": 2, "wavelengths": (0.6, 0.5), "in_channels": 2, **VIT, "width": 32},
        lambda draw: (draw(1, 2, 64, 64),),
    ),
}


@pytest.mark.parametrize("name", list(KINDS))
def test_a_network_comes_back_and_computes_the_same(tmp_path, name):
    options, inputs = KINDS[name]
    network = create(name, seed=1, **options).eval()
    assert save_network(network, tmp_path / "deep" / "folder") == tmp_path / "deep" / "folder"
    state = torch.random.get_rng_state()
    again = load_network(tmp_path / "deep" / "folder")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not again.training
    assert again.spec == type(again.spec).model_validate(json.loads(network.spec.model_dump_json()))
    generator = torch.Generator().manual_seed(0)
    arguments = inputs(lambda *shape: torch.randn(*shape, generator=generator))
    with torch.no_grad():
        expected, found = network(*arguments), again(*arguments)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        save_network(create("upernet_vit_b", seed=1, num_classes=3, **VIT), tmp_path / folder)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_was_not_built_by_name_cannot_be_kept(tmp_path):
    with pytest.raises(UsageError, match="Linear was not built by name"):
        save_network(torch.nn.Linear(1, 1), tmp_path)
    assert not list(tmp_path.iterdir())


def spoil_config(**changes):
    def spoil(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "error", "expected"),
    [
        (lambda folder: (folder / "config.json").unlink(), MissingFileError, r"config\.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), MissingFileError, r"model\.safetensors is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), UnreadableFileError, "not JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"), UnreadableFileError, "damaged weights"),
        (spoil_config(model_type="tilth-segmenter"), UnreadableFileError, r"read it with Segmenter\.load"),
        (spoil_config(model_type="other"), UnreadableFileError, "not a network of tilth"),
        (spoil_config(schema_version=99), UnreadableFileError, "newer tilth"),
        (spoil_config(extra=1), UnreadableFileError, "unknown key 'extra'"),
        (
            spoil_config(network={"name": "upernet_vit_z", "in_channels": 3, "num_classes": 3, "image_size": 64, "options": {}}),
            UnreadableFileError,
            "no network is called 'upernet_vit_z'",
        ),
        (
            spoil_config(network={"name": "upernet_vit_b", "in_channels": 4, "num_classes": 3, "image_size": 64,
                                  "options": {key: value for key, value in VIT.items() if key != "image_size"}}),
            UnreadableFileError,
            "the weights do not fit",
        ),
    ],
)  # fmt: skip
def test_a_damaged_folder_gets_one_line(tmp_path, spoil, error, expected):
    save_network(create("upernet_vit_b", seed=1, num_classes=3, **VIT), tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=expected) as refused:
        load_network(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TilthError):
        save_network(create("upernet_vit_b", seed=1, num_classes=3, **VIT), tmp_path / "file")

"""A Segmenter takes any size and any number of bands, and a model folder brings it back bit by bit."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.training_sample import NETWORK, SCHEME, tiny_model
from tilth.errors import ConfigError, MissingFileError, RunError, SensorMismatchError, UnreadableFileError
from tilth.models.config import NetworkConfig
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor

OPTIONS = {
    "unet": {"decoder_channels": [8, 8, 8, 8, 8]},
    "fpn": {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 32},
    "pspnet": {"psp_out_channels": 16},
    "deeplabv3plus": {"decoder_channels": 16},
    "upernet": {"decoder_channels": 16},
    "segformer": {"decoder_segmentation_channels": 16},
}


def four_bands():
    return get_sensor("s2_l2a").select(["B02", "B03", "B04", "B08"], name="four")


@pytest.mark.parametrize("encoder", ["test_byobnet", "test_convnext"])
@pytest.mark.parametrize("decoder", list(OPTIONS))
def test_every_decoder_takes_any_size_and_comes_back_bit_by_bit(tmp_path, encoder, decoder):
    network = NetworkConfig(encoder=encoder, decoder=decoder, options=OPTIONS[decoder])
    model = build_segmenter(network, get_sensor("s1"), SCHEME)
    model(torch.randn(2, 2, 64, 64))  # running statistics that are not those of a fresh network
    model.eval()
    model.save(tmp_path / "model")
    again = Segmenter.load(tmp_path / "model")
    assert not again.training
    assert again.config == model.config
    with torch.no_grad():
        for height, width in ((1, 1), (33, 7), (50, 64)):
            image = torch.randn(2, 2, height, width)
            logits = model(image)
            assert logits.shape == (2, 3, height, width)
            assert logits.dtype == torch.float32
            assert torch.isfinite(logits).all()
            assert torch.equal(again(image), logits)


@pytest.mark.parametrize("sensor", [get_sensor("s1"), get_sensor("rgb"), four_bands(), get_sensor("s2_l1c")], ids=lambda item: item.name)
def test_any_number_of_bands(sensor):
    model = tiny_model(sensor)
    assert len(sensor) in (2, 3, 4, 13)
    assert model(torch.randn(2, len(sensor), 40, 24)).shape == (2, 3, 40, 24)
    with pytest.raises(SensorMismatchError, match=rf"has {len(sensor)} bands: expected \(B, {len(sensor)}, H, W\)"):
        model(torch.randn(1, len(sensor) + 1, 40, 24))
    with pytest.raises(SensorMismatchError):
        model(torch.randn(len(sensor), 40, 24))


def test_padding_leaves_sizes_that_fit_untouched():
    model = tiny_model().eval()
    image = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(model(image), model.network(image))


def test_fresh_weights_are_a_function_of_the_seed_and_leave_the_global_state():
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first, second, other = tiny_model(seed=3), tiny_model(seed=3), tiny_model(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_loading_leaves_the_global_random_state(tmp_path):
    tiny_model().save(tmp_path)
    state = torch.get_rng_state()
    Segmenter.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_normalising_is_that_of_the_sensor():
    model = tiny_model()
    band = model.sensor.bands[0]
    image = model.normalise(torch.full((1, 3, 2, 2), 100, dtype=torch.uint8), torch.tensor([[[True, False], [True, True]]]))
    assert image[0, 0, 0, 0].item() == pytest.approx((100 * band.scale + band.offset - band.mean) / band.std, rel=1e-5)
    assert image[0, 0, 0, 1].item() == pytest.approx((band.offset - band.mean) / band.std, rel=1e-5)


def test_folder_is_plain_json_beside_plain_weights(tmp_path):
    model = tiny_model()
    model.save(tmp_path / "deep" / "model")
    assert sorted(path.name for path in (tmp_path / "deep" / "model").iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "deep" / "model" / "config.json").read_text())
    assert config["model_type"] == "tilth-segmenter"
    assert config["schema_version"] == 2
    assert config["network"]["encoder"] == NETWORK.encoder
    assert [item["name"] for item in config["scheme"]["classes"]] == ["water", "trees", "soil"]
    assert [band["name"] for band in config["sensor"]["bands"]] == ["red", "green", "blue"]
    assert set(load_file(tmp_path / "deep" / "model" / "model.safetensors")) == set(model.state_dict())


def test_same_weights_give_the_same_bytes_in_any_memory_layout(tmp_path):
    model = tiny_model()
    model.save(tmp_path / "a")
    model.to(memory_format=torch.channels_last).save(tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_run_folder_stands_for_the_model_in_it(tmp_path):
    tiny_model().save(tmp_path / "run" / "model")
    assert Segmenter.load(tmp_path / "run").scheme == SCHEME


def test_an_unfinished_run_is_called_so(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(MissingFileError, match=r"run: this run is not finished and holds no model yet; go on with --resume$"):
        Segmenter.load(tmp_path / "run")
    tiny_model().save(tmp_path / "run" / "model")
    assert Segmenter.load(tmp_path / "run").scheme == SCHEME


def test_broken_folders_are_refused_by_name(tmp_path):
    with pytest.raises(MissingFileError, match=r"not a model folder, config\.json is missing"):
        Segmenter.load(tmp_path / "nowhere")
    folder = tiny_model().save(tmp_path / "model")
    config, weights = folder / "config.json", folder / "model.safetensors"
    kept, bytes_kept = config.read_text(), weights.read_bytes()
    for text, expected in (
        ("{", "not JSON"),
        ("[]", "not a segmenter of tilth"),
        ('{"model_type": "bert"}', "not a segmenter of tilth"),
        ('{"model_type": "tilth-network"}', "a network alone, without sensor and classes"),
        (kept.replace('"schema_version": 2', '"schema_version": 3'), "newer tilth"),
        (kept.replace('"schema_version": 2', '"schema_version": "x"'), "schema_version"),
        (kept.replace('"scheme"', '"skeme"'), "did you mean 'scheme'"),
        (kept.replace('"decoder": "unet"', '"decoder": "upernet"'), "cannot be built|do not fit"),
    ):
        config.write_text(text)
        with pytest.raises((UnreadableFileError, ConfigError), match=expected):
            Segmenter.load(folder)
    config.write_text(kept)
    for damaged in (b"", bytes_kept[:100], bytes_kept[:-1]):
        weights.write_bytes(damaged)
        with pytest.raises(UnreadableFileError, match="damaged weights"):
            Segmenter.load(folder)
    tensors = dict(tiny_model().state_dict())
    tensors.pop(next(iter(tensors)))
    save_file(tensors, weights)
    with pytest.raises(UnreadableFileError, match="do not fit the network"):
        Segmenter.load(folder)
    weights.unlink()
    with pytest.raises(MissingFileError, match=r"model\.safetensors is missing"):
        Segmenter.load(folder)


def test_networks_that_cannot_be_built_are_refused():
    for network, expected in (
        (NetworkConfig(encoder="resnet8"), "timm has no model 'resnet8'; did you mean 'resnet.*'"),
        (NetworkConfig(encoder="nonsense"), "choices: .*resnet18"),
        (NetworkConfig(encoder="test_vit"), "network.decoder=upernet makes four of them, unet cannot"),
        (NetworkConfig(encoder="test_vit", decoder="upernet", options={"decoder_chanels": 8}), "did you mean 'decoder_channels'"),
        (NetworkConfig(encoder="test_vit", decoder="upernet", options={"taps": [0, 1, 2, 9]}), "four layers from 0 to 5"),
        (NetworkConfig(encoder="beit_base_patch16_224", decoder="upernet"), "beit_base_patch16_224 with upernet"),
        (NetworkConfig(encoder="hf-hubb:timm/x"), "Unknown model source 'hf-hubb'"),
        (NetworkConfig(name="upernet_vit_b", options={"width": 50}), "upernet_vit_b cannot be built|heads"),
        (NetworkConfig(name="upernet_vit_b", options={"depth": "deep"}), r"depth='deep': expected a whole number"),
        (
            NetworkConfig(encoder="test_byobnet", options={"depth_of_field": 3}),
            r"^network\.options\.depth_of_field: unet on test_byobnet takes no such option; .*decoder_channels",
        ),
        (NetworkConfig(encoder="resnet10t", decoder="fpn", options={"decoder_dropot": 0}), "did you mean 'decoder_dropout'"),
        (NetworkConfig(encoder="test_byobnet", options={"decoder_channels": [8, 8]}), "cannot be built"),
    ):
        with pytest.raises(ConfigError, match=expected) as caught:
            build_segmenter(network, get_sensor("rgb"), SCHEME)
        assert len(str(caught.value).splitlines()) == 1


def test_published_weights_that_cannot_be_had_are_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RunError, match=r"set network\.pretrained=false or fill the cache") as caught:
        build_segmenter(NETWORK.model_copy(update={"pretrained": True}), get_sensor("rgb"), SCHEME)
    assert len(str(caught.value).splitlines()) == 1


def test_folder_of_the_first_schema_reads_as_it_did(tmp_path):
    """Version 1 knew encoders with decoders alone, and wrote neither name nor image size."""
    model = tiny_model()
    folder = model.save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["schema_version"] = 1
    config["network"] = {name: config["network"][name] for name in ("encoder", "decoder", "pretrained", "options")}
    (folder / "config.json").write_text(json.dumps(config))
    again = Segmenter.load(folder)
    image = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(again(image), model.eval()(image))


NAMED = [
    ("upernet_vit_b", {"width": 24, "depth": 4, "heads": 2, "decoder_channels": 8}),
    ("upernet_swin_t", {"width": 6, "depths": [1, 1, 2, 1], "heads": [1, 2, 3, 6], "decoder_channels": 8}),
    ("cromss_unet_resnet50", {"encoder": "resnet18"}),
]


@pytest.mark.parametrize(("name", "options"), NAMED, ids=[name for name, _ in NAMED])
def test_network_by_name_comes_back_bit_by_bit(tmp_path, name, options):
    model = build_segmenter(NetworkConfig(name=name, image_size=64, options=options), four_bands(), SCHEME).eval()
    again = Segmenter.load(model.save(tmp_path / "model"))
    assert again.config == model.config
    assert again.config.network.title == name
    image = torch.randn(1, 4, 50, 70)
    with torch.no_grad():
        logits = model(image)
        assert logits.shape == (1, 3, 50, 70)
        assert torch.equal(again(image), logits)


@pytest.mark.parametrize("encoder", ["swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224"])
def test_swin_of_timm_takes_images_of_any_size(encoder):
    further = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    network = NetworkConfig(encoder=encoder, decoder="fpn", options=OPTIONS["fpn"] | {"encoder_options": further})
    model = build_segmenter(network, get_sensor("rgb"), SCHEME).eval()
    with torch.no_grad():
        for height, width in ((64, 64), (50, 130)):
            assert model(torch.randn(1, 3, height, width)).shape == (1, 3, height, width)


def test_words_that_are_numbers_are_numbers_in_options_of_a_network():
    assert NetworkConfig(name="upernet_vit_b", options={"epsilon": "1e-6"}).options == {"epsilon": 1e-6}

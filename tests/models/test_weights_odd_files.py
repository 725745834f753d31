"""Files with odd numbers, words that name nothing, networks without memory or inside a wrapper."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import timm
import torch
from torch import nn

from tilth.classes import ClassScheme, LandClass
from tilth.errors import MissingFileError, UnreadableFileError, UsageError
from tilth.models import create, load_weights, official_state_dict
from tilth.models.config import NetworkConfig
from tilth.models.encoder_folder import load_encoder, save_encoder
from tilth.models.folder import save_network
from tilth.models.segmenter import build_segmenter
from tilth.models.weights.hub import fetch
from tilth.models.weights.layout import Layout
from tilth.models.weights.read import read_weights
from tilth.models.weights.report import LoadReport
from tilth.sensors import get_sensor

TINY = {"width": 24, "depth": 4, "heads": 2, "decoder_channels": 8}
SR3 = {"width": 16, "multipliers": (1, 2), "res_blocks": 1, "attention_strides": (2,), "norm_groups": 8}
PROJECTION = "encoder.layers.0.ffn.layers.1.weight"


def vit(seed=0, **options):
    return create("upernet_vit_b", seed=seed, **{"num_classes": 3, "image_size": 64, **TINY, **options})


def resnet(seed=0):
    return create("cromss_unet_resnet50", encoder="resnet18", in_channels=3, num_classes=2, seed=seed)


class TestNumbers:
    @pytest.mark.parametrize(("kind", "word"), [(torch.int8, "whole"), (torch.bool, "whole"), (torch.complex64, "complex")])
    def test_numbers_of_another_kind_are_refused(self, kind, word):
        official = official_state_dict(vit(seed=1))
        network = vit()
        before = network.encoder.blocks[0].norm1.weight.clone()
        with pytest.raises(UnreadableFileError, match=rf"contract\.weight holds {word} numbers \(torch\.{str(kind)[6:]}\)"):
            load_weights(network, official | {PROJECTION: official[PROJECTION].to(kind)})
        assert torch.equal(network.encoder.blocks[0].norm1.weight, before)

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
    def test_files_of_other_precision_load(self, kind, tmp_path):
        official = {name: value.to(kind) for name, value in official_state_dict(vit(seed=1)).items()}
        torch.save(official, tmp_path / "a.pth")
        network = vit()
        assert load_weights(network, tmp_path / "a.pth").verdict == "complete"
        assert network.encoder.blocks[0].feed_forward.contract.weight.dtype == torch.float32
        assert torch.equal(network.encoder.blocks[0].feed_forward.contract.weight, official[PROJECTION].float())

    def test_small_scales_of_half_files_keep_their_precision(self):
        torch.manual_seed(0)
        model = timm.models.vision_transformer.VisionTransformer(img_size=64, embed_dim=24, depth=4, num_heads=2, init_values=1e-5)
        whole, half = vit(), vit()
        load_weights(whole, model.state_dict())
        load_weights(half, {name: value.half() for name, value in model.state_dict().items()})
        expected, found = (network.encoder.blocks[0].attention.projection.weight for network in (whole, half))
        # The scale itself is rounded to 1.001e-5 in half precision; the product no further.
        assert float((expected - found).detach().norm() / expected.detach().norm()) < 3e-3

    def test_bands_are_fitted_in_full_precision(self):
        official = official_state_dict(vit(seed=1, in_channels=13))
        network = vit()
        load_weights(network, {name: value.bfloat16() for name, value in official.items()})
        expected = official["encoder.patch_embed.projection.weight"].bfloat16().float()[:, :3] * (13 / 3)
        torch.testing.assert_close(network.encoder.patch_embedding.weight.detach(), expected)

    def test_a_stem_without_bands_is_refused(self):
        official = official_state_dict(vit(seed=1)) | {"encoder.patch_embed.projection.weight": torch.zeros(24, 0, 16, 16)}
        with pytest.raises(UnreadableFileError, match="24 x 0 x 16 x 16, here 24 x 3 x 16 x 16"):
            load_weights(vit(), official)

    def test_arrays_and_sparse_tensors_are_counted(self, tmp_path):
        state = timm.create_model("resnet18").state_dict()
        torch.save({name: value.numpy() if "layer4" in name else value for name, value in state.items()}, tmp_path / "a.pth")
        count = sum("layer4" in name for name in state)
        assert any(note.startswith(f"{count} NumPy arrays left out, such as layer4.") for note in read_weights(tmp_path / "a.pth").notes)
        torch.save({"w": np.zeros(3)}, tmp_path / "b.pth")
        with pytest.raises(UnreadableFileError, match="holds no named tensors but 1 NumPy arrays"):
            read_weights(tmp_path / "b.pth")
        report = load_weights(resnet(), state | {"conv1.weight": state["conv1.weight"].to_sparse()})
        assert any("1 sparse tensors left out, such as conv1.weight" in note for note in report.notes)
        assert not [reason for reason in report.dropped.values() if "stem" in reason]
        assert "encoder.conv1.weight" in report.missing

    def test_the_noisy_half_of_a_super_resolution_stem_is_taken(self):
        source = create("ddpm_sr3_64", in_channels=6, out_channels=3, seed=1, **SR3)
        for bands in (3, 5):
            network = create("ddpm_sr3_64", in_channels=bands, seed=2, **SR3)
            report = load_weights(network, official_state_dict(source))
            assert any("the half for the noisy image is taken" in note for note in report.notes)
            theirs = source.encoder[0].convolution.weight[:, 3:]
            expected = theirs if bands == 3 else theirs[:, [0, 1, 2, 0, 1]] * (3 / 5)
            torch.testing.assert_close(network.encoder[0].convolution.weight, expected)


class TestWords:
    def test_a_word_that_names_nothing_is_told_whatever_the_layout(self, tmp_path):
        swin = create("upernet_swin_t", num_classes=2, width=12, depths=(1, 1, 1, 1), heads=(1, 2, 4, 4), decoder_channels=8, seed=0)
        save_network(vit(), tmp_path)

        class Around(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder = timm.create_model("test_convnext")

        cases = [
            (swin, {"model": official_state_dict(swin)}),
            (vit(), tmp_path),
            (vit(), vit().state_dict()),
            (Around(), {"model": timm.create_model("test_convnext").state_dict()}),
        ]
        for network, source in cases:
            with pytest.raises(UsageError, match="take='model_ema'"):
                load_weights(network, source, take="model_ema")

    def test_unknown_wrappings_are_suggested_and_can_be_taken(self):
        file = {"epoch": torch.tensor(3), "my_weights": official_state_dict(vit(seed=1))}
        with pytest.raises(UnreadableFileError, match="take='my_weights'"):
            load_weights(vit(), file)
        with pytest.raises(UnreadableFileError, match="take='my_weights'"):
            load_weights(vit(), {"epoch": 3, "my_weights": file["my_weights"]})
        assert load_weights(vit(), file, take="my_weights").verdict == "complete"

    def test_all_alternatives_are_noted(self):
        found = read_weights({name: {"w": torch.zeros(1)} for name in ("model", "ema", "teacher")})
        assert found.notes == ["inside model (take='teacher' or 'ema' takes that instead)"]


class TestRawErrors:
    def test_keys_without_bias_are_zeros(self):
        """As BEiT's of Hugging Face."""
        state = {"embeddings.patch_embeddings.projection.weight": torch.zeros(24, 3, 16, 16)}
        for index in range(4):
            layer = f"encoder.layer.{index}.attention.attention."
            state |= {f"{layer}{part}.weight": torch.ones(24, 24) for part in ("query", "key", "value")}
            state |= {f"{layer}{part}.bias": torch.ones(24) for part in ("query", "value")}
        network = vit()
        load_weights(network, {f"beit.{name}": value for name, value in state.items()})
        bias = network.encoder.blocks[1].attention.qkv.bias
        assert torch.equal(bias, torch.cat([torch.ones(24), torch.zeros(24), torch.ones(24)]))

    def test_a_tag_that_timm_does_not_have(self):
        with pytest.raises(UsageError, match="timm publishes no weights of that name"):
            fetch("timm:resnet50.no_such_tag")

    def test_a_name_too_long_for_a_file(self):
        for name in ("x" * 5000, "a\0b"):
            with pytest.raises(MissingFileError) as refused:
                read_weights(name)
            assert len(str(refused.value)) < 600

    def test_methods_laid_over_a_tensor_are_not_called(self, tmp_path):
        weight = nn.Parameter(torch.ones(2))
        weight.__dict__["detach"] = "shadow"
        torch.save({"w": weight}, tmp_path / "a.pth")
        assert torch.equal(read_weights(tmp_path / "a.pth").tensors["w"], torch.ones(2))

    def test_what_nobody_thought_of_is_one_line(self, monkeypatch):
        def broken(*_):
            raise KeyError("odd")

        monkeypatch.setattr("tilth.models.weights.load.fit", broken)
        with pytest.raises(UnreadableFileError, match=r"the state dict given: damaged, .* \(KeyError: 'odd'\)"):
            load_weights(vit(), official_state_dict(vit()))
        monkeypatch.undo()
        official = official_state_dict(vit())
        odd = Layout("odd", "odd", lambda _: True, lambda _: True, broken)
        monkeypatch.setattr("tilth.models.weights.load.all_layouts", lambda: (odd,))
        with pytest.raises(UnreadableFileError, match="KeyError: 'odd'"):
            load_weights(vit(), official)


class TestNetworks:
    def test_a_network_without_memory_is_refused(self):
        with torch.device("meta"):
            network = vit()
        with pytest.raises(UsageError, match="meta device"):
            load_weights(network, official_state_dict(vit()))

    def test_compiled_and_wrapped_networks_are_filled(self):
        class Parallel(nn.Module):
            def __init__(self, module):
                super().__init__()
                self.module = module

        class Compiled(nn.Module):
            """Holds the network as what torch.compile gives does, which takes seconds to make."""

            def __init__(self, module):
                super().__init__()
                self._orig_mod = module

        official = official_state_dict(vit(seed=1))
        for wrap in (Compiled, Parallel, lambda network: Parallel(Compiled(network))):
            network = vit()
            wrapped = wrap(network)
            assert load_weights(wrapped, official).verdict == "complete"
            assert torch.equal(network.encoder.blocks[0].norm1.weight, official["encoder.layers.0.ln1.weight"])
            assert list(official_state_dict(wrapped)) == list(official)

    def test_a_share_is_never_rounded_up_to_all(self):
        report = LoadReport("x", "X", matched=["a"], missing=["b"], matched_parameters=9999, parameters=10000)
        assert report.verdict == "partial, 99 % of the parameters"

    def test_an_encoder_folder_fits_another_image_size_or_changes_nothing(self, tmp_path):
        def model(seed, image_size, **options):
            scheme = ClassScheme(name="one", classes=(LandClass(name="land", colour=(9, 9, 9)),))
            config = NetworkConfig(name="upernet_vit_b", image_size=image_size, options=TINY | options)
            return build_segmenter(config, get_sensor("rgb"), scheme, seed)

        first = model(1, 64)
        save_encoder(first, tmp_path)
        larger = model(2, 96)
        load_encoder(tmp_path).fill(larger)
        assert torch.equal(larger.network.encoder.blocks[0].norm1.weight, first.network.encoder.blocks[0].norm1.weight)
        other = model(3, 64, width=48)
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(UnreadableFileError, match="the weights of the encoder"):
            load_encoder(tmp_path).fill(other)
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


class TestBombs:
    def test_compressed_parts_that_grow_beyond_measure_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tilth.models.weights.bombs._INFLATED", 1 << 20)
        with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", b"\x80\x02}q\x00.")
            archive.writestr("a/data/0", bytes(4 << 20))
        with pytest.raises(UnreadableFileError, match="compressed parts would grow to 4,194,"):
            read_weights(tmp_path / "a.pth")

    @pytest.mark.parametrize("new", [True, False])
    def test_a_pickle_that_asks_for_a_block_of_zeros_is_refused_unread(self, tmp_path, monkeypatch, new):
        class Block:
            def __reduce__(self):
                return bytearray, (1 << 40,)

        torch.save({"model": {"w": torch.ones(1)}, "x": Block()}, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was read"))
        with pytest.raises(UnreadableFileError, match="a block of up to 1,099,511,627,776 bytes"):
            read_weights(tmp_path / "a.pth")

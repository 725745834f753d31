"""Bands, positions and classes of a file are brought to those of the network by stated rules; anything else is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from support.official_s5 import FINETUNE, FIXTURES, arrays, normal
from tilth.errors import UnreadableFileError
from tilth.models import create
from tilth.models.vision_transformers.relative import resize_offsets
from tilth.models.weights.fit import fit, fit_bands, resize_window_bias, square_grid, stem_names

TINY = {"width": 24, "depth": 4, "heads": 2, "decoder_channels": 8}


def vit(**options):
    return create("upernet_vit_b", seed=0, **{"num_classes": 3, "image_size": 64, **TINY, **options})


class TestBands:
    def test_three_to_five_repeats_in_turn_and_scales(self):
        weight = torch.randn(4, 3, 2, 2)
        fitted, action = fit_bands(weight, 5)
        torch.testing.assert_close(fitted, weight[:, [0, 1, 2, 0, 1]] * 3 / 5)
        assert action == "3 bands to 5: repeated in turn, times 3/5"

    def test_thirteen_to_three_takes_the_first(self):
        weight = torch.randn(4, 13, 2, 2)
        fitted, action = fit_bands(weight, 3)
        torch.testing.assert_close(fitted, weight[:, :3] * 13 / 3)
        assert action == "13 bands to 3: the first 3, times 13/3"

    def test_one_band_takes_the_sum(self):
        weight = torch.randn(4, 3, 2, 2)
        torch.testing.assert_close(fit_bands(weight, 1)[0], weight.sum(1, keepdim=True))

    @pytest.mark.parametrize("bands", [1, 2, 4, 6, 13])
    def test_equal_bands_are_answered_alike_where_the_weights_are_alike(self, bands):
        """An image that is the same in every band gives the same features, if the file's bands weigh the same."""
        weight = torch.randn(4, 1, 3, 3).expand(-1, 3, -1, -1)
        image = torch.randn(1, 1, 9, 9)
        old = nn.functional.conv2d(image.expand(-1, 3, -1, -1), weight)
        new = nn.functional.conv2d(image.expand(-1, bands, -1, -1), fit_bands(weight, bands)[0])
        torch.testing.assert_close(new, old)

    @pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
    def test_timm_adapts_three_bands_in_the_same_way(self, bands):
        from timm.models import adapt_input_conv

        weight = torch.randn(4, 3, 3, 3)
        torch.testing.assert_close(fit_bands(weight, bands)[0], adapt_input_conv(bands, weight.clone()))

    def test_stems_of_every_kind_of_network_are_found(self):
        assert stem_names(vit()) == {"encoder.patch_embedding.weight"}
        with torch.device("meta"):
            assert stem_names(create("cromss_mid2_resnet50")) == {"encoder.s1.conv1.weight", "encoder.s2.conv1.weight"}
            assert stem_names(create("cromss_late2_resnet50")) == {
                "encoder.s1.conv1.weight",
                "encoder.s2.conv1.weight",
            }
            assert stem_names(create("deeplabv3plus_resnet101")) == {"encoder.body.conv1.0.weight"}
        assert stem_names(nn.Sequential(nn.Conv2d(3, 2, 1))) == {"0.weight"}


class TestPositions:
    def test_a_file_of_14_x_14_gives_what_the_official_loader_gives(self):
        """s5_pretrain.md section 6: 1e-5."""
        expected = arrays(FIXTURES / "s5" / "pos_embed.npz")
        table = normal("ckpt:pos_embed", (1, 197, 768))
        for image_size, name, rows, columns in ((160, "pos_embed_14_to_10", 1, 16), (512, "pos_embed_14_to_32", 3, 24)):
            network = vit(image_size=image_size, width=768, heads=12, depth=4)
            fitted = fit({"encoder.position_embedding": table}, network, "file")
            found = fitted.tensors["encoder.position_embedding"][0].numpy()[::rows, ::columns]
            np.testing.assert_allclose(found, expected[name].reshape(found.shape), atol=1e-5)
            side = image_size // 16
            action = f"14 x 14 to {side} x {side} positions, bicubic; position of the class token cut off"
            assert fitted.resized == {"encoder.position_embedding": action}

    def test_the_finetuning_program_resizes_alike(self):
        """s5_finetune.md section 3.4: 1e-5."""
        found = arrays(FINETUNE / "pos_embed_resize.npz")
        network = nn.Module()
        network.grid = (6, 6)
        network.position_embedding = nn.Parameter(torch.zeros(1, 36, 5))
        table = torch.from_numpy(found["input"])
        fitted = fit({"position_embedding": table}, network, "file").tensors["position_embedding"]
        np.testing.assert_allclose(fitted.numpy(), found["output"], atol=1e-5)

    def test_a_class_slot_is_cut_off_where_the_grid_is_the_same(self):
        network = vit()
        table = torch.randn(1, 17, 24)
        fitted = fit({"encoder.position_embedding": table}, network, "file")
        assert torch.equal(fitted.tensors["encoder.position_embedding"], table[:, 1:])
        assert fitted.resized == {"encoder.position_embedding": "position of the class token cut off"}

    def test_timm_tables_keep_or_get_their_class_slot(self):
        import timm

        target = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1)
        table = torch.randn(1, 197, 192)
        fitted = fit({"pos_embed": table}, target, "file").tensors["pos_embed"]
        assert fitted.shape == (1, 17, 192)
        assert torch.equal(fitted[:, 0], table[:, 0])
        without = fit({"pos_embed": table[:, 1:]}, target, "file")
        assert torch.equal(without.tensors["pos_embed"][:, 1:], fitted[:, 1:])
        assert (without.tensors["pos_embed"][:, 0] == 0).all()
        assert "so zero" in without.resized["pos_embed"]

    def test_constant_tables_stay_constant(self):
        network = vit(image_size=48)
        fitted = fit({"encoder.position_embedding": torch.full((1, 49, 24), 3.0)}, network, "file")
        torch.testing.assert_close(fitted.tensors["encoder.position_embedding"], torch.full((1, 9, 24), 3.0))

    def test_a_table_that_is_no_grid_is_refused(self):
        with pytest.raises(UnreadableFileError, match=r"encoder\.position_embedding 1 x 23 x 24, here 1 x 16 x 24"):
            fit({"encoder.position_embedding": torch.zeros(1, 23, 24)}, vit(), "file")

    def test_square_grids(self):
        assert [square_grid(count) for count in (1, 4, 5, 49, 50, 51, 0)] == [(1, 1), (2, 2), (2, 2), (7, 7), (7, 7), None, None]


class TestRelativeTables:
    def test_offsets_are_resized_along_their_length_alone(self):
        table = torch.randn(9, 4)
        resized = resize_offsets(table, 17)
        assert resized.shape == (17, 4)
        column = nn.functional.interpolate(table[:, 2].reshape(1, 1, 9, 1), (17, 1), mode="bicubic", align_corners=False)
        torch.testing.assert_close(resized[:, 2], column.flatten())
        assert torch.equal(resize_offsets(table, 9), table)

    def test_a_window_table_keeps_its_axes(self):
        """A table that depends on the row alone does so after resizing, and the other way round."""
        rows = torch.arange(13.0)[:, None].expand(13, 13).reshape(169, 1)
        resized = resize_window_bias(torch.cat([rows, rows.reshape(13, 13).t().reshape(169, 1)], 1), 7).reshape(7, 7, 2)
        torch.testing.assert_close(resized[:, :1, 0].expand(7, 7), resized[..., 0])
        torch.testing.assert_close(resized[:1, :, 1].expand(7, 7), resized[..., 1])
        assert (resized[1:, 0, 0] > resized[:-1, 0, 0]).all()

    def test_tables_of_rotated_windows_are_fitted_to_another_image_size(self):
        options = {"num_classes": 2, "width": 24, "depth": 3, "heads": 2, "seed": 0}
        small, large = (create("upernet_vit_b_rvsa", image_size=side, **options) for side in (112, 160))
        state = small.state_dict()
        fitted = fit(state, large, "file")
        name = next(name for name in fitted.resized if name.endswith("relative_rows"))
        assert fitted.resized[name] == "13 to 19 offsets, bicubic"
        assert {name: tensor.shape for name, tensor in fitted.tensors.items()} == {n: t.shape for n, t in large.state_dict().items()}

    def test_swin_tables_are_fitted_to_another_window(self):
        options = {"num_classes": 2, "width": 12, "depths": (1, 1, 1, 1), "heads": (1, 2, 4, 4), "decoder_channels": 8, "seed": 0}
        fitted = fit(create("upernet_swin_t", window=7, **options).state_dict(), create("upernet_swin_t", window=4, **options), "file")
        assert set(fitted.resized.values()) == {"13 x 13 to 7 x 7 offsets, bicubic"}


class TestOthers:
    def test_class_layers_of_other_classes_are_dropped_with_the_reason(self):
        fitted = fit(vit(num_classes=5).state_dict(), vit(), "file")
        assert set(fitted.dropped) == {"segmentation_head.convolution.weight", "segmentation_head.convolution.bias"}
        assert fitted.dropped["segmentation_head.convolution.bias"] == "class layer of 5 classes, here 3"

    def test_another_width_is_one_line_with_names_and_shapes(self):
        with pytest.raises(UnreadableFileError) as refused:
            fit(vit(width=48, heads=4).state_dict(), vit(), "old.pth")
        message = str(refused.value)
        assert message.startswith("old.pth: ")
        assert "encoder.unused_class_token 1 x 1 x 48, here 1 x 1 x 24" in message
        assert " more; build the network with the width, depth and patch of the file" in message
        assert "\n" not in message
        assert len(message) < 900

    def test_another_patch_is_no_matter_of_bands(self):
        weight = torch.zeros(24, 3, 14, 14)
        with pytest.raises(UnreadableFileError, match="24 x 3 x 14 x 14, here 24 x 3 x 16 x 16"):
            fit({"encoder.patch_embedding.weight": weight}, vit(), "file")

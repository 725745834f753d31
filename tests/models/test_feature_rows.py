"""Maps as rows of bytes: what comes back, how large a row is, and what is refused."""

from __future__ import annotations

import pytest
import torch

from tilth.errors import DataError
from tilth.models.diffusion.feature_rows import BLOCK, KeptMap, RowLayout
from tilth.models.diffusion.segmentation import ddpm_segmentor

SHAPES = [(6, 32, 32), (4, 16, 16), (3, 20, 20), (5, 1, 1)]
"""Four blocks a channel, one, one and a part, and a part."""


@pytest.fixture
def maps():
    draw = torch.Generator().manual_seed(0)
    # Channels of other sizes, as networks have them, and one of nothing.
    found = [torch.randn(shape, generator=draw) * 10 ** torch.randn(shape[0], 1, 1, generator=draw) for shape in SHAPES]
    found[0][2] = 0
    return found


def layout_of(dtype, side=33):
    return RowLayout(tuple(KeptMap(*shape, 1) for shape in SHAPES), dtype, side)


def labels(side):
    mask = torch.randint(0, 7, (side, side), generator=torch.Generator().manual_seed(1))
    mask[3:9] = 255
    return mask, mask != 3


def round_trip(layout, maps, *, batch=2):
    mask, valid = labels(layout.side)
    row = layout.pack(maps, mask, valid)
    assert row.shape == (layout.row_bytes,)
    found = layout.unpack(torch.from_numpy(row).expand(batch, -1).contiguous())
    for place in range(batch):
        assert torch.equal(found.mask[place], mask)
        assert torch.equal(found.valid[place], valid)
    return found.maps, row


def test_fp16_comes_back_rounded_to_16_bits(maps):
    found, _ = round_trip(layout_of("fp16"), maps)
    for one, other in zip(found, maps, strict=True):
        assert one.dtype == torch.float32
        assert all(torch.equal(copy, other.half().float()) for copy in one)


def test_int8_is_within_half_a_step_of_each_block(maps):
    found, _ = round_trip(layout_of("int8"), maps)
    for one, other in zip(found, maps, strict=True):
        for channel, values in zip(one[1].flatten(1), other.flatten(1), strict=True):
            for got, wanted in zip(channel.split(BLOCK), values.split(BLOCK), strict=True):
                step = float(wanted.abs().max()) / 127
                # The scale itself has 16 bits: 127 steps are off by up to 127 / 2048 of one.
                assert float((got - wanted).abs().max()) <= step * (0.5 + 127 / 2048) + 1e-7


def test_int8_of_bell_shaped_values_is_off_by_less_than_a_hundredth(maps):
    found, _ = round_trip(layout_of("int8"), maps)
    for one, other in zip(found[:3], maps[:3], strict=True):
        assert float((one[0] - other).square().mean().sqrt() / other.square().mean().sqrt()) < 0.01


def test_rows_that_were_cut_or_changed_are_found_out(maps):
    layout = layout_of("int8")
    _, row = round_trip(layout, maps)
    assert layout.whole(row)
    assert layout.readable(row)
    assert not layout.whole(row[:-1])
    row[100] ^= 1
    assert not layout.whole(row)


def test_a_tile_that_cannot_be_read_has_a_row_without_labels():
    layout = layout_of("fp16")
    row = layout.unreadable()
    assert layout.whole(row)
    assert not layout.readable(row)
    found = layout.unpack(torch.from_numpy(row)[None])
    assert bool((found.mask == 255).all())
    assert not bool(found.valid.any())


def test_values_that_do_not_fit_are_refused(maps):
    mask, valid = labels(33)
    maps[1][0, 0, 0] = 7e4
    with pytest.raises(DataError, match="cache_dtype=int8"):
        layout_of("fp16").pack(maps, mask, valid)
    assert float(round_trip(layout_of("int8"), maps)[0][1].max()) == pytest.approx(7e4, rel=1e-2)
    maps[1][0, 0, 0] = 9e6  # as a scale of 127 steps no number of 16 bits
    with pytest.raises(DataError, match="cache=online"):
        layout_of("int8").pack(maps, mask, valid)
    maps[1][0, 0, 0] = float("nan")
    for dtype in ("fp16", "int8"):
        with pytest.raises(DataError, match="not finite"):
            layout_of(dtype).pack(maps, mask, valid)


def network(**options):
    with torch.device("meta"):
        return ddpm_segmentor(in_channels=3, num_classes=12, image_size=256, **options)


@pytest.mark.parametrize(("unet", "values"), [("ddpm_sr3_64", 11_403_264), ("ddpm_sr3_128", 22_806_528)])
def test_a_tile_of_256_pixels_takes_a_byte_a_value_and_at_most_22_mib_with_the_wide_network(unet, values):
    tile = network(unet=unet)
    layout = RowLayout.of(tile, 256, "int8")
    assert sum(item.values for item in layout.maps) == values
    assert layout.row_bytes <= values + values // 128 + 256 * 256 * 9 // 8 + 16
    assert layout.row_bytes <= 22 * 2**20
    assert RowLayout.of(tile, 256, "fp16").row_bytes == 2 * values + 256 * 256 * 9 // 8 + 8


def test_a_map_that_the_head_averages_is_kept_averaged_and_the_head_says_the_same():
    options = {"unet_options": {"width": 8, "norm_groups": 4, "res_blocks": 1}, "times": [50, 100]}
    torch.manual_seed(0)
    pooled = ddpm_segmentor(in_channels=3, num_classes=3, image_size=64, pool_before=True, **options).eval()
    kept = RowLayout.of(pooled, 64, "fp16")
    with torch.device("meta"):
        plain = ddpm_segmentor(in_channels=3, num_classes=3, image_size=64, **options)
    saved = RowLayout.of(plain, 64, "fp16").row_bytes - kept.row_bytes
    assert saved == 2 * 3 * sum(item.values for item in kept.maps if item.enlarge > 1) > 0
    with torch.no_grad():
        maps = pooled.encoder(torch.randn(1, 3, 64, 64))
        mask, valid = labels(64)
        found = kept.unpack(torch.from_numpy(kept.pack([level[0] for level in maps], mask, valid))[None]).maps
        averaged = torch.nn.functional.avg_pool2d(maps[0], 2)
        assert float((torch.nn.functional.avg_pool2d(found[0], 2) - averaged).abs().max()) <= float(averaged.abs().max()) / 2048
        assert float((pooled.decode(found) - pooled.decode(maps)).abs().max()) < 0.01

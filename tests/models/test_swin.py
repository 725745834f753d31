"""Swin with UperNet computes what S5's computes, and reads and writes its files (oracles: published modules; loops over tokens)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from support.s5_parity import check_checkpointing, check_files, check_manifest, compare, published
from tilth.errors import ConfigError
from tilth.models import create
from tilth.models.network import SegmentationNetwork
from tilth.models.swin import PatchMerging, SwinBlock
from tilth.models.vision_transformers.windows import join_windows, shifted_mask, split_windows, up_to_multiple
from tilth.models.weights.layouts.s5_swin import LAYOUTS

(LAYOUT,) = LAYOUTS
TINY = {"width": 8, "depths": [2, 2], "heads": [1, 2], "window": 3, "decoder_channels": 8}


def tiny(seed: int = 1, **options: object) -> nn.Module:
    return create("upernet_swin_t", num_classes=3, seed=seed, **(TINY | options))


def filled(**options: object) -> nn.Module:
    """A tiny network whose every bias matters."""
    network = tiny(**options)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("relative_bias", "qkv.bias")):
                parameter.normal_(std=0.5)
    return network.eval()


@pytest.fixture(scope="module")
def swin_t() -> SegmentationNetwork:
    return published("upernet_swin_t", LAYOUT)


def test_swin_t_computes_every_stage_as_published(swin_t: SegmentationNetwork) -> None:
    compare(swin_t, "swin_t_128_c16")


def test_swin_t_uses_the_published_epsilon_of_norms_which_a_dim_image_shows(swin_t: SegmentationNetwork) -> None:
    compare(swin_t, "swin_t_128_c16_dim")


def test_names_shapes_and_counts_are_published_ones() -> None:
    with torch.device("meta"):
        network = create("upernet_swin_t")
    check_manifest(network, LAYOUT, "upernet_swin_t")


def test_files_make_another_network_the_same() -> None:
    check_files(filled(), tiny(seed=4), LAYOUT, "encoder.")


def test_explicit_attention_gives_the_same() -> None:
    network, other = filled().double(), filled(attention="explicit").double()
    image = torch.randn(2, 3, 52, 76, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), other(image), rtol=1e-9, atol=1e-10)


def test_checkpointing_gives_the_same_gradients_and_all_parameters_get_one() -> None:
    check_checkpointing(filled(), filled(), torch.randn(2, 3, 44, 60))


@pytest.mark.parametrize("size", [(64, 64), (4, 9), (33, 70), (61, 130), (100, 20)])
def test_images_of_any_size_give_logits_of_that_size(size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = filled()(torch.randn(1, 3, *size))
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


Array = NDArray[np.float64]


def loop(block: SwinBlock, normed: Array, window: int, shift: int) -> Array:
    """Attend query by query on one padded map; windows and neighbourhoods are found from the places that tokens roll to."""
    weights = {name: parameter.detach().numpy() for name, parameter in block.attention.named_parameters()}
    heads, width = block.attention.heads, normed.shape[2]
    depth = width // heads
    rows, columns = normed.shape[:2]
    height, breadth = up_to_multiple(rows, window), up_to_multiple(columns, window)
    padded = np.zeros((height, breadth, width))
    padded[:rows, :columns] = normed
    qkv = (padded @ weights["qkv.weight"].T + weights["qkv.bias"]).reshape(height, breadth, 3, heads, depth)
    everywhere = [(row, column) for row in range(height) for column in range(breadth)]
    rolled = {(row, column): ((row - shift) % height, (column - shift) % breadth) for row, column in everywhere}

    def before_the_roll(place: tuple[int, int]) -> tuple[bool, bool]:
        """Tokens of the first rows or columns roll to the other end; in its last windows they are strangers."""
        return place[0] < shift, place[1] < shift

    mixed = np.zeros((rows, columns, heads, depth))
    for row in range(rows):
        for column in range(columns):
            own = rolled[row, column]
            mates = [place for place in everywhere if all(rolled[place][axis] // window == own[axis] // window for axis in (0, 1))]
            for head in range(heads):
                logits = np.zeros(len(mates))
                for number, mate in enumerate(mates):
                    down, along = (own[axis] - rolled[mate][axis] + window - 1 for axis in (0, 1))
                    logits[number] = qkv[row, column, 0, head] @ qkv[*mate, 1, head] / math.sqrt(depth)
                    logits[number] += weights["relative_bias"][down * (2 * window - 1) + along, head]
                    logits[number] -= 100 * (before_the_roll(mate) != before_the_roll((row, column)))
                powers = np.exp(logits - logits.max())
                mixed[row, column, head] = powers / powers.sum() @ np.stack([qkv[*mate, 2, head] for mate in mates])
    return np.asarray(mixed.reshape(rows, columns, width) @ weights["projection.weight"].T + weights["projection.bias"])


@pytest.mark.parametrize("kind", ["sdpa", "explicit"])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (4, 7), (2, 2), (1, 8), (3, 3)])
def test_windows_attend_as_the_loop_does_even_where_one_covers_the_map(rows: int, columns: int, shift: int, kind: Any) -> None:
    block = SwinBlock(8, 2, 3, shift=shift, ratio=2, drop_path=0, attention=kind).double()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.4)
        maps = torch.randn(1, rows, columns, 8, dtype=torch.float64)
        mask = shifted_mask(up_to_multiple(rows, 3), up_to_multiple(columns, 3), 3, 1, like=maps)
        normed = block.norm1(maps)
        added = torch.from_numpy(loop(block, normed[0].numpy(), 3, shift))[None]
        expected = maps + added
        expected = expected + block.feed_forward(block.norm2(expected))
        torch.testing.assert_close(block(maps, mask), expected, rtol=1e-9, atol=1e-11)


def test_merging_takes_neighbours_down_before_right_and_continues_odd_sides_with_zeros() -> None:
    merging = PatchMerging(1)
    with torch.no_grad():
        merging.reduction.weight.copy_(torch.eye(4)[:2])
        maps = torch.arange(1.0, 10).reshape(1, 3, 3, 1)
        neighbours = torch.tensor([[[1, 4, 2, 5], [3, 6, 0, 0]], [[7, 0, 8, 0], [9, 0, 0, 0]]], dtype=torch.float32)
        expected = torch.nn.functional.layer_norm(neighbours, (4,))[..., :2]
        torch.testing.assert_close(merging(maps)[0], expected)


def test_windows_are_cut_and_joined_row_by_row() -> None:
    maps = torch.arange(2 * 4 * 6 * 1).reshape(2, 4, 6, 1)
    windows = split_windows(maps, 2)
    assert windows.shape == (2, 6, 4, 1)
    assert windows[0, 1, :, 0].tolist() == [2, 3, 8, 9]
    assert torch.equal(join_windows(windows, 2, 4, 6), maps)


def test_both_branches_can_be_dropped() -> None:
    block = SwinBlock(8, 2, 3, shift=1, ratio=2, drop_path=1 - 1e-9)
    maps = torch.randn(2, 3, 3, 8)
    mask = shifted_mask(3, 3, 3, 1, like=maps)
    assert torch.equal(block(maps, mask), maps)
    assert not torch.equal(block.eval()(maps, mask), maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": [1]}, "2 depths but 1 numbers of heads"), ({"heads": [3, 6]}, "8 channels cannot be divided among 3 heads")],
)
def test_options_that_make_no_sense_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)

"""Rotated windows against loops over windows, heads and tokens, written from s5_pretrain.md section 7.2 (oracle: brute force)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tilth.models import create
from tilth.models.vision_transformers.relative import decomposed_bias
from tilth.models.vision_transformers.rvsa import RelativeAttention, RotatedWindowAttention
from tilth.models.vision_transformers.samples import window_samples

Array = NDArray[np.float64]
GRIDS = [(4, 4), (5, 9), (9, 5), (2, 7), (3, 10), (1, 1), (6, 3)]
WINDOW, HEADS, WIDTH = 3, 2, 8


def filled(attention: torch.nn.Module) -> dict[str, Array]:
    """Give all parameters values that matter; return them."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.4)
    return {name: parameter.detach().numpy() for name, parameter in attention.named_parameters()}


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def sample(source: Array, x: float, y: float) -> Array:
    """Bilinear value of a map (H, W, d) at pixel coordinates; zero outside."""
    left, top = math.floor(x), math.floor(y)
    total = np.zeros(source.shape[2])
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < source.shape[0] and 0 <= column < source.shape[1]:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * source[row, column]
    return total


def loop(weights: dict[str, Array], tokens: Array, rows: int, columns: int, window: int) -> Array:
    """Attend window by window, head by head, query by query."""
    width = tokens.shape[1]
    depth = width // HEADS
    below, right = -rows % window, -columns % window
    top, left = below // 2, right // 2
    height, breadth = rows + below, columns + right
    normed = np.zeros((height, breadth, width))
    qkv = np.zeros((height, breadth, 3, HEADS, depth))
    for row in range(rows):
        for column in range(columns):
            token = tokens[row * columns + column]
            normed[top + row, left + column] = token
            qkv[top + row, left + column] = (weights["qkv.weight"] @ token + weights["qkv.bias"]).reshape(3, HEADS, depth)
    mixed = np.zeros((height, breadth, HEADS, depth))
    for first_row in range(0, height, window):
        for first_column in range(0, breadth, window):
            mean = normed[first_row : first_row + window, first_column : first_column + window].reshape(-1, width).mean(0)
            mean = np.where(mean > 0, mean, 0.01 * mean)
            told = {
                part: weights[f"{part}.weight"][:, :, 0, 0] @ mean + weights[f"{part}.bias"] for part in ("offsets", "scales", "angles")
            }
            for head in range(HEADS):
                offset_x, offset_y = told["offsets"][2 * head : 2 * head + 2]
                scale_x, scale_y = told["scales"][2 * head : 2 * head + 2]
                angle = told["angles"][head]
                keys, values, places = [], [], []
                for i in range(window):
                    for j in range(window):
                        u = 2 * (j - (window - 1) / 2) / (breadth - 1) * (1 + scale_x)
                        v = 2 * (i - (window - 1) / 2) / (height - 1) * (1 + scale_y)
                        x = -1 + 2 * (first_column + (window - 1) / 2) / (breadth - 1) + u * math.cos(angle) - v * math.sin(angle)
                        y = -1 + 2 * (first_row + (window - 1) / 2) / (height - 1) + u * math.sin(angle) + v * math.cos(angle)
                        x += offset_x / max(1, columns // window)
                        y += offset_y / max(1, rows // window)
                        at = ((x + 1) / 2 * (breadth - 1), (y + 1) / 2 * (height - 1))
                        keys.append(sample(qkv[:, :, 1, head], *at))
                        values.append(sample(qkv[:, :, 2, head], *at))
                        places.append((i, j))
                for i, j in places:
                    query = qkv[first_row + i, first_column + j, 0, head]
                    logits = np.zeros(len(places))
                    for number, (other_i, other_j) in enumerate(places):
                        down, along = i - other_i + window - 1, j - other_j + window - 1
                        logits[number] = query @ keys[number] / math.sqrt(depth)
                        logits[number] += query @ weights["window_relative_rows"][down] + query @ weights["window_relative_columns"][along]
                        logits[number] += weights["relative_bias"][down * (2 * window - 1) + along, head]
                    mixed[first_row + i, first_column + j, head] = softmax(logits) @ np.stack(values)
    kept = mixed[top : top + rows, left : left + columns].reshape(rows * columns, width)
    return np.asarray(kept @ weights["projection.weight"].T + weights["projection.bias"])


@pytest.mark.parametrize("kind", ["sdpa", "explicit"])
@pytest.mark.parametrize(("rows", "columns"), GRIDS)
def test_windows_sample_and_attend_as_the_loop_does(rows: int, columns: int, kind: Any) -> None:
    attention = RotatedWindowAttention(WIDTH, HEADS, WINDOW, kind).double()
    weights = filled(attention)
    tokens = torch.randn(2, rows * columns, WIDTH, dtype=torch.float64)
    found = attention(tokens, (rows, columns)).detach().numpy()
    for image in range(2):
        np.testing.assert_allclose(found[image], loop(weights, tokens[image].numpy(), rows, columns, WINDOW), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["sdpa", "explicit"])
@pytest.mark.parametrize("grid", [(4, 3), (2, 5), (7, 7)])
def test_full_attention_adds_relative_positions_of_the_scaled_query(grid: tuple[int, int], kind: Any) -> None:
    made_for = (4, 5)
    attention = RelativeAttention(WIDTH, HEADS, made_for, kind).double()
    weights = filled(attention)
    rows, columns = grid
    depth = WIDTH // HEADS
    tokens = torch.randn(1, rows * columns, WIDTH, dtype=torch.float64)
    row_table = stretch(weights["relative_rows"], 2 * rows - 1)
    column_table = stretch(weights["relative_columns"], 2 * columns - 1)
    qkv = (tokens[0].numpy() @ weights["qkv.weight"].T + weights["qkv.bias"]).reshape(-1, 3, HEADS, depth)
    mixed = np.zeros((rows * columns, HEADS, depth))
    for head in range(HEADS):
        for number in range(rows * columns):
            query = qkv[number, 0, head] / math.sqrt(depth)
            logits = np.zeros(rows * columns)
            for other in range(rows * columns):
                down = number // columns - other // columns + rows - 1
                along = number % columns - other % columns + columns - 1
                logits[other] = query @ (qkv[other, 1, head] + row_table[down] + column_table[along])
            mixed[number, head] = softmax(logits) @ qkv[:, 2, head]
    expected = mixed.reshape(-1, WIDTH) @ weights["projection.weight"].T + weights["projection.bias"]
    np.testing.assert_allclose(attention(tokens, grid)[0].detach().numpy(), expected, rtol=1e-9, atol=1e-11)


def stretch(table: Array, length: int) -> Array:
    """Cubic convolution (a = -3/4) between the centres of entries; the ends go on."""
    if length == len(table):
        return table
    found = np.zeros((length, table.shape[1]))
    for index, place in enumerate((np.arange(length) + 0.5) * len(table) / length - 0.5):
        for entry in range(math.floor(place) - 1, math.floor(place) + 3):
            distance = abs(place - entry)
            near = 1.25 * distance**3 - 2.25 * distance**2 + 1
            far = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
            found[index] += (near if distance <= 1 else far) * table[min(max(entry, 0), len(table) - 1)]
    return found


def test_tables_of_the_right_length_are_taken_as_they_are() -> None:
    query = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 6, 4)
    rows, columns = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    bias = decomposed_bias(query, rows, columns, (2, 3))
    # First token to last: one row up, two columns left, both before the zero in the middle of the tables.
    assert torch.equal(bias[:, 0, 5], rows[0] + columns[0])
    assert torch.equal(bias[:, 5, 0], rows[2] + columns[4])
    assert torch.equal(bias[:, 2, 2], rows[1] + columns[2])


def test_windows_that_stay_sample_their_own_tokens() -> None:
    zero = torch.zeros(1, 2, 2, 2, 3)
    places = window_samples(zero, zero, torch.zeros(1, 2, 2, 3), (6, 9), 3)
    assert places.shape == (1, 2, 6, 9, 2)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 9), indexing="ij")
    torch.testing.assert_close(places, torch.stack([x, y], -1).expand_as(places))


def test_an_offset_is_divided_by_the_windows_along_its_own_axis() -> None:
    """For images that are not square; the published program exchanges the axes there."""
    zero, offsets = torch.zeros(1, 1, 2, 2, 4), torch.ones(1, 1, 2, 2, 4)
    moved = window_samples(offsets, zero, torch.zeros(1, 1, 2, 4), (6, 12), 3) - window_samples(
        zero, zero, torch.zeros(1, 1, 2, 4), (6, 12), 3
    )
    torch.testing.assert_close(moved[..., 0], torch.full((1, 1, 6, 12), 1 / 4))
    torch.testing.assert_close(moved[..., 1], torch.full((1, 1, 6, 12), 1 / 2))


def test_the_published_division_of_offsets_can_be_chosen() -> None:
    zero, offsets = torch.zeros(1, 1, 2, 2, 4), torch.ones(1, 1, 2, 2, 4)
    angles = torch.zeros(1, 1, 2, 4)
    moved = window_samples(offsets, zero, angles, (6, 12), 3, "official") - window_samples(zero, zero, angles, (6, 12), 3, "official")
    torch.testing.assert_close(moved[..., 0], torch.full((1, 1, 6, 12), 1 / 2))
    torch.testing.assert_close(moved[..., 1], torch.full((1, 1, 6, 12), 1 / 4))


def test_the_choice_reaches_every_rotated_layer_and_matters_off_the_square_only() -> None:
    sizes = {"image_size": 64, "width": 24, "depth": 4, "heads": 2, "interval": 2, "window": 2, "decoder_channels": 8}
    ours, theirs = (create("upernet_vit_b_rvsa", seed=0, offset_axes=axes, **sizes).eval() for axes in ("corrected", "official"))
    layers = [part for part in theirs.modules() if isinstance(part, RotatedWindowAttention)]
    assert [layer.offset_axes for layer in layers] == ["official", "official"]
    for network in (ours, theirs):
        for part in network.modules():
            if isinstance(part, RotatedWindowAttention):
                torch.nn.init.ones_(part.offsets.bias)
    with torch.no_grad():
        square, broad = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 128)
        assert torch.equal(ours(square), theirs(square))
        assert not torch.allclose(ours(broad), theirs(broad), atol=1e-3)


def test_half_precision_does_not_round_the_places() -> None:
    zero = torch.zeros(1, 1, 2, 20, 20)
    places = window_samples(zero.bfloat16(), zero.bfloat16(), zero[:, :, 0].bfloat16(), (140, 140), 7)
    assert places.dtype == torch.float32
    torch.testing.assert_close(places, window_samples(zero, zero, zero[:, :, 0], (140, 140), 7))


@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_attends_in_the_same_places(autocast: bool) -> None:
    """Places rounded to bfloat16 would lie up to a seventh of a token off on this grid; values that alternate would show it."""
    torch.manual_seed(6)
    attention = RotatedWindowAttention(8, 2, 7)
    with torch.no_grad():
        for part in (attention.offsets, attention.scales, attention.angles):
            part.weight.zero_()
            part.bias.zero_()
        # Tokens look at those of their own sign and take their values over.
        attention.qkv.weight.copy_(torch.cat([2 * torch.eye(8), 2 * torch.eye(8), torch.eye(8)]))
        attention.qkv.bias.zero_()
        attention.projection.weight.copy_(torch.eye(8))
        attention.projection.bias.zero_()
        sign = (torch.arange(70)[:, None] + torch.arange(70)[None]) % 2 * 2.0 - 1
        tokens = sign.reshape(1, -1, 1) * torch.ones(8)
        if autocast:
            with torch.autocast("cpu", torch.bfloat16):
                found = attention(tokens, (70, 70))
        else:
            found = attention.bfloat16()(tokens.bfloat16(), (70, 70))
    assert found.dtype == torch.bfloat16
    assert float((found - tokens).abs().max()) < 0.02

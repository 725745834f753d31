"""Sizes and options that make no sense are answered in one line that says what was expected, for every network by name."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
import torch

from support.tiny_networks import OPTIONS
from tilth.errors import ConfigError
from tilth.models import create
from tilth.models.named import NAMES

COUNTS = [0, -1, True, 2.5, "3", None]
"""What is no number of things."""

WRONG: dict[str, list[Any]] = {
    **{key: [0, -1, True, 2.5, "3"] for key in ("width", "depth", "heads", "decoder_channels", "window", "interval", "patch")},
    **{
        key: [0, -1, True, 2.5, "3"]
        for key in ("part", "res_blocks", "norm_groups", "head_width", "fine_channels", "branches", "out_channels")
    },
    **{key: [[], [0, 1, 1, 1], [1, 1, True, 1], "1111", 4] for key in ("depths", "layers", "planes", "multipliers")},
    **{key: [[0], [-6], [1.5], 6] for key in ("dilations", "attention_strides")},
    "taps": [[], [0, 1, 2], [0, 1, 2, 99], [-1, 0, 1, 2], [3, 2, 1, 0], [0, 1, 2, 3.0], 3],
    "epsilon": [0, -1.0, float("nan"), "x", True],
    "drop_path": [-0.1, 1.0, "x", True, float("nan")],
    "dropout": [-0.1, 1.5, "x", True],
    "embed_scale": [0, -1.0, float("inf"), "x"],
    "tasks": [{}, {"a": 0}, {"a": True}, {"a": "3"}, {"": 2}, {"a.b": 2}, {"A": 2, "a": 3}, [2, 3]],
    "groups": [[], [[]], [[0, 99]], [[-1]], [0, 1], 3],
    "wavelengths": [[], [0.5], [500.0] * 13, [-0.5] * 13, ["red"] * 13, 0.5],
    **{key: [1, "yes", None] for key in ("checkpointing", "film", "middle_attention", "learned_sigma", "zero_residual", "orthogonal")},
    **{key: [1, "yes", None] for key in ("resampling_blocks",)},
    **{key: ["none such", 3, None] for key in ("attention", "offset_axes", "size", "fusion", "decoder", "head_order")},
    **{key: ["none such", 3] for key in ("encoder", "schedule", "unet", "convention", "side", "reduce", "head", "noise")},
    **{key: [0, -1, True, 2.5, "3"] for key in ("channels", "draws", "chunk")},
    **{key: [1, "yes", None] for key in ("pool_before", "share_noise", "jitter_level")},
    "unet_options": [[8], 3],
    "times": [[], [-1], [True], [2001], [1.5], 50],
    "noise_levels": [[], [-0.1], [1.0], [float("nan")], ["x"], 0.5],
    "strides": [[], [3], [32], [4, 4], [2.0], 4],
    "noise_seed": [-1, 1.5, True, "x"],
    "ranges": [[], [[-1.0, 1.0]], [[-1.0]] * 3, [[1.0, 1.0]] * 3, [["a", "b"]] * 3, 3],
}

TWO_KINDS: dict[tuple[str, str], list[Any]] = {
    ("ddpm_segmentor", "dropout"): [1, "yes", None],
    ("ddpm_segmentor", "schedule"): [
        "none such",
        3,
        {"kind": "none such"},
        {"betas": [2.0]},
        {"betas": ["x", "y"]},
        {"start": "x", "end": 1},
        {"kind": "linear", "none_such": 3},
    ],
    ("upernet_swin_t", "heads"): [[], [0, 1, 1, 1], [5, 5, 5, 5], 3],
    **{(name, "decoder_channels"): [[], [8], [0, 8, 8, 8, 8], 8] for name in NAMES if NAMES[name].kind == "fusion"},
}
"""Options that mean something else for some networks."""


def refusal(name: str, **options: Any) -> str:
    with torch.device("meta"), pytest.raises(ConfigError) as caught:
        create(name, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_count_nothing_are_refused(name: str) -> None:
    fusion = NAMES[name].kind == "fusion"
    bands = [0, 13, True, "3", 2.5, (), (2,), (2, 13, 1), (2, 0), (2, True), ("2", 13)] if fusion else [*COUNTS[:-1], (2, 13), (3,), [3]]
    for key, values in (("in_channels", bands), ("num_classes", COUNTS), ("image_size", [*COUNTS, -64, 64.5, (64, 64)])):
        for value in values:
            told = refusal(name, **{key: value})
            assert told.startswith(f"{key}={value!r}: ")
            assert "\n" not in told


@pytest.mark.parametrize("name", NAMES)
def test_options_that_make_no_sense_are_refused(name: str) -> None:
    module, _, function = NAMES[name].builder.partition(":")
    options = set(inspect.signature(getattr(importlib.import_module(module), function)).parameters)
    for option in sorted(options - {"in_channels", "num_classes", "image_size"}):
        for value in TWO_KINDS.get((name, option)) or WRONG[option]:
            told = refusal(name, **(OPTIONS[name] | {option: value}))
            assert option in told, (option, value, told)
            assert "\n" not in told
            assert len(told) < 400


def test_a_message_says_what_came_and_what_was_expected() -> None:
    assert refusal("upernet_vit_b", decoder_channels=0) == "upernet_vit_b: decoder_channels=0: expected a whole number from 1"
    assert refusal("upernet_vit_b", epsilon="x") == "upernet_vit_b: epsilon='x': expected a number above 0"
    assert refusal("upernet_swin_t", window=0) == "upernet_swin_t: window=0: expected a whole number from 1"
    assert refusal("upernet_vit_b", taps=3) == "upernet_vit_b: taps=3: expected a list"
    assert "takes one band count for S1 and one for S2, such as (2, 13)" in refusal("cromss_mid2_resnet50", in_channels=13)
    assert "takes one image; give its bands" in refusal("upernet_vit_b", in_channels=(2, 13))


def test_lists_and_whole_numbers_are_taken_where_fractions_are_meant() -> None:
    with torch.device("meta"):
        create("upernet_vit_b", **(OPTIONS["upernet_vit_b"] | {"taps": [0, 1, 2, 3], "drop_path": 0, "epsilon": 1}))

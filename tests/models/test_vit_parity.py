"""Plain ViT networks compute what the published ones compute, tensor for tensor (oracle: fixtures of the published modules)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch

from support.official_s5 import FINETUNE, arrays, assert_near, normal, read_json
from support.s5_parity import compare, published, published_module
from tilth.models.multi_task import MultiTaskNetwork
from tilth.models.network import SegmentationNetwork
from tilth.models.weights.layouts.s5_vit import LAYOUTS

LAYOUT = {layout.name: layout for layout in LAYOUTS}


@pytest.fixture(scope="module")
def vit_b() -> SegmentationNetwork:
    return published("upernet_vit_b", LAYOUT["s5-vit"])


@pytest.fixture(scope="module")
def vit_b_moe() -> MultiTaskNetwork:
    network = published_module("upernet_vit_b_moe", LAYOUT["s5-moe"])
    assert isinstance(network, MultiTaskNetwork)
    return network


def test_vit_b_computes_every_stage_as_published(vit_b: SegmentationNetwork) -> None:
    compare(vit_b, "vit_b_128_c16")


def test_vit_b_uses_the_published_epsilon_of_norms_which_a_dim_image_shows(vit_b: SegmentationNetwork) -> None:
    compare(vit_b, "vit_b_128_c16_dim")


def test_explicit_attention_computes_vit_b_as_published_too(vit_b: SegmentationNetwork) -> None:
    for block in vit_b.encoder.get_submodule("blocks").children():
        block.attention.attention = "explicit"
    try:
        compare(vit_b, "vit_b_128_c16")
    finally:
        for block in vit_b.encoder.get_submodule("blocks").children():
            block.attention.attention = "sdpa"


@pytest.mark.slow
@pytest.mark.parametrize("size", ["l", "h"])
def test_larger_vits_compute_as_published(size: str) -> None:
    compare(published(f"upernet_vit_{size}", LAYOUT["s5-vit"]), f"vit_{size}_128_c16", thin=4)


@pytest.mark.parametrize("task", ["vaihingen", "potsdam", "openearthmap", "loveda"])
def test_vit_b_with_experts_computes_every_task_as_published(vit_b_moe: MultiTaskNetwork, task: str) -> None:
    expected = arrays(FINETUNE / "forward_vit_b_moe_128.npz")
    image = normal("input:seg_vit_b_moe_128", (1, 3, 128, 128))
    head: Any = vit_b_moe.heads[task]
    with torch.no_grad():
        features = vit_b_moe.encode(image, task)
        decoded = vit_b_moe.decoders[task](features)
        quarter, logits = head.convolution(decoded)[0], vit_b_moe(image, task)[0]
    for index, feature in enumerate(features):
        assert_near(feature[0, :6], expected[f"{task}/enc{index}"], 2e-4)
        mean, deviation, largest = expected[f"{task}/enc{index}_stats"]
        assert float(feature.mean()) == pytest.approx(mean, abs=1e-5)
        assert float(feature.std()) == pytest.approx(deviation, rel=1e-4)
        assert float(feature.abs().max()) == pytest.approx(largest, rel=1e-4)
    assert_near(decoded[0, :6], expected[f"{task}/feat"], 2e-4, 2e-5)
    assert_near(quarter, expected[f"{task}/logits_quarter"], 1e-4, 1e-5)
    assert_near(logits[:, 1::3, 1::3], expected[f"{task}/logits_stride3"], 1e-4, 1e-5)
    assert (logits.argmax(dim=0).numpy() == expected[f"{task}/argmax"]).mean() > 0.999


OURS = {
    "encoder.pos_embed": "encoder.position_embedding",
    "encoder.patch_embed.projection.weight": "encoder.patch_embedding.weight",
    "encoder.layers.0.attn.attn.in_proj_weight": "encoder.blocks.0.attention.qkv.weight",
    "encoder.layers.0.ffn.layers.1.weight": "encoder.blocks.0.feed_forward.shared.weight",
    "encoder.layers.0.ffn.experts.0.weight": "encoder.blocks.0.feed_forward.experts.0.weight",
    "encoder.layers.11.ffn.experts.3.weight": "encoder.blocks.11.feed_forward.experts.3.weight",
    "encoder.layers.11.ffn.experts.0.bias": "encoder.blocks.11.feed_forward.experts.0.bias",
    "encoder.fpn1.1.ln.weight": "encoder.pyramid.levels.0.1.weight",
    "encoder.fpn2.0.weight": "encoder.pyramid.levels.1.0.weight",
    "semsegdecoder.decode_head.psp_modules.3.1.bn.running_var": "decoders.vaihingen.pooled.3.norm.running_var",
    "semsegdecoder.decode_head.fpn_convs.0.conv.weight": "decoders.vaihingen.smoothings.0.convolution.weight",
    "semsegdecoder.decode_head.conv_seg.weight": "decoders.vaihingen.unused_projection.weight",
    "encoder.cls_token": "encoder.unused_class_token",
}


def assert_sensitive(network: MultiTaskNetwork, names: Iterable[str]) -> None:
    expected = read_json(FINETUNE / "forward_vit_b_moe_128_sensitivity.json")
    assert set(OURS) == set(expected)
    image = normal("input:seg_vit_b_moe_128", (1, 3, 128, 128))
    tensors = network.state_dict()
    with torch.no_grad():
        before = {task: network(image, task) for task in ("vaihingen", "loveda")}
        for theirs in names:
            tensor = tensors[OURS[theirs]]
            kept = tensor.clone()
            tensor.mul_(1.5)
            for task, change in expected[theirs].items():
                found = float((network(image, task) - before[task]).abs().max())
                assert found == (pytest.approx(change, rel=0.02) if change else 0.0), (theirs, task)
            tensor.copy_(kept)


def test_the_expert_of_another_task_has_no_effect_and_the_own_one_the_published_effect(vit_b_moe: MultiTaskNetwork) -> None:
    assert_sensitive(vit_b_moe, ["encoder.layers.0.ffn.experts.0.weight", "encoder.layers.11.ffn.experts.3.weight"])


@pytest.mark.slow
def test_each_tensor_matters_as_much_as_in_the_published_network(vit_b_moe: MultiTaskNetwork) -> None:
    assert_sensitive(vit_b_moe, OURS)

"""Vision transformers of timm, torchvision and others, with random weights: loaded into our networks, they compute the same."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from support.random_models import random_weights
from tilth.models import create, load_weights, official_state_dict
from tilth.models.vision_transformers.timm_backbone import upernet_timm_vit
from tilth.models.weights.layouts import parts

WIDTH, DEPTH, HEADS, SIDE = 24, 4, 3, 64
IMAGE = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def plain(name="upernet_vit_b", **options):
    base = {"num_classes": 3, "image_size": SIDE, "width": WIDTH, "depth": DEPTH, "heads": HEADS, "decoder_channels": 8, "seed": 0}
    return create(name, **(base | options)).eval()


def timm_vit(name="vit_base_patch16_224", **options):
    base = {"img_size": SIDE, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "num_classes": 5}
    return random_weights(timm.create_model(name, **(base | options)))


@torch.no_grad()
def tokens_without_class(model, image=IMAGE):
    """Run the layers of a timm ViT over patches alone, as S5's plain ViT runs them: no class token (s5_pretrain.md section 7.1)."""
    positions = model.pos_embed[:, -((image.shape[-1] // 16) ** 2) :]
    tokens = model.patch_embed(image) + positions
    outputs = []
    for block in model.blocks:
        tokens = block(tokens)
        outputs.append(tokens)
    return outputs


def assert_same_taps(network, expected, tolerance=2e-5):
    with torch.no_grad():
        found = network.encoder.tap_maps(IMAGE)
    for tap, maps in zip(network.encoder.taps, found, strict=True):
        torch.testing.assert_close(maps.flatten(2).transpose(1, 2), expected[tap], atol=tolerance, rtol=tolerance)


def hugging_face_names(state, kind):
    embeddings = {"cls_token": "cls_token", "pos_embed": "position_embeddings"}
    renamed = {
        "norm1": "layernorm_before" if kind == "vit" else "norm1",
        "norm2": "layernorm_after" if kind == "vit" else "norm2",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense" if kind == "vit" else "mlp.fc1",
        "mlp.fc2": "output.dense" if kind == "vit" else "mlp.fc2",
        "ls1": "layer_scale1",
        "ls2": "layer_scale2",
    }
    prefix = f"{kind}." if kind == "vit" else ""
    names = {}
    for name, value in state.items():
        if name in embeddings:
            names[f"{prefix}embeddings.{embeddings[name]}"] = value
        elif name.startswith("patch_embed.proj."):
            names[f"{prefix}embeddings.patch_embeddings.projection.{name.rpartition('.')[2]}"] = value
        elif name.startswith("blocks."):
            _, index, rest = name.split(".", 2)
            part, _, last = rest.rpartition(".")
            place = f"{prefix}encoder.layer.{index}"
            if part == "attn.qkv":
                for word, chunk in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    names[f"{place}.attention.attention.{word}.{last}"] = chunk
            else:
                names[f"{place}.{renamed[part]}.{'lambda1' if last == 'gamma' else last}"] = value
        elif name.startswith("norm."):
            names[f"{prefix}layernorm.{name.rpartition('.')[2]}"] = value
        else:
            names[name.replace("head.", "classifier.")] = value
    return names


class TestVisionTransformers:
    def test_a_file_of_mae_computes_the_same_in_the_plain_vit(self):
        model = timm_vit()
        decoder = {
            "decoder_embed.weight": torch.zeros(2, 2),
            "decoder_blocks.0.attn.qkv.weight": torch.zeros(2, 2),
            "decoder_pos_embed": torch.zeros(1),
        }
        file = {"model": model.state_dict() | decoder | {"mask_token": torch.zeros(1, 1, 2)}, "epoch": 399}
        network = plain(epsilon=1e-6)
        report = load_weights(network, file)
        assert report.layout == "vit"
        assert report.verdict == "encoder only"
        assert not report.unexpected
        assert report.dropped["decoder_blocks.0.attn.qkv.weight"] == "of the decoder that images were rebuilt with"
        assert report.dropped["norm.weight"] == "final norm: maps are taken before it"
        assert not any("epsilon" in note for note in report.notes)
        assert_same_taps(network, tokens_without_class(model))

    def test_another_epsilon_is_noted_and_matters(self):
        network = plain()
        report = load_weights(network, timm_vit().state_dict())
        assert any("epsilon 1e-06, this network computes with 1e-05" in note for note in report.notes)

    def test_positions_of_another_image_size_are_resized(self):
        report = load_weights(plain(), timm_vit(img_size=96).state_dict())
        assert report.resized["encoder.position_embedding"].startswith("6 x 6 to 4 x 4 positions, bicubic")

    def test_scales_of_layers_are_multiplied_in(self):
        """DINOv2 scales each branch by a learned vector; plain ViTs have no place for it, and need none."""
        model = timm_vit("vit_base_patch16_224", init_values=1.0)
        assert "blocks.0.ls1.gamma" in model.state_dict()
        network = plain(epsilon=1e-6)
        report = load_weights(network, model.state_dict())
        assert "scales of layers are multiplied into the linear layers before them" in report.notes
        assert not report.unexpected
        assert_same_taps(network, tokens_without_class(model))

    def test_register_tokens_are_dropped_with_the_reason(self):
        model = timm_vit(reg_tokens=2)
        report = load_weights(plain(), model.state_dict())
        assert report.dropped["reg_token"] == "register tokens, which this network does not have"

    def test_what_a_plain_vit_cannot_compute_is_said(self):
        model = timm_vit(qk_norm=True)
        report = load_weights(plain(), model.state_dict())
        assert report.dropped["blocks.0.attn.q_norm.weight"] == "this network has no such layer, so it computes something else"

    def test_torchvision_names_compute_the_same(self):
        torch.manual_seed(0)
        model = random_weights(
            torchvision.models.VisionTransformer(
                image_size=SIDE, patch_size=16, num_layers=DEPTH, num_heads=HEADS, hidden_dim=WIDTH, mlp_dim=4 * WIDTH
            )
        )
        network = plain(epsilon=1e-6)
        report = load_weights(network, model.state_dict())
        assert not report.unexpected
        assert report.verdict == "encoder only"
        with torch.no_grad():
            patches = model.conv_proj(IMAGE).flatten(2).transpose(1, 2) + model.encoder.pos_embedding[:, 1:]
            expected = []
            for layer in model.encoder.layers:
                patches = layer(patches)
                expected.append(patches)
        assert_same_taps(network, expected)

    @pytest.mark.parametrize("kind", ["vit", "dinov2"])
    def test_hugging_face_names_compute_the_same(self, kind):
        """Queries, keys and values are apart there. The names are built from those of timm, since transformers is no dependency."""
        model = timm_vit(init_values=1.0 if kind == "dinov2" else None)
        names = hugging_face_names(model.state_dict(), kind)
        network = plain(epsilon=1e-6)
        report = load_weights(network, names)
        assert not report.unexpected
        assert not report.missing or report.verdict == "encoder only"
        assert_same_taps(network, tokens_without_class(model))

    def test_the_teacher_of_a_dino_file_and_by_word_the_student(self):
        teacher, student = timm_vit(), random_weights(timm_vit(), seed=9)
        file = {
            "student": {f"module.backbone.{name}": value for name, value in student.state_dict().items()}
            | {"module.head.mlp.0.weight": torch.zeros(2)},
            "teacher": {f"backbone.{name}": value for name, value in teacher.state_dict().items()} | {"head.mlp.0.weight": torch.zeros(2)},
            "epoch": 3,
        }
        network = plain(epsilon=1e-6)
        load_weights(network, file)
        assert_same_taps(network, tokens_without_class(teacher))
        for word in ("student", "dinos"):
            load_weights(network, file, take=word)
            assert_same_taps(network, tokens_without_class(student))
        flat = {f"{who}.{name}": value for who in ("student", "teacher") for name, value in file[who].items()}
        load_weights(network, {name.replace("module.", ""): value for name, value in flat.items()}, take="student")
        assert_same_taps(network, tokens_without_class(student))

    def test_the_transfer_vit_uses_the_class_token(self):
        model = timm_vit()
        network = plain("cromss_upernet_vit_l", in_channels=3)
        report = load_weights(network, model.state_dict())
        assert report.verdict == "encoder only"
        with torch.no_grad():
            expected = model.forward_intermediates(IMAGE, intermediates_only=True)
            found = network.encoder.tap_maps(IMAGE)
        for tap, maps in zip(network.encoder.taps, found, strict=True):
            torch.testing.assert_close(maps, expected[tap], atol=2e-5, rtol=2e-5)

    def test_rotated_windows_start_from_mae_and_say_what_it_lacks(self):
        network = plain("upernet_vit_b_rvsa", image_size=112, interval=2)
        model = timm_vit()
        report = load_weights(network, model.state_dict())
        assert torch.equal(network.encoder.blocks[0].attention.qkv.weight, model.blocks[0].attn.qkv.weight)
        assert any("encoder.blocks.0.attention.offsets.weight" in name for name in report.missing)
        assert report.verdict.startswith("partial")

    def test_a_file_of_rotated_windows_goes_into_a_plain_vit_without_them(self):
        source = plain("upernet_vit_b_rvsa", image_size=112, interval=2)
        encoder = {n.removeprefix("encoder."): v for n, v in official_state_dict(source).items() if n.startswith("encoder.")}
        network = plain()
        report = load_weights(network, encoder)
        assert torch.equal(network.encoder.blocks[2].feed_forward.expand.weight, source.encoder.blocks[2].feed_forward.expand.weight)
        reasons = {reason for name, reason in report.dropped.items() if "sampling" in name or "rel" in name}
        assert reasons == {"relative positions or rotated windows, which a plain ViT does not have"}
        assert not report.unexpected

    def test_a_dense_file_starts_every_expert_alike(self):
        """s5_finetune.md section 3.2: the last P rows go to every expert."""
        model = timm_vit()
        network = plain("upernet_vit_b_moe", tasks={"a": 2, "b": 3}, part=8, epsilon=1e-6)
        load_weights(network, model.state_dict())
        layer = network.encoder.blocks[1].feed_forward
        dense = model.blocks[1].mlp.fc2.weight
        assert torch.equal(layer.shared.weight, dense[:-8])
        assert all(torch.equal(expert.weight, dense[-8:]) for expert in layer.experts)

    def test_groups_of_bands_and_wavelengths_as_published(self):
        """SatMAE under ``model`` with a decoder, DOFA bare: the encoders of CromSS under their own names (cromss.md section 7.2)."""
        for name, bands, wrap in (("cromss_upernet_satmae_l", 10, True), ("cromss_upernet_dofa_l", 13, False)):
            options = {"in_channels": bands, "width": 32, "heads": 2, "decoder_channels": 8}
            source, network = plain(name, **options), plain(name, **options | {"seed": 1})
            names = official_state_dict(source)
            file = {key.removeprefix("encoder."): value for key, value in names.items() if key.startswith("encoder.")}
            file |= {"norm.weight": torch.zeros(32), "norm.bias": torch.zeros(32), "decoder_embed.0.weight": torch.zeros(2)}
            report = load_weights(network, {"model": file} if wrap else file)
            assert report.verdict == "encoder only", name
            assert not report.unexpected
            image = torch.randn(1, bands, SIDE, SIDE)
            with torch.no_grad():
                for found, expected in zip(network.encoder(image), source.encoder(image), strict=True):
                    assert torch.equal(found, expected)

    def test_a_decoder_in_the_file_is_no_second_encoder(self):
        names = {"blocks.0.attn.qkv.weight": (3, 1), "decoder_blocks.0.attn.qkv.weight": (3, 1)}
        assert parts.prefixes_before(names, "blocks.0.attn.qkv.weight") == [""]

    def test_timm_backbones_take_files_of_timm(self):
        options = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
        network = upernet_timm_vit(
            "vit_base_patch16_224", in_channels=3, num_classes=2, image_size=SIDE, decoder_channels=8, encoder_options=options
        ).eval()
        model = timm_vit()
        report = load_weights(network, model.state_dict())
        assert report.layout == "vit"
        assert not report.unexpected
        with torch.no_grad():
            expected = model.forward_intermediates(IMAGE, intermediates_only=True)
            found = network.encoder.backbone.forward_intermediates(IMAGE, indices=list(network.encoder.taps), intermediates_only=True)
        for tap, maps in zip(network.encoder.taps, found, strict=True):
            torch.testing.assert_close(maps, expected[tap], atol=1e-5, rtol=1e-5)

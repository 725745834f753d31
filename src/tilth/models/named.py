"""Networks that go by a name: what the name stands for. Light to import; who builds them is looked up when one is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["segmentation", "multi-task", "fusion", "diffusion"]


@dataclass(frozen=True)
class Named:
    """A network with a name.

    Attributes:
        kind: how it is called. ``segmentation``: image -> logits; ``multi-task``: image and task -> logits; ``fusion``: one image for each
            modality -> one logits tensor for each branch; ``diffusion``: noisy image and noise level -> noise.
        builder: ``module:function`` that builds it from ``in_channels``, ``num_classes``, ``image_size`` and options.
        summary: one line for people.
        options: what the name fixes among the builder's options; can be overridden.
        in_channels: default number of bands; one for each modality for fusion.
    """

    kind: Kind
    builder: str
    summary: str
    options: dict[str, Any] = field(default_factory=dict)
    in_channels: int | tuple[int, ...] = 3


_S5 = "tilth.models.s5"
_CROMSS = "tilth.models.cromss"
_DIFFUSION = "tilth.models.diffusion.build"
_SIZES = {"b": "Base", "l": "Large", "h": "Huge"}

NAMES: dict[str, Named] = {
    **{
        f"upernet_vit_{size}": Named("segmentation", f"{_S5}:upernet_vit", f"plain ViT-{title} with UperNet (S5)", {"size": size})
        for size, title in _SIZES.items()
    },
    **{
        f"upernet_vit_{size}_rvsa": Named(
            "segmentation", f"{_S5}_windows:upernet_vit_rvsa", f"ViT-{_SIZES[size]} with rotated windows and UperNet (S5)", {"size": size}
        )
        for size in ("b", "l")
    },
    "upernet_swin_t": Named("segmentation", f"{_S5}_windows:upernet_swin", "Swin-T with UperNet (S5)"),
    **{
        f"deeplabv3plus_resnet{depth}": Named(
            "segmentation",
            f"{_S5}_resnet:deeplabv3plus_resnet",
            f"ResNet-{depth} of three-convolution stem with DeepLabV3+ (S5)",
            {"depth": depth},
        )
        for depth in (50, 101)
    },
    **{
        f"upernet_vit_{size}_moe": Named(
            "multi-task", f"{_S5}:upernet_vit_moe", f"ViT-{title} with expert layers, one UperNet for each task (S5)", {"size": size}
        )
        for size, title in _SIZES.items()
    },
    **{
        f"cromss_{fusion}{branches}_resnet50": Named(
            "fusion",
            f"{_CROMSS}:fusion_unet",
            f"ResNet-50 U-Nets for S1 and S2, {how}{', and one for both together' if branches == 3 else ''} (CromSS)",
            {"fusion": fusion, "branches": branches},
            in_channels=(2, 13),
        )
        for fusion, how in (("mid", "sharing their decoder"), ("late", "sharing nothing"))
        for branches in (2, 3)
    },
    **{
        f"cromss_{decoder}_resnet50": Named(
            "segmentation",
            f"{_CROMSS}:transfer_resnet",
            f"ResNet-50 with {title}, for transfer (CromSS)",
            {"decoder": decoder},
            in_channels=13,
        )
        for decoder, title in (("unet", "U-Net"), ("pspnet", "PSPNet"), ("fpn", "FPN"), ("deeplabv3plus", "DeepLabV3+"))
    },
    "cromss_upernet_vit_l": Named(
        "segmentation", f"{_CROMSS}:transfer_vit", "ViT-L/16 with UperNet, for transfer (CromSS)", {"encoder": "vit"}
    ),
    "cromss_upernet_satmae_l": Named(
        "segmentation",
        f"{_CROMSS}:transfer_vit",
        "SatMAE ViT-L/8 over band groups with UperNet (CromSS)",
        {"encoder": "satmae"},
        in_channels=10,
    ),
    "cromss_upernet_dofa_l": Named(
        "segmentation", f"{_CROMSS}:transfer_vit", "DOFA ViT-L/16 with UperNet (CromSS)", {"encoder": "dofa"}, in_channels=13
    ),
    "ddpm_segmentor": Named(
        "segmentation",
        "tilth.models.diffusion.segmentation:ddpm_segmentor",
        "noise predictor (by default ddpm_sr3_64) with a head on its maps",
    ),
    "ddpm_sr3_64": Named("diffusion", f"{_DIFFUSION}:sr3_unet", "noise predictor of SR3 type, 64 wide", {"width": 64}),
    "ddpm_sr3_128": Named("diffusion", f"{_DIFFUSION}:sr3_unet", "noise predictor of SR3 type, 128 wide (DDPM-CD)", {"width": 128}),
    "ddpm_guided_256": Named(
        "diffusion", f"{_DIFFUSION}:guided_unet", "noise predictor of guided-diffusion type, 256 wide", {"width": 256}
    ),
}
"""In the order in which they are listed."""

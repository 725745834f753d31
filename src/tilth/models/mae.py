"""Masked autoencoder of a plain vision transformer (He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, MAE below).

The encoder is that of a network for segmentation and sees a part of the patches only; a light decoder, which nobody needs afterwards,
paints the rest.

Shapes: B images, C bands, H x W pixels, p side of a patch, N = (H / p) * (W / p) patches row by row, V of them visible, D width of the
encoder, E width of the decoder, P = p * p * C values of a patch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import numpy as np
import torch
from timm.layers.drop import DropPath as TimmDropPath
from torch import Tensor, nn

from tilth import seeds
from tilth.augment.normalise import check_bands
from tilth.errors import ConfigError
from tilth.models.encoder_folder import ENCODER
from tilth.models.segmenter import Segmenter
from tilth.models.vision_transformers.attention import initialise
from tilth.models.vision_transformers.blocks import Block, DropPath, FeedForward
from tilth.models.vision_transformers.positions import Grid, sine_cosine_positions

_TINY = 1e-6
"""Added to the variance of a patch (MAE), and guards shares against rounding."""


def draw_visible(draws: Sequence[int], patches: int, ratio: float) -> Tensor:
    """Draw which patches the encoder sees: for each image as many, each set a pure function of the sample's seed.

    Args:
        draws: B seeds, ``Batch["draw"]``.
        patches: N.
        ratio: share of patches that are masked, in [0, 1); N * (1 - ratio) are visible, rounded down, and at least one (MAE).

    Returns:
        int64 (B, V) on the CPU, places in [0, N), ascending.

    Raises:
        ConfigError: patches are to be masked, and there are too few to mask any.

    Example:
        >>> draw_visible([7, 8], 196, 0.75).shape
        torch.Size([2, 49])
    """
    count = max(int(patches * (1 - ratio) + _TINY), 1)
    if ratio > 0 and count == patches:
        raise ConfigError(f"a crop of {patches} patches is too small to hide a share of {ratio:g} of them; enlarge weak.size")
    places = [np.sort(seeds.generator(draw, "mae").permutation(patches)[:count]) for draw in draws]
    return torch.from_numpy(np.stack(places).astype(np.int64))


def masked_patches(visible: Tensor, patches: int) -> Tensor:
    """Turn the places of visible patches, int64 (B, V), into bool (B, N), True where a patch is masked."""
    return torch.ones(len(visible), patches, dtype=torch.bool, device=visible.device).scatter_(1, visible, value=False)


def to_patches(image: Tensor, patch: int) -> Tensor:
    """Cut images (B, C, H, W) into patches (B, N, P), the values of a patch in the order row, column, band (MAE)."""
    images, bands, height, width = image.shape
    cut = image.reshape(images, bands, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(images, -1, patch * patch * bands)


def normalise_patches(values: Tensor, counted: Tensor) -> Tensor:
    """Give every patch mean 0 and variance 1 over all its values, those of all bands together (MAE: ``norm_pix_loss``).

    Args:
        values: float32 (B, N, P).
        counted: bool, same shape; values that are not are left out of mean and variance.

    Returns:
        float32 (B, N, P), ``(value - mean) / sqrt(variance + 1e-6)`` with the unbiased variance, 0 where not counted.
    """
    count = counted.sum(-1, keepdim=True)
    mean = (values * counted).sum(-1, keepdim=True) / count.clamp(min=1)
    centred = (values - mean) * counted
    variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    return centred * (variance + _TINY).rsqrt()


def painting_error(
    predicted: Tensor, image: Tensor, valid: Tensor, visible: Tensor, patch: int, normalised: bool = True
) -> tuple[Tensor, Tensor]:
    """Compare what was painted with what was masked.

    Args:
        predicted: float (B, N, P), any float type.
        image: float (B, C, H, W).
        valid: bool (B, H, W); the values of other pixels never count, so neither does a patch without any valid pixel.
        visible: int64 (B, V); visible patches never count.
        patch: p.
        normalised: compare with patches that were normalised each by itself.

    Returns:
        Sum of squared errors, and number of values summed; both scalars. Where all pixels are valid their quotient is the loss of MAE.
    """
    target = to_patches(image.detach().float(), patch)
    bands = image.shape[1]
    counted = to_patches(valid.unsqueeze(1).expand(-1, bands, -1, -1), patch)
    if normalised:
        target = normalise_patches(target, counted)
    counted = counted & masked_patches(visible, target.shape[1]).unsqueeze(-1)
    # Selected, not multiplied: where nothing counts, a wild prediction must not come back as 0 * inf.
    difference = torch.where(counted, predicted.float() - target, 0.0)
    return difference.square().sum(), counted.sum()


class MaskedDecoder(nn.Module):
    """Paints all patches from the encoder's tokens of the visible ones; thrown away behind the training.

    Attributes:
        entry_norm: layer norm of the encoder's tokens, which our encoders lack behind their last layer.
        entry: Linear D -> E.
        mask_token: (1, 1, E), stands where a patch is masked.
        blocks: transformer layers of width E.
        exit_norm: layer norm E.
        exit: Linear E -> P.
    """

    def __init__(self, encoder_width: int, values: int, *, width: int = 512, depth: int = 8, heads: int = 16) -> None:
        """Build with fresh weights.

        Args:
            encoder_width: D.
            values: P, values of a patch.
            width: E, a multiple of 4 and of ``heads``.
            depth: layers.
            heads: of attention.

        Raises:
            ConfigError: a width that does not fit.
        """
        super().__init__()
        if width % 4:
            raise ConfigError(f"decoder width {width}: positions by sine and cosine of two axes need a multiple of 4")
        self.entry_norm = nn.LayerNorm(encoder_width, eps=_TINY)
        self.entry = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, FeedForward(width, 4 * width), epsilon=_TINY) for _ in range(depth))
        self.exit_norm = nn.LayerNorm(width, eps=_TINY)
        self.exit = nn.Linear(width, values)
        nn.init.normal_(self.mask_token, std=0.02)
        initialise(self)

    def forward(self, seen: Tensor, visible: Tensor, grid: Grid) -> Tensor:
        """Paint.

        Args:
            seen: float (B, V, D), the encoder's tokens.
            visible: int64 (B, V), their places.
            grid: rows and columns of patches.

        Returns:
            float (B, N, P).
        """
        entered = self.entry(self.entry_norm(seen))
        images, _, width = entered.shape
        tokens = self.mask_token.to(entered.dtype).expand(images, grid[0] * grid[1], -1)
        tokens = tokens.scatter(1, visible.unsqueeze(-1).expand(-1, -1, width), entered)
        tokens = tokens + _fixed_positions(grid, width).to(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return cast("Tensor", self.exit(self.exit_norm(tokens)))


@functools.lru_cache(maxsize=8)
def _fixed_positions(grid: Grid, width: int) -> Tensor:
    """Positions of the decoder, computed once for each size of crop; read only."""
    return sine_cosine_positions(grid, width)


@runtime_checkable
class Maskable(Protocol):
    """An encoder that can be shown a part of the patches.

    Attributes:
        can_mask: whether this one can; some of the same class cannot.
        patch: p.
        channels: D of each map.
        beside_tokens: beginnings of those of its names that no token passes: what makes four scales of the tokens, and layers behind the
            last tap.
    """

    @property
    def can_mask(self) -> bool: ...  # noqa: D102 - described above, like the next three

    @property
    def patch(self) -> int: ...  # noqa: D102 - above

    @property
    def channels(self) -> tuple[int, ...]: ...  # noqa: D102 - above

    @property
    def beside_tokens(self) -> tuple[str, ...]: ...  # noqa: D102 - above

    def visible_tokens(self, image: Tensor, visible: Tensor) -> Tensor:
        """Compute tokens float (B, V, D) behind the last tapped layer, of the patches int64 (B, V) of images float (B, C, H, W)."""

    def start_positions(self) -> None:
        """Put sine and cosine into the learned position embedding."""


class MaskedAutoencoder(nn.Module):
    """A Segmenter's encoder, called with the visible patches, and a decoder that paints all.

    What no visible patch passes (decoder and head for segmentation, feature pyramid, layers behind the last tap) takes no gradient.

    Attributes:
        model: the Segmenter.
        decoder: see :class:`MaskedDecoder`.
        patch: p.
        left_out: beginnings of names in the Segmenter's encoder that are not trained.
    """

    def __init__(self, model: Segmenter, *, width: int = 512, depth: int = 8, heads: int = 16) -> None:
        """Build a fresh decoder for a Segmenter.

        Args:
            model: its encoder is trained in place; stochastic depth in it is switched off, as MAE trains without.
            width: of the decoder, a multiple of 4 and of ``heads``.
            depth: layers of the decoder.
            heads: of the decoder's attention.

        Raises:
            ConfigError: an encoder that cannot leave patches out, or a width that does not fit.
        """
        super().__init__()
        encoder = maskable_encoder(model)
        self.model = model
        self.patch = encoder.patch
        self.left_out = encoder.beside_tokens
        self.decoder = MaskedDecoder(encoder.channels[-1], encoder.patch**2 * len(model.sensor), width=width, depth=depth, heads=heads)
        passed = tuple(f"{ENCODER}{name}" for name in self.left_out)
        for name, parameter in model.network.named_parameters():
            if not name.startswith(ENCODER) or name.startswith(passed):
                parameter.requires_grad = False
        _switch_off_drop_path(model.network.encoder)

    def forward(self, image: Tensor, visible: Tensor) -> Tensor:
        """Paint images from some of their patches.

        Args:
            image: float (B, C, H, W), normalised, sides multiples of p.
            visible: int64 (B, V), places of the patches that are seen.

        Returns:
            float (B, N, P).

        Raises:
            SensorMismatchError: another number of bands than the sensor's.
        """
        check_bands(image, self.model.sensor)
        seen = maskable_encoder(self.model).visible_tokens(image, visible)
        return cast("Tensor", self.decoder(seen, visible, (image.shape[-2] // self.patch, image.shape[-1] // self.patch)))


def maskable_encoder(model: Segmenter) -> Maskable:
    """Return the encoder of a Segmenter.

    Raises:
        ConfigError: it is none that takes a part of the patches.
    """
    encoder = model.network.encoder
    if isinstance(encoder, Maskable) and encoder.can_mask:
        return encoder
    raise ConfigError(
        f"method 'mae': the encoder of {model.config.network.title} cannot leave patches out; choose a plain ViT: "
        "network.name=upernet_vit_b, upernet_vit_l, upernet_vit_h or cromss_upernet_vit_l, or network.encoder=vit_base_patch16_224 "
        "(any VisionTransformer of timm) with network.decoder=upernet"
    )


def _switch_off_drop_path(encoder: nn.Module) -> None:
    for module in encoder.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
        elif isinstance(module, TimmDropPath):
            module.drop_prob = 0.0

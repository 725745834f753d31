"""Vision transformer whose patch embedding is computed from the wavelengths of the bands, so that any bands fit (DOFA, arXiv 2403.15356).

Shapes: B images, C width, N bands, R rows and S columns of tokens, d = 128.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import ConfigError
from tilth.models.vision_transformers.attention import Attention, SelfAttention
from tilth.models.vision_transformers.blocks import FeedForward
from tilth.models.vision_transformers.plain import PlainVisionTransformer
from tilth.models.vision_transformers.positions import sine_cosine_positions, sinusoids
from tilth.sensors import Sensor

_RADAR = 3.75
_S2 = (0.443, 0.49, 0.56, 0.665, 0.705, 0.74, 0.783, 0.842, 0.865, 0.94, 1.375, 1.61, 2.19)

WAVELENGTHS: dict[int, tuple[float, ...]] = {
    9: (*_S2[1:8], *_S2[11:]),
    10: (*_S2[1:9], *_S2[11:]),
    12: (*_S2[:10], *_S2[11:]),
    13: _S2,
}
"""Centre wavelengths in micrometres by number of bands: the published choices among those of Sentinel-2, in the order of their names
(cromss.md section 2.2). Other numbers say nothing: three bands can be red, green, blue as well as near infrared, red, green."""

_SIZE = 128
_HIDDEN = 2048
_HEADS = 4
_SCALE = 0.01


class WavelengthPatchEmbedding(nn.Module):
    """Convolution over patches whose kernel is computed from the wavelengths of the bands.

    Each band is a token (sinusoids of its wavelength, refined by two linear layers); a small transformer layer mixes these with learned
    tokens; a linear layer turns each band's token into its part of the kernel. The convolution pads by one pixel, as published.

    Attributes:
        out_channels: C.
        bands: float (N, d), sinusoids of the wavelengths in nanometres; computed, not stored with weights.
        first: Linear d -> d.
        second: Linear d -> d.
        weight_tokens: (d, d), learned tokens beside those of the bands.
        bias_token: (1, d), the token that the bias is computed from.
        attention: over all tokens.
        attention_norm: behind the attention and its shortcut.
        feed_forward: of the transformer layer.
        feed_forward_norm: behind the feed-forward layer and its shortcut.
        to_kernel: Linear d -> patch * patch * C.
        to_bias: Linear d -> C.
    """

    bands: Tensor

    def __init__(self, wavelengths: Sequence[float], width: int, patch: int, attention: Attention = "sdpa") -> None:
        super().__init__()
        self.out_channels = width
        self.patch = patch
        nanometres = torch.tensor([1000.0 * wavelength for wavelength in wavelengths])
        self.register_buffer("bands", sinusoids(nanometres, _SIZE), persistent=False)
        self.first = nn.Linear(_SIZE, _SIZE)
        self.second = nn.Linear(_SIZE, _SIZE)
        self.weight_tokens = nn.Parameter(torch.empty(_SIZE, _SIZE))
        self.bias_token = nn.Parameter(torch.empty(1, _SIZE))
        self.attention = SelfAttention(_SIZE, _HEADS, attention)
        self.attention_norm = nn.LayerNorm(_SIZE)
        self.feed_forward = FeedForward(_SIZE, _HIDDEN)
        self.feed_forward_norm = nn.LayerNorm(_SIZE)
        self.to_kernel = nn.Linear(_SIZE, patch * patch * width)
        self.to_bias = nn.Linear(_SIZE, width)
        self._initialise()

    def _initialise(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.constant_(part.bias, 0.01)
        nn.init.normal_(self.weight_tokens, std=0.02)
        nn.init.normal_(self.bias_token, std=0.02)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Compute the kernel float (C, N, patch, patch) and the bias float (C,) of the convolution."""
        bands = self.bands + F.relu(self.second(F.relu(self.first(self.bands))))
        tokens = torch.cat([self.weight_tokens, bands, self.bias_token])[None]
        tokens = self.attention_norm(tokens + self.attention(tokens))
        tokens = self.feed_forward_norm(tokens + self.feed_forward(tokens))[0]
        kernel: Tensor = self.to_kernel(tokens[len(self.weight_tokens) : -1] + bands)
        kernel = kernel.reshape(len(bands), self.patch, self.patch, self.out_channels).permute(3, 0, 1, 2)
        return kernel * _SCALE, self.to_bias(tokens[-1]) * _SCALE

    def forward(self, image: Tensor) -> Tensor:
        """Compute tokens as a map float (B, C, R, S) from images float (B, N, H, W), sides multiples of the patch."""
        kernel, bias = self.kernel()
        return F.conv2d(image, kernel, bias, stride=self.patch, padding=1)


class WavelengthVisionTransformer(PlainVisionTransformer):
    """Plain vision transformer behind a :class:`WavelengthPatchEmbedding`; its positions are fixed sinusoids.

    Attributes:
        wavelengths: of the bands, in micrometres.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        *,
        width: int,
        depth: int,
        heads: int,
        patch: int = 16,
        taps: Sequence[int] | None = None,
        wavelengths: Sequence[float] | None = None,
        drop_path: float = 0.0,
        attention: Attention = "sdpa",
        checkpointing: bool = False,
    ) -> None:
        """Build with fresh weights.

        Args:
            in_channels: bands N.
            image_size: side in pixels that positions are made for.
            width: channels C of tokens, a multiple of four.
            depth: layers.
            heads: of attention; divides ``width``.
            patch: side of a patch in pixels.
            taps: four layers, 0-based; by default the ends of the quarters.
            wavelengths: centre of each band in micrometres; by default those of Sentinel-2 by number of bands, :data:`WAVELENGTHS`.
            drop_path: rate at the last layer, growing from 0 at the first.
            attention: how attention is computed.
            checkpointing: save memory in training by computing activations twice.

        Raises:
            ConfigError: numbers that do not go together, or no wavelengths for a number of bands that says nothing about them.
        """
        super().__init__(
            in_channels,
            image_size,
            width=width,
            depth=depth,
            heads=heads,
            patch=patch,
            taps=taps,
            epsilon=1e-6,
            drop_path=drop_path,
            drop_attention=True,
            class_slot="used",
            pyramid=False,
            attention=attention,
            checkpointing=checkpointing,
        )
        self.wavelengths = _wavelengths(in_channels, wavelengths)
        self.add_module("patch_embedding", WavelengthPatchEmbedding(self.wavelengths, width, patch, attention))
        self.position_embedding = nn.Parameter(sine_cosine_positions(self.grid, width), requires_grad=False)
        self.class_position = nn.Parameter(torch.zeros(1, 1, width), requires_grad=False)


def sensor_wavelengths(sensor: Sensor) -> list[float]:
    """List the wavelengths of a sensor's bands in micrometres; radar counts as 3.75 (cromss.md section 2.2).

    Raises:
        ConfigError: a band that is no radar says nothing about its wavelength.
    """
    unknown = [band.name for band in sensor.bands if band.kind != "radar" and band.centre_nm is None]
    if unknown:
        raise ConfigError(
            f"sensor {sensor.name!r}: centre_nm of {', '.join(unknown)} is missing, and DOFA tells bands apart by nothing else; "
            "add it to the sensor, or give network.options.wavelengths in micrometres"
        )
    return [_RADAR if band.kind == "radar" else (band.centre_nm or 0) / 1000 for band in sensor.bands]


def _wavelengths(in_channels: int, wavelengths: Sequence[float] | None) -> tuple[float, ...]:
    if wavelengths is None and in_channels in WAVELENGTHS:
        return WAVELENGTHS[in_channels]
    given = tuple(float(wavelength) for wavelength in wavelengths or ())
    if len(given) != in_channels:
        raise ConfigError(
            f"wavelengths: got {len(given)} for {in_channels} bands; give the centre of each band in micrometres, "
            f"such as 0.665 for red and 3.75 for radar (known without: {', '.join(map(str, WAVELENGTHS))} bands of Sentinel-2)"
        )
    # DOFA tells bands apart by nothing else, and nanometres instead of micrometres are the likely slip.
    if not all(0.1 <= wavelength <= 100 for wavelength in given):
        raise ConfigError(f"wavelengths={list(given)}: expected micrometres from 0.1 to 100, such as 0.665 for red; radar counts as 3.75")
    return given

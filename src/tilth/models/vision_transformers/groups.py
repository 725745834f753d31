"""Vision transformer that makes tokens of groups of bands (SatMAE, arXiv 2207.08051).

Shapes: B images, C width, G groups, g width of a group's embedding, R rows and S columns of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import ConfigError
from tilth.models.vision_transformers.attention import Attention
from tilth.models.vision_transformers.blocks import run_blocks
from tilth.models.vision_transformers.plain import PlainVisionTransformer
from tilth.models.vision_transformers.positions import resize_positions, sine_cosine_positions, sinusoids
from tilth.sensors import Sensor

GROUPS = ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))
"""Groups of ten bands of Sentinel-2 in the order of their names: those of 10 m, red edge, short-wave infrared (cromss.md sections 2.2 and
7.4). The other three, of 60 m, are left out of the published network."""

_CENTRES_NM = (490, 560, 665, 705, 740, 783, 842, 865, 1610, 2190)
_NEAR_NM = 10.0


class GroupPatchEmbedding(nn.Module):
    """One patch embedding for each group of bands.

    Attributes:
        out_channels: C.
        members: positions of the bands in each group.
        groups: convolution of each group.
    """

    def __init__(self, members: Sequence[Sequence[int]], width: int, patch: int) -> None:
        super().__init__()
        self.out_channels = width
        self.members = tuple(tuple(group) for group in members)
        self.groups = nn.ModuleList(nn.Conv2d(len(group), width, kernel_size=patch, stride=patch) for group in self.members)

    def forward(self, image: Tensor) -> Tensor:
        """Compute tokens as maps float (B, G, C, R, S) from images float (B, bands, H, W)."""
        return torch.stack([layer(image[:, list(group)]) for group, layer in zip(self.members, self.groups, strict=True)], dim=1)


class GroupVisionTransformer(PlainVisionTransformer):
    """Plain vision transformer over the tokens of all groups: G for each patch, told apart by an embedding of the group.

    Where a token is, is said in its first C - g channels, of which group it is in the last g. Maps are means over groups.

    Attributes:
        patch_embedding: a :class:`GroupPatchEmbedding`.
        group_embedding: (1, G, g).
        position_embedding: (1, R * S, C - g) of ``grid``.
        class_position: (1, 1, C - g).
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        *,
        width: int,
        depth: int,
        heads: int,
        patch: int = 8,
        taps: Sequence[int] | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        drop_path: float = 0.0,
        attention: Attention = "sdpa",
        checkpointing: bool = False,
    ) -> None:
        """Build with fresh weights.

        Args:
            in_channels: bands.
            image_size: side in pixels that positions are made for.
            width: channels C of tokens, a multiple of sixteen; a quarter of them are for the group.
            depth: layers.
            heads: of attention; divides ``width``.
            patch: side of a patch in pixels.
            taps: four layers, 0-based; by default the ends of the quarters.
            groups: positions of the bands of each group; by default :data:`GROUPS` for ten bands.
            drop_path: rate at the last layer, growing from 0 at the first.
            attention: how attention is computed.
            checkpointing: save memory in training by computing activations twice.

        Raises:
            ConfigError: numbers that do not go together, groups of bands that do not exist, or none for other than ten bands.
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
        if width % 16:
            raise ConfigError(f"width={width}: a quarter of the channels tell the group and the others the place; give a multiple of 16")
        members = _members(in_channels, groups)
        of_group = width // 4
        self.add_module("patch_embedding", GroupPatchEmbedding(members, width, patch))
        self.position_embedding = nn.Parameter(sine_cosine_positions(self.grid, width - of_group))
        self.class_position = nn.Parameter(torch.zeros(1, 1, width - of_group))
        self.group_embedding = nn.Parameter(sinusoids(torch.arange(len(members)), of_group)[None])

    def tap_maps(self, image: Tensor, expert: int | None = None) -> list[Tensor]:
        """Compute the outputs of the tapped layers as maps float (B, C, R, S), shallow to deep; there are no experts."""
        del expert
        as_maps = self.patch_embedding(image)
        images, groups, width, rows, columns = as_maps.shape
        place = resize_positions(self.position_embedding, self.grid, (rows, columns))
        place_and_group = torch.cat(
            [place[:, None].expand(-1, groups, -1, -1), self.group_embedding[:, :, None].expand(-1, -1, rows * columns, -1)], dim=-1
        )
        tokens = (as_maps.flatten(3).transpose(2, 3) + place_and_group).reshape(images, groups * rows * columns, width)
        # The class token is of no group.
        first = self.class_token + F.pad(self.class_position, (0, width - self.class_position.shape[-1]))
        tokens = torch.cat([first.expand(images, -1, -1), tokens], dim=1)
        outputs = run_blocks(self.blocks, tokens, self.taps, self.checkpointing)
        return [
            output[:, 1:].reshape(images, groups, rows * columns, width).mean(dim=1).transpose(1, 2).reshape(images, width, rows, columns)
            for output in outputs
        ]


def sensor_groups(sensor: Sensor) -> list[list[int]] | None:
    """Find the published groups among the bands of a sensor by their wavelengths, in whatever order; other bands are left out.

    Returns:
        Positions of the bands of each group; None where one of the ten bands is not there, or there twice.
    """
    places: list[int] = []
    for centre in _CENTRES_NM:
        distances = [abs(band.centre_nm - centre) if band.centre_nm is not None else math.inf for band in sensor.bands]
        nearest = min(distances)
        if nearest > _NEAR_NM or distances.count(nearest) > 1:
            return None
        places.append(distances.index(nearest))
    return [[places[index] for index in group] for group in GROUPS] if len(set(places)) == len(places) else None


def _members(in_channels: int, groups: Sequence[Sequence[int]] | None) -> tuple[tuple[int, ...], ...]:
    if groups is None:
        if in_channels != sum(map(len, GROUPS)):
            raise ConfigError(
                f"groups: {in_channels} bands do not say which belong together (only the ten published ones of Sentinel-2 do); give "
                "positions of the bands of each group, such as [[0, 1, 2], [3]]"
            )
        return GROUPS
    given = tuple(tuple(group) for group in groups)
    if not given or not all(given) or not all(0 <= band < in_channels for group in given for band in group):
        raise ConfigError(f"groups={[list(group) for group in given]}: give groups of bands 0 to {in_channels - 1}, none of them empty")
    return given

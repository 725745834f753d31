"""The plain vision transformer, for images of any size (s5_pretrain.md section 7.1, s5_finetune.md section 2).

Shapes: B images, C width, R rows and S columns of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from tilth.models.vision_transformers.attention import Attention, fresh_table, initialise
from tilth.models.vision_transformers.blocks import Block, FeedForward, check_taps, drop_rates, freeze_unused, run_blocks, spread_taps
from tilth.models.vision_transformers.experts import ExpertFeedForward
from tilth.models.vision_transformers.positions import Grid, resize_positions, sine_cosine_positions, take_tokens, token_grid
from tilth.models.vision_transformers.pyramid import FeaturePyramid

ClassSlot = Literal["none", "unused", "used"]
"""``unused``: a parameter that published files carry and no pass sees. ``used``: it goes through the layers and is dropped behind them."""


class PlainVisionTransformer(nn.Module):
    """Patches, learned positions, transformer layers, and maps from four of the layers. No norm behind the last layer.

    Positions are learned for one grid and resized to others; where the grids agree they are added as they are.

    Attributes:
        patch_embedding: convolution, image (B, bands, H, W) -> (B, C, R, S).
        position_embedding: (1, R * S, C) of ``grid``.
        class_position: (1, 1, C), beside a class token that is used.
        grid: rows and columns that ``position_embedding`` is made for.
        blocks: the layers; those behind the last tap never run and do not train.
        taps: 0-based layers whose output is given on, shallow to deep.
        pyramid: makes four scales of them; None gives them on at the scale of the tokens.
        checkpointing: see :func:`tilth.models.vision_transformers.blocks.run_blocks`.
        experts: number of experts in each layer; 0 for ordinary layers.
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
        epsilon: float = 1e-5,
        drop_path: float = 0.1,
        drop_attention: bool = False,
        class_slot: ClassSlot = "unused",
        experts: int = 0,
        part: int = 256,
        pyramid: bool = True,
        attention: Attention = "sdpa",
        checkpointing: bool = False,
    ) -> None:
        """Build with fresh weights.

        Args:
            in_channels: bands.
            image_size: side in pixels that positions are made for.
            width: channels C of tokens.
            depth: layers.
            heads: of attention; divides ``width``.
            patch: side of a patch in pixels; with a pyramid, 8 or 16 for strides 4 to 32.
            taps: four layers, 0-based; by default the ends of the quarters.
            epsilon: of layer norms; S5 computes with 1e-5, MAE with 1e-6.
            drop_path: rate at the last layer, growing from 0 at the first.
            drop_attention: drop attention branches too, not the feed-forward branches alone.
            class_slot: whether there is a class token, and whether it is used.
            experts: tasks; 0 for ordinary layers.
            part: channels that belong to an expert.
            pyramid: whether four scales are made of the maps.
            attention: how attention is computed.
            checkpointing: save memory in training by computing activations twice.

        Raises:
            ConfigError: numbers that do not go together.
        """
        super().__init__()
        self.grid = token_grid(image_size, patch)
        self.taps = check_taps(spread_taps(depth) if taps is None else taps, depth)
        self.checkpointing = checkpointing
        self.experts = experts
        if class_slot == "unused":
            self.unused_class_token = nn.Parameter(torch.zeros(1, 1, width), requires_grad=False)
        elif class_slot == "used":
            self.class_token = fresh_table(1, 1, width)
            self.class_position = fresh_table(1, 1, width)
        self.has_class_token = class_slot == "used"
        self.position_embedding = fresh_table(1, self.grid[0] * self.grid[1], width)
        self.patch_embedding = nn.Conv2d(in_channels, width, kernel_size=patch, stride=patch)
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                ExpertFeedForward(width, 4 * width, experts, part) if experts else FeedForward(width, 4 * width),
                epsilon=epsilon,
                drop_path=rate,
                drop_attention=drop_attention,
                attention=attention,
            )
            for rate in drop_rates(drop_path, depth)
        )
        initialise(self.blocks)
        freeze_unused(self.blocks, self.taps)
        self.pyramid = FeaturePyramid(width, enlarge=2 if patch == 8 else 4) if pyramid else None

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return (self.patch_embedding.out_channels,) * len(self.taps)

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.patch_embedding.kernel_size[0]

    @property
    def can_mask(self) -> bool:
        """Whether :meth:`visible_tokens` can be called."""
        return not self.experts

    @property
    def beside_tokens(self) -> tuple[str, ...]:
        """Beginnings of names that no token passes up to the last tap."""
        return ("pyramid.", *(f"blocks.{index}." for index in range(self.taps[-1] + 1, len(self.blocks))))

    def start_positions(self) -> None:
        """Put sine and cosine into the learned position embedding."""
        with torch.no_grad():
            self.position_embedding.copy_(sine_cosine_positions(self.grid, self.position_embedding.shape[-1]))

    def tap_maps(self, image: Tensor, expert: int | None = None) -> list[Tensor]:
        """Compute the outputs of the tapped layers as maps float (B, C, R, S), shallow to deep; arguments as for :meth:`forward`."""
        tokens, (rows, columns) = self._embed(image)
        outputs = self._run(tokens, self.taps, *(() if expert is None else (expert,)))
        return [output.transpose(1, 2).reshape(image.shape[0], -1, rows, columns) for output in outputs]

    def visible_tokens(self, image: Tensor, visible: Tensor) -> Tensor:
        """Compute the tokens of some patches behind the last tapped layer, which see nothing of the others.

        Args:
            image: float (B, bands, H, W), sides multiples of the patch.
            visible: int64 (B, V), places in the R * S patches.

        Returns:
            float (B, V, C).
        """
        tokens, _ = self._embed(image)
        return self._run(take_tokens(tokens, visible), self.taps[-1:])[0]

    def _embed(self, image: Tensor) -> tuple[Tensor, Grid]:
        """Turn patches into tokens (B, R * S, C) that know their place."""
        as_map = self.patch_embedding(image)
        grid = (as_map.shape[2], as_map.shape[3])
        return as_map.flatten(2).transpose(1, 2) + resize_positions(self.position_embedding, self.grid, grid), grid

    def _run(self, tokens: Tensor, taps: Sequence[int], *arguments: int) -> list[Tensor]:
        """Send tokens through the layers, with the class token in front where there is one; returns tapped outputs without it."""
        if self.has_class_token:
            first = (self.class_token + self.class_position).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([first, tokens], dim=1)
        outputs = run_blocks(self.blocks, tokens, taps, self.checkpointing, *arguments)
        return [output[:, 1:] for output in outputs] if self.has_class_token else outputs

    def forward(self, image: Tensor, expert: int | None = None) -> list[Tensor]:
        """Compute feature maps.

        Args:
            image: float (B, bands, H, W), sides multiples of the patch, at least 32.
            expert: position of the task, where there are experts.

        Returns:
            Four maps float (B, C, h, w), finest first.
        """
        maps = self.tap_maps(image, expert)
        return maps if self.pyramid is None else cast("list[Tensor]", self.pyramid(maps))

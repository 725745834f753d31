"""The order of work of the published S4P program, written from its description (s5_pretrain.md sections 4 and 5), to measure ours against.

Three loads a step and image: a labelled one, an unlabelled one and its partner for CutMix. Each opens its file with Pillow, resizes the
whole image, pads, crops and flips it, and an unlabelled one then makes two strong views with torchvision, of which FixMatch uses one. The
network labels both unlabelled batches in evaluation mode and full precision, then learns labelled and cut-mixed strong views together.

Chance is ours: tiles, crops, colours and boxes are those that a training of tilth with the same seed draws, so that both do the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from tilth import seeds
from tilth.augment.config import CutMixConfig, StrongConfig, WeakConfig
from tilth.augment.cutmix import draw_box
from tilth.augment.strong import StrongDraw, draw_strong
from tilth.augment.weak import WeakDraw, draw_weak
from tilth.catalog.table import Catalog
from tilth.training.order import Order

IGNORED, PADDED = 255, 254
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Note = Callable[[str], None]
"""Is told when a piece of the step is done."""


@dataclass(frozen=True)
class Unlabelled:
    """A batch of the unlabelled loader: weak view, two strong ones, 255 where padded, and two boxes."""

    weak: Tensor
    strong: Tensor
    second: Tensor
    ignore: Tensor
    box: Tensor
    second_box: Tensor


class PublishedLoader:
    """Loads batches one image after the other, in this process, as each worker of the published loaders does."""

    def __init__(self, order: Order, catalogs: dict[str, Catalog], weak: WeakConfig, note: Note = lambda _piece: None) -> None:
        self.order, self.catalogs, self.weak, self.note = order, catalogs, weak, note

    def labelled(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 (B, 3, S, S) and labels int64 (B, S, S)."""
        found = [self._labelled(step, slot) for slot in range(self.order.batch_size)]
        return torch.stack([image for image, _ in found]), torch.stack([mask for _, mask in found])

    def unlabelled(self, step: int, stream: str = "unlabelled") -> Unlabelled:
        """All that the published program makes of unlabelled images; ``stream`` may be ``partner``."""
        found = [self._unlabelled(stream, step, slot) for slot in range(self.order.batch_size)]
        return Unlabelled(*(torch.stack(list(part)) for part in zip(*found, strict=True)))

    def _open(self, stream: str, step: int, slot: int) -> tuple[Image.Image, Image.Image, int]:
        tile = self.catalogs[stream].tile(self.order.index(stream, step, slot))
        image = Image.open(tile.image).convert("RGB")
        mask = Image.open(tile.label) if tile.label else Image.fromarray(np.zeros((image.height, image.width), np.uint8))
        image.load()
        mask.load()
        self.note("read")
        return image, mask, seeds.derive(self.order.seed, "draw", stream, step, slot, tile.tile_id)

    def _crop(self, image: Image.Image, mask: Image.Image, draw: int, padding: int) -> tuple[Image.Image, Image.Image]:
        plan = draw_weak(seeds.generator(draw, "weak"), image.height, image.width, self.weak)
        return (
            weak_by_pillow(image, plan, self.weak.size, 0, Image.Resampling.BILINEAR),
            weak_by_pillow(mask, plan, self.weak.size, padding, Image.Resampling.NEAREST),
        )

    def _labelled(self, step: int, slot: int) -> tuple[Tensor, Tensor]:
        image, mask, draw = self._open("labelled", step, slot)
        image, mask = self._crop(image, mask, draw, IGNORED)
        made = normalised(image), torch.from_numpy(np.array(mask)).long()
        self.note("weak view")
        return made

    def _unlabelled(self, stream: str, step: int, slot: int) -> tuple[Tensor, ...]:
        image, mask, draw = self._open(stream, step, slot)
        image, mask = self._crop(image, mask, draw, PADDED)
        weak = normalised(image)
        self.note("weak view")
        views = [normalised(strong_by_pillow(image.copy(), draw_strong(draw, StrongConfig(), view))) for view in range(2)]
        ignore = torch.from_numpy(np.array(mask)).long()
        ignore = torch.where(ignore == PADDED, IGNORED, 0)
        boxes = [box_map(draw, self.weak.size, view) for view in range(2)]
        self.note("strong view")
        return weak, *views, ignore, *boxes


def weak_by_pillow(image: Image.Image, plan: WeakDraw, size: int, padding: int, filter_: Image.Resampling) -> Image.Image:
    """Resize the whole image, pad on the right and below, crop, flip."""
    image = image.resize((plan.new_width, plan.new_height), filter_)
    right, below = max(size - image.width, 0), max(size - image.height, 0)
    image = ImageOps.expand(image, (0, 0, right, below), padding)
    image = image.crop((plan.x, plan.y, plan.x + size, plan.y + size))
    if plan.hflip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if plan.vflip else image


def strong_by_pillow(image: Image.Image, plan: StrongDraw) -> Image.Image:
    """Colour jitter and grey of torchvision, blur of Pillow, on 8-bit values."""
    operations = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    for place in plan.order if plan.jitter else ():
        image = operations[place](image, plan.factors[place])
    if plan.grayscale:
        image = TF.rgb_to_grayscale(image, num_output_channels=3)
    return image.filter(ImageFilter.GaussianBlur(plan.sigma_px)) if plan.sigma_px else image


def normalised(image: Image.Image) -> Tensor:
    """Float32 (3, H, W)."""
    return TF.normalize(TF.to_tensor(image), MEAN, STD)


def box_map(draw: int, size: int, view: int) -> Tensor:
    """Float32 (S, S), 1 inside the box."""
    found = torch.zeros(size, size)
    box = draw_box(seeds.generator(draw, "cutmix", view), size, CutMixConfig())
    if box is not None:
        y, x, height, width = box
        found[y : y + height, x : x + width] = 1
    return found


def published_step(
    network: nn.Module,
    labelled: tuple[Tensor, Tensor],
    first: Unlabelled,
    other: Unlabelled,
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    note: Note,
    threshold: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """Compute labelled and unlabelled loss, each still to be halved; ``note`` is told when a piece is done."""
    image, mask = labelled
    strong, ignore = first.strong.clone(), first.ignore.clone()
    inside = first.box == 1
    wide = inside.unsqueeze(1).expand(strong.shape)
    strong[wide] = other.strong[wide]
    note("rest")
    with torch.no_grad():
        network.eval()
        logits, logits_other = network(torch.cat([first.weak, other.weak])).detach().chunk(2)
        (confidence, target), (confidence_other, target_other) = (one.softmax(dim=1).max(dim=1) for one in (logits, logits_other))
        target[inside], confidence[inside] = target_other[inside], confidence_other[inside]
        ignore[inside] = other.ignore[inside]
    note("teacher")
    network.train()
    with autocast():
        logits_x, logits_s = network(torch.cat([image, strong])).split([len(image), len(strong)])
        note("student")
        loss_x = F.cross_entropy(logits_x, mask, ignore_index=IGNORED)
        loss_u = F.cross_entropy(logits_s, target, reduction="none")
        loss_u = loss_u * ((confidence >= threshold) & (ignore != IGNORED))
        loss_u = loss_u.sum() / (ignore != IGNORED).sum()
    note("rest")
    return loss_x, loss_u

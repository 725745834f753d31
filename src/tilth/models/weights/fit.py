"""Tensors made to fit: bands of the stem, position tables, classes. Everything is told apart by our names, so it serves every layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilth.errors import UnreadableFileError
from tilth.models.vision_transformers.positions import resize_positions
from tilth.models.vision_transformers.relative import resize_offsets
from tilth.models.weights.layouts.parts import encoder_roots

CLASS_LAYERS = ("segmentation_head.", "heads.")
"""Beginnings of names whose shapes follow the classes."""

_SHOWN = 6


@dataclass
class Fitted:
    """Tensors in the shapes of a network.

    Attributes:
        tensors: by our names; each of the shape that the network has.
        resized: what was done to a tensor, by its name.
        dropped: why a tensor was left out, by its name.
    """

    tensors: dict[str, Tensor]
    resized: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)


def fit(tensors: Mapping[str, Tensor], network: nn.Module, title: str) -> Fitted:
    """Bring tensors under our names into the shapes of a network.

    Args:
        tensors: by our names; those that the network does not have are an error of the layout and not looked at here.
        network: gives the shapes.
        title: of the source, for errors.

    Raises:
        UnreadableFileError: a tensor of another shape that no rule brings over.
    """
    state = network.state_dict()
    stems = stem_names(network)
    fitted = Fitted({})
    wrong: list[str] = []
    for name, tensor in tensors.items():
        target = state[name]
        if not _same_kind(name, tensor, target):
            raise UnreadableFileError(
                f"{title}: {name} holds {_kind(tensor)} numbers ({tensor.dtype}), the network {_kind(target)} ones; "
                "quantised or otherwise coded weights are not read: save them as float"
            )
        if tensor.shape == target.shape:
            fitted.tensors[name] = tensor
            continue
        if tensor.numel() == target.numel() == 1:  # counters of batch norm: 0-d or 1-d
            fitted.tensors[name] = tensor.reshape(target.shape)
            continue
        if name.startswith(CLASS_LAYERS):
            fitted.dropped[name] = _other_classes(tensor, target)
            continue
        if (
            name in stems
            and tensor.ndim == 4
            and tensor.shape[1]
            and tensor.shape[0] == target.shape[0]
            and tensor.shape[2:] == target.shape[2:]
        ):
            fitted.tensors[name], fitted.resized[name] = fit_bands(tensor, target.shape[1])
            continue
        resized = _fit_table(name, tensor, target, network)
        if resized is None:
            wrong.append(f"{name} {_shape(tensor)}, here {_shape(target)}")
        else:
            fitted.tensors[name], fitted.resized[name] = resized
    for name in list(fitted.dropped):  # half a class layer is none
        layer = name.rpartition(".")[0]
        for other in [other for other in fitted.tensors if other.rpartition(".")[0] == layer]:
            del fitted.tensors[other]
            fitted.dropped[other] = fitted.dropped[name]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise UnreadableFileError(
            f"{title}: {len(wrong)} of {len(tensors)} tensors have shapes of another network: {'; '.join(wrong[:_SHOWN])}{more}; "
            "build the network with the width, depth and patch of the file"
        )
    return fitted


def stem_names(network: nn.Module) -> set[str]:
    """Names of the weights that read the bands: the first convolution of each encoder, or of the whole network."""
    parts = encoder_roots(network) or {"": network}
    names: set[str] = set()
    for prefix, part in parts.items():
        first = next((name for name, module in part.named_modules() if isinstance(module, nn.Conv2d)), None)
        if first is not None:
            names.add(f"{prefix}{first}.weight" if first else f"{prefix}weight")
    return names


def fit_bands(weight: Tensor, bands: int) -> tuple[Tensor, str]:
    """Adapt the weight of a stem to another number of bands.

    Bands of the file are repeated in turn and scaled by old / new, so that an image whose bands are equal is answered alike; one band takes
    the sum of all. It is what timm and segmentation-models-pytorch do, whatever the bands mean: train on before judging the network.

    Args:
        weight: float (width, old, h, w), old at least 1; computed in float32 where it has less.
        bands: new number of bands.

    Returns:
        The weight (width, bands, h, w), and what was done.
    """
    old = weight.shape[1]
    weight = weight if weight.dtype == torch.float64 else weight.float()
    if bands == 1:
        return weight.sum(1, keepdim=True), f"{old} bands to 1: summed"
    index = torch.arange(bands, device=weight.device) % old
    how = "repeated in turn" if bands > old else f"the first {bands}"
    return weight[:, index] * (old / bands), f"{old} bands to {bands}: {how}, times {old}/{bands}"


def _fit_table(name: str, tensor: Tensor, target: Tensor, network: nn.Module) -> tuple[Tensor, str] | None:
    """Resize a table of positions; None if this is none, or one of another network."""
    if tensor.ndim != target.ndim or tensor.shape[-1] != target.shape[-1]:
        return None
    if name.endswith(("position_embedding", "pos_embed")) and tensor.ndim == 3:
        return _fit_positions(tensor, target, network.get_submodule(name.rpartition(".")[0]))
    if name.endswith(("relative_rows", "relative_columns")) and tensor.ndim == 2:
        return resize_offsets(tensor.float(), target.shape[0]), f"{tensor.shape[0]} to {target.shape[0]} offsets, bicubic"
    if name.endswith(("relative_bias", "relative_position_bias_table")) and tensor.ndim == 2:
        old, new = (math.isqrt(table.shape[0]) for table in (tensor, target))
        if old * old != tensor.shape[0] or new * new != target.shape[0]:
            return None
        return resize_window_bias(tensor, new), f"{old} x {old} to {new} x {new} offsets, bicubic"
    return None


def _fit_positions(tensor: Tensor, target: Tensor, owner: nn.Module) -> tuple[Tensor, str] | None:
    """Resize a position embedding and match whether it begins with the position of a class token."""
    old = square_grid(tensor.shape[1])
    grid = getattr(owner, "grid", None) or getattr(getattr(owner, "patch_embed", None), "grid_size", None) or square_grid(target.shape[1])
    if old is None or grid is None or target.shape[1] - grid[0] * grid[1] not in (0, 1):
        return None
    rows, columns = int(grid[0]), int(grid[1])
    actions = []
    if old != (rows, columns):
        actions.append(f"{old[0]} x {old[1]} to {rows} x {columns} positions, bicubic")
    slots, wanted = tensor.shape[1] - old[0] * old[1], target.shape[1] - rows * columns
    resized = resize_positions(tensor[:, slots:].float(), old, (rows, columns))
    if wanted:
        slot = tensor[:, :1].float() if slots else torch.zeros_like(resized[:, :1])
        resized = torch.cat([slot, resized], dim=1)
        actions += [] if slots else ["no position for the class token, so zero"]
    elif slots:
        actions.append("position of the class token cut off")
    return resized, "; ".join(actions)


def square_grid(positions: int) -> tuple[int, int] | None:
    """Tell the sides of a square grid that has so many positions, with or without a slot for a class token; None if there is none.

    Example:
        >>> square_grid(196), square_grid(197), square_grid(201)
        ((14, 14), (14, 14), None)
    """
    for slots in (0, 1):
        side = math.isqrt(max(positions - slots, 0))
        if side and side * side == positions - slots:
            return side, side
    return None


def resize_window_bias(table: Tensor, side: int) -> Tensor:
    """Resize a Swin table ((2w - 1)^2, heads) to (side^2, heads): bicubic over its two axes."""
    old = math.isqrt(table.shape[0])
    maps = table.float().t().reshape(1, -1, old, old)
    resized = F.interpolate(maps, (side, side), mode="bicubic", align_corners=False)
    return resized.flatten(2)[0].t()


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "fractional" if tensor.is_floating_point() else "whole"


def _same_kind(name: str, tensor: Tensor, target: Tensor) -> bool:
    """Whether numbers mean the same here; counters of batch norm may have gone through a cast of the whole file."""
    return _kind(tensor) == _kind(target) or (name.endswith("num_batches_tracked") and _kind(tensor) == "fractional")


def _other_classes(tensor: Tensor, target: Tensor) -> str:
    if tensor.shape[0] != target.shape[0]:
        return f"class layer of {tensor.shape[0]} classes, here {target.shape[0]}"
    return f"class layer of shape {_shape(tensor)}, here {_shape(target)}"


def _shape(tensor: Tensor) -> str:
    return " x ".join(str(side) for side in tensor.shape) or "one number"

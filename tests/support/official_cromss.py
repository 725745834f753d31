"""Weights and inputs of the CromSS fixtures: every number follows from a tensor's official name and shape.

See tests/fixtures/cromss/README.md.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cromss"


def recipe(name: str, shape: tuple[int, ...]) -> Tensor:
    """Make the tensor of an official name; integer buffers are the caller's business."""
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if not name.startswith("input:"):
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            z = 1 + 0.1 * np.abs(z)
        elif len(shape) >= 2:
            z = z * np.sqrt(1.5 / np.prod(shape[1:]))
        else:
            z = 0.1 * z
    return torch.from_numpy(np.asarray(z, dtype=np.float32))


def official_tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Fill a whole official state dict."""
    return {
        name: torch.zeros(shape, dtype=torch.int64) if name.endswith("num_batches_tracked") else recipe(name, shape)
        for name, shape in shapes.items()
    }


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a published network: ``mid2``, ``ft_pspnet``, ``uperhead``, ..."""
    stored = json.loads(gzip.decompress((FIXTURES / "manifests.json.gz").read_bytes()))
    return {key: tuple(shape) for key, shape in stored[name].items()}


def shapes_of(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Names and shapes."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

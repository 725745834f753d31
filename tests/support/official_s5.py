"""The deterministic values of the S5 fixtures, and the fixtures themselves (shared recipes of s5 and s5_finetune)."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FIXTURES = Path(__file__).parent.parent / "fixtures"
S5 = FIXTURES / "s5"
FINETUNE = FIXTURES / "s5_finetune"

COUNTERS = ("num_batches_tracked", "relative_position_index")


def normal(key: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers that depend on the key and the shape alone, float32."""
    return torch.from_numpy(np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32))


def model_value(key: str, shape: tuple[int, ...], recipe: str = "A") -> Tensor:
    """Value of the tensor with this official name; recipe B scales convolutions by their fan-in. Counters are zero."""
    if key.endswith(COUNTERS[0]):
        return torch.zeros(shape, dtype=torch.int64)
    if recipe == "B" and len(shape) == 4:
        return normal(key, shape) / np.float32(math.sqrt(math.prod(shape[1:])))
    if key.endswith("running_var") or (len(shape) == 1 and key.endswith("weight")):
        return 1 + np.float32(0.1) * normal(key, shape).abs()
    return np.float32(0.02) * normal(key, shape)


def fill(network: nn.Module, to_theirs: Callable[[str], str | None], recipe: str = "A") -> None:
    """Give every tensor of a network the value of its official name; tensors without one, and counters, stay as they are."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            key = to_theirs(name)
            if key is not None and not key.endswith(COUNTERS):
                tensor.copy_(model_value(key, tuple(tensor.shape), recipe))


def official_tensors(shapes: Mapping[str, list[int] | tuple[int, ...]], recipe: str = "A") -> dict[str, Tensor]:
    """All tensors of a published file, made by the recipe; relative_position_index, which is computed, left out."""
    return {key: model_value(key, tuple(shape), recipe) for key, shape in shapes.items() if not key.endswith(COUNTERS[1])}


def manifest(path: Path) -> dict[str, tuple[int, ...]]:
    """Official names and shapes from a manifest of either folder."""
    found = read_json(path)
    return {key: tuple(shape) for key, shape in found["tensors" if "tensors" in found else "shapes"].items()}


def read_json(path: Path) -> Any:
    """A JSON file, compressed or not."""
    return json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_text())


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file."""
    with np.load(path) as found:
        return {name: found[name] for name in found.files}


def assert_statistics(tensor: Tensor, expected: Mapping[str, Any]) -> None:
    """Mean, deviation, extremes, mean absolute value, first and last element: relative 1e-4, with a floor of 1e-5 (recipe, section 3)."""
    values = tensor.detach().double()
    assert list(tensor.shape) == expected["shape"]
    found = {
        "mean": values.mean(),
        "std": values.std(unbiased=False),
        "min": values.min(),
        "max": values.max(),
        "l1": values.abs().mean(),
        "first": values.flatten()[0],
        "last": values.flatten()[-1],
    }
    for name, value in found.items():
        wanted = expected[name]
        tolerance = max(1e-4 * abs(wanted), 1e-5 if name not in ("first", "last") else 1e-4)
        assert abs(float(value) - wanted) <= tolerance, (name, float(value), wanted)


def assert_near(found: Tensor, expected: NDArray[Any], largest: float, mean: float | None = None) -> None:
    """Largest absolute difference, and the mean of it, which shows small errors of one stage."""
    difference = (found.detach().double() - torch.from_numpy(np.asarray(expected, dtype=np.float64))).abs()
    assert float(difference.max()) <= largest, f"largest difference {float(difference.max()):.2e} above {largest:.0e}"
    if mean is not None:
        assert float(difference.mean()) <= mean, f"mean difference {float(difference.mean()):.2e} above {mean:.0e}"

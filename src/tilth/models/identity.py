"""Which model it was: one number that tells models apart, for provenance."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from safetensors.torch import save

from tilth.imagery.write import json_text

if TYPE_CHECKING:
    from tilth.models.classifier import PixelClassifier


def model_hash(model: PixelClassifier) -> str:
    """Hash weights and configuration of a model, wherever it lies and on whatever device.

    For a model folder that this version of tilth wrote it is what ``cat model.safetensors config.json | sha256sum`` says.

    Args:
        model: a Segmenter, or anything with weights (``state_dict``), sensor and scheme.

    Returns:
        SHA-256, 64 hexadecimal digits.
    """
    values: dict[str, Any] = model.state_dict()
    tensors = {name: value.detach().to("cpu").contiguous() for name, value in values.items()}
    found = hashlib.sha256(save(tensors, metadata={"format": "pt"}))
    config = getattr(model, "config", None)
    tree = config.model_dump(mode="json") if config is not None else [part.model_dump(mode="json") for part in (model.sensor, model.scheme)]
    found.update(json_text(tree).encode())
    return found.hexdigest()

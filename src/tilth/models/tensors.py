"""Tensors out: one safetensors file in one go; see :func:`tilth.imagery.files.atomic_path`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tilth.errors import TilthError
from tilth.imagery.files import atomic_path


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write named tensors, contiguous and on the CPU, with a header of text.

    Raises:
        TilthError: the place cannot be written to, or the disk is full.
    """
    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
        except SafetensorError as error:
            reason = str(error).removeprefix("Error while serializing: ").removeprefix("I/O error: ")
            raise TilthError(f"{path}: cannot be written: {reason}") from error

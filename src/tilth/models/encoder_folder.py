"""Encoder folder: what a training without labels leaves. It knows its sensor and how to build its network, and no classes.

``config.json`` and ``model.safetensors``, as in a model folder, but nothing can be predicted with it: it is what a training of a
Segmenter starts from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tilth.config import Config
from tilth.errors import MissingFileError, UnreadableFileError
from tilth.imagery.write import write_json
from tilth.models.config import NetworkConfig
from tilth.models.folder import CONFIG_FILE, WEIGHTS_FILE, read_folder_config
from tilth.models.segmenter import Segmenter
from tilth.models.tensors import save_tensors
from tilth.models.weights.fit import fit
from tilth.sensors import Sensor

MODEL_TYPE: Literal["tilth-encoder"] = "tilth-encoder"
ENCODER_SCHEMA_VERSION = 1

ENCODER = "encoder."
"""Beginning of the names of a network's encoder."""

_SHOWN = 300


class EncoderConfig(Config):
    """Everything that ``config.json`` of an encoder folder holds.

    Attributes:
        network: how to build the network whose encoder this is.
        sensor: what it sees.
        left_out: beginnings of names in the encoder whose weights are not there, since they were not trained.
    """

    model_type: Literal["tilth-encoder"] = MODEL_TYPE
    schema_version: int = ENCODER_SCHEMA_VERSION
    network: NetworkConfig
    sensor: Sensor
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderWeights:
    """An encoder folder that was read.

    Attributes:
        config: network and sensor.
        tensors: on the CPU, by the names of the network, ``encoder.`` in front.
    """

    config: EncoderConfig
    tensors: dict[str, Tensor]

    def fill(self, model: Segmenter) -> None:
        """Put the weights into a Segmenter of the same network; what they leave out, decoder and classes stay as they are.

        Bands and tables of positions are fitted as :func:`tilth.models.load_weights` fits them; all of it is copied, or nothing.

        Raises:
            UnreadableFileError: another network.
        """
        state = model.network.state_dict()
        may_lack = tuple(f"{ENCODER}{name}" for name in self.config.left_out)
        unknown = [name for name in self.tensors if name not in state]
        missing = [name for name in state if name.startswith(ENCODER) and name not in self.tensors and not name.startswith(may_lack)]
        if unknown or missing:
            named = ", ".join([*unknown, *missing])[:_SHOWN]
            raise UnreadableFileError(f"the weights of the encoder do not fit {model.config.network.title}: {named}")
        fitted = fit(self.tensors, model.network, "the weights of the encoder").tensors
        # Checked as a whole, so no model is ever half loaded.
        with torch.no_grad():
            for name, tensor in fitted.items():
                state[name].copy_(tensor)


def save_encoder(model: Segmenter, folder: str | Path, left_out: tuple[str, ...] = ()) -> Path:
    """Write the encoder of a Segmenter; each file is replaced in one go, and the same weights give the same bytes.

    Args:
        model: the Segmenter; its decoder and class layer are not written.
        folder: where to; made if it is missing.
        left_out: beginnings of names in the encoder that are not written either, because they hold nothing that was trained.

    Returns:
        The folder.

    Raises:
        TilthError: the place cannot be written to, or the disk is full.
    """
    target = Path(folder)
    skipped = tuple(f"{ENCODER}{name}" for name in left_out)
    tensors = {
        name: value.detach().to("cpu").contiguous()
        for name, value in model.network.state_dict().items()
        if name.startswith(ENCODER) and not name.startswith(skipped)
    }
    config = EncoderConfig(network=model.config.network, sensor=model.sensor, left_out=left_out)
    save_tensors(target / WEIGHTS_FILE, tensors, {"format": "pt"})
    write_json(target / CONFIG_FILE, config.model_dump(mode="json"))
    return target


def load_encoder(folder: str | Path) -> EncoderWeights:
    """Read what :func:`save_encoder` wrote.

    Args:
        folder: an encoder folder, or a run folder that holds one in ``model/``.

    Raises:
        MissingFileError: no encoder folder there.
        UnreadableFileError: damaged, or of a newer schema.
    """
    place = Path(folder)
    if not (place / CONFIG_FILE).is_file() and (place / "model" / CONFIG_FILE).is_file():
        place = place / "model"
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (place / name).is_file():
            raise MissingFileError(f"{place}: not an encoder folder, {name} is missing; give a run of tilth pretrain mae")
    config = read_folder_config(place / CONFIG_FILE, EncoderConfig, MODEL_TYPE, ENCODER_SCHEMA_VERSION)
    try:
        return EncoderWeights(config, load_file(place / WEIGHTS_FILE))
    except (SafetensorError, OSError) as error:
        raise UnreadableFileError(f"{place / WEIGHTS_FILE}: damaged weights: {error}") from None

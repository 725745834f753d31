"""Segmenter: a network together with the sensor it sees and the classes it tells apart; saved as a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tilth import seeds
from tilth.augment.normalise import normalise
from tilth.errors import MissingFileError, SensorMismatchError, UnreadableFileError
from tilth.imagery.write import write_json
from tilth.models.config import MODEL_SCHEMA_VERSION, NetworkConfig, SegmenterConfig
from tilth.models.folder import CONFIG_FILE, WEIGHTS_FILE, read_folder_config
from tilth.models.network import SegmentationNetwork
from tilth.models.networks import build_network, for_sensor, resolve
from tilth.models.tensors import save_tensors

if TYPE_CHECKING:
    from tilth.classes import ClassScheme
    from tilth.sensors import Sensor


class Segmenter(nn.Module):
    """A network that turns normalised tiles into per-pixel class logits.

    Attributes:
        config: network, sensor and class scheme; all that prediction needs besides the weights.
        network: parts ``encoder``, ``decoder`` and ``segmentation_head``.

    Example:
        >>> from tilth.classes import ClassScheme, LandClass
        >>> from tilth.sensors import get_sensor
        >>> classes = (LandClass(name="land", colour=(9, 9, 9)), LandClass(name="water", colour=(0, 0, 255)))
        >>> scheme = ClassScheme(name="wet", classes=classes)
        >>> model = build_segmenter(NetworkConfig(encoder="resnet10t"), get_sensor("s1"), scheme).eval()
        >>> tuple(model(torch.zeros(1, 2, 50, 70)).shape)
        (1, 2, 50, 70)
    """

    def __init__(self, config: SegmenterConfig, network: SegmentationNetwork) -> None:
        super().__init__()
        self.config = config
        self.network = network

    @property
    def sensor(self) -> Sensor:
        """The sensor whose tiles this model understands."""
        return self.config.sensor

    @property
    def scheme(self) -> ClassScheme:
        """The classes this model tells apart."""
        return self.config.scheme

    def encode(self, image: Tensor) -> list[Tensor]:
        """Turn images (B, C, H, W), sides multiples of what the network takes, into feature maps, finest first."""
        return self.network.encode(image)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Turn feature maps into logits (B, K, H, W) at the size of the encoded image."""
        return self.network.decode(features)

    @property
    def takes_origins(self) -> bool:
        """Whether the network wants to know where an image lies; others are told nothing of it."""
        return self.network.takes_origins

    def forward(self, image: Tensor, origins: Tensor | None = None) -> Tensor:
        """Compute class logits.

        Args:
            image: float (B, C, H, W), normalised, bands in sensor order; any H and W (padded by repeating the border, then cropped).
            origins: int64 (B, 2), row and column of the first pixel of each image in its raster; zeros by default. Looked at only where
                :attr:`takes_origins`: networks that add noise to an image add the same to a place in whichever window it is seen.

        Returns:
            Logits float (B, K, H, W).

        Raises:
            SensorMismatchError: the number of bands is not the sensor's.
        """
        if image.ndim != 4 or image.shape[1] != len(self.sensor):
            raise SensorMismatchError(
                f"got an image of shape {tuple(image.shape)}; sensor {self.sensor.name!r} has {len(self.sensor)} bands: "
                f"expected (B, {len(self.sensor)}, H, W)"
            )
        return cast("Tensor", self.network(image, origins) if self.takes_origins else self.network(image))

    def normalise(self, stored: Tensor, valid: Tensor | None = None) -> Tensor:
        """Turn stored values (B, C, H, W) into network input; see :func:`tilth.augment.normalise.normalise`."""
        return normalise(stored, valid, self.sensor)

    def save(self, folder: str | Path) -> Path:
        """Write the model folder: ``config.json`` and ``model.safetensors``, each replaced in one go.

        Returns:
            The folder.

        Raises:
            TilthError: the place cannot be written to, or the disk is full.
        """
        target = Path(folder)
        # One tensor a name, on the CPU and contiguous: the same weights give the same bytes wherever they were trained.
        tensors = {name: value.detach().to("cpu").contiguous() for name, value in self.state_dict().items()}
        save_tensors(target / WEIGHTS_FILE, tensors, {"format": "pt"})
        write_json(target / CONFIG_FILE, self.config.model_dump(mode="json"))
        return target

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Segmenter:
        """Read a model folder, in evaluation mode.

        Args:
            folder: a model folder, or a run folder that holds one in ``model/``.
            device: where to put the weights.

        Raises:
            MissingFileError: no model folder there.
            UnreadableFileError: damaged, of a newer schema, or weights that do not fit the network.
        """
        place = Path(folder)
        if not (place / CONFIG_FILE).is_file() and (place / "model" / CONFIG_FILE).is_file():
            place = place / "model"
        elif not (place / CONFIG_FILE).is_file() and (place / "checkpoints").is_dir():
            raise MissingFileError(f"{place}: this run is not finished and holds no model yet; go on with --resume")
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (place / name).is_file():
                raise MissingFileError(
                    f"{place}: not a model folder, {name} is missing; give a folder that tilth pretrain or finetune wrote"
                )
        config = _read_config(place / CONFIG_FILE)
        network = for_sensor(config.network.model_copy(update={"pretrained": False}), config.sensor)
        with torch.random.fork_rng(devices=[]):  # fresh weights, replaced at once, would draw from the caller's random state
            model = cls(config, build_network(network, len(config.sensor), len(config.scheme)))
        try:
            model.load_state_dict(load_file(place / WEIGHTS_FILE))
        except (SafetensorError, OSError) as error:
            raise UnreadableFileError(f"{place / WEIGHTS_FILE}: damaged weights: {error}") from None
        except RuntimeError as error:
            raise UnreadableFileError(
                f"{place}: the weights do not fit the network of {CONFIG_FILE}: {' '.join(str(error).split())[:300]}"
            ) from None
        return model.to(device).eval()


def build_segmenter(network: NetworkConfig, sensor: Sensor, scheme: ClassScheme, seed: int = 0) -> Segmenter:
    """Build a Segmenter with fresh (or, if asked for, published) weights.

    Args:
        network: which one.
        sensor: gives the number of input bands and the normalisation, and their wavelengths to networks that look at them.
        scheme: gives the number of classes.
        seed: fresh weights are a pure function of this and the configuration; the global random state is left as it was.

    Returns:
        The model in training mode, on the CPU.
    """
    network = for_sensor(network, sensor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "weights"))
        module = build_network(network, len(sensor), len(scheme))
    return Segmenter(SegmenterConfig(network=resolve(network), sensor=sensor, scheme=scheme), module)


def _read_config(file: Path) -> SegmenterConfig:
    others = {
        "tilth-network": "a network alone, without sensor and classes; read it with tilth.models.folder.load_network, or take the part "
        f"of a fusion network for one sensor: tilth import-weights {file.parent} --take s2 --as cromss_unet_resnet50",
        "tilth-encoder": "an encoder alone, whose decoder and classes nobody trained; train them onto it first: "
        "tilth finetune segment --initial-weights FOLDER",
    }
    return read_folder_config(file, SegmenterConfig, "tilth-segmenter", MODEL_SCHEMA_VERSION, others)

"""The network of a training that starts from weights: what these bring, what may be wished for, and which wishes are not heard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tilth.errors import UsageError
from tilth.verbs.train_options import TrainOptions

if TYPE_CHECKING:
    from tilth.models.config import NetworkConfig
    from tilth.sensors import Sensor

DIFFUSION = "ddpm_segmentor"
"""The network whose encoder is a noise predictor."""


def with_wishes(network: NetworkConfig, wished: NetworkConfig) -> NetworkConfig:
    """The network that an encoder was trained in; of a noise predictor's maps, other ones may be wished for."""
    if not network.name == wished.name == DIFFUSION:
        return network
    from tilth.models.diffusion.segmentation import other_use

    return network.model_copy(update={"options": other_use(network.options, wished.options)})


def with_predictor(options: TrainOptions, place: Path) -> TrainOptions:
    """Ask for the noise predictor that a folder holds as a network alone.

    Raises:
        UsageError: it holds another kind of network.
    """
    from tilth.models.folder import read_network_config
    from tilth.models.named import NAMES

    found = read_network_config(place).network
    if NAMES[found.name].kind != "diffusion":
        raise UsageError(f"{place}: holds {found.name}, and {DIFFUSION} starts from a noise predictor; give a folder of one")
    mine = {"unet": found.name, "unet_options": dict(found.options)}
    network = options.network.model_copy(update={"options": {**options.network.options, **mine}})
    return options.model_copy(update={"network": network})


def unheard(options: TrainOptions, place: Path, network: NetworkConfig, sensor: Sensor) -> list[str]:
    """Say that settings of the network are of no use where a folder brings it."""
    from tilth.models.networks import for_sensor

    if options.network.name == network.name == DIFFUSION:
        # The rest of its options are completed here as the folder's are, so only those that somebody gave can differ.
        given = [f"network.options.{name}" for name, value in options.network.options.items() if network.options.get(name) != value]
        return [f"{place}: brings its noise predictor; {', '.join(given)}: not looked at"] if given else []
    if "network" in options.model_fields_set and for_sensor(options.network, sensor) != network:
        return [f"{place}: brings its network, {network.title}; network.* settings are not looked at"]
    return []

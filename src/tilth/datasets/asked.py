"""What was asked for in place of what a card says: sensor and class scheme, refused where they cannot be those of what is stored."""

from __future__ import annotations

from tilth.classes import ClassScheme, get_scheme, scheme_names
from tilth.datasets.config import Card, Layer
from tilth.datasets.options import PrepareConfig
from tilth.errors import ConfigError, UsageError
from tilth.sensors import Sensor, get_sensor


def asked_scheme(card: Card, config: PrepareConfig) -> ClassScheme | None:
    """Return the scheme that was asked for in place of the card's, which must have as many classes; None where none was.

    Raises:
        UsageError: another number of classes, a published scheme of other classes, or a card without labels.
    """
    if config.scheme is None:
        return None
    if not card.labels:
        raise UsageError(f"data set {card.name!r} has no labels here; leave --scheme out")
    scheme, own = get_scheme(config.scheme), card.labels[0].classes
    if own and len(own) != len(scheme):
        raise UsageError(f"--scheme {config.scheme}: {len(scheme)} classes, data set {card.name!r} has {len(own)}; give as many, in order")
    # Classes are renamed by position here, and who names a published scheme would expect them to be translated.
    if own and config.scheme in scheme_names() and set(own) != set(scheme.names):
        raise UsageError(
            f"--scheme {config.scheme}: other classes than data set {card.name!r} has, {', '.join(list(own)[:3])}, ...; --scheme orders "
            "and names classes, and translates none; a file gives them names of your own"
        )
    return scheme


def asked_sensor(card: Card, layer: Layer | None, config: PrepareConfig) -> Sensor:
    """Return the sensor of all images: the card's, or what was asked for in its place.

    Args:
        card: of the data set.
        layer: that was chosen; None where the card has stores.
        config: what was asked for.

    Raises:
        ConfigError: no sensor where the card leaves it open.
        UsageError: a sensor that cannot be that of the stored numbers, or options that stores do not have.
    """
    if layer is None:
        assert card.stores is not None
        if config.layer is not None:
            raise UsageError(f"data set {card.name!r} has no layers: its stores hold all bands; leave --layer out")
        if config.window_px or config.stride_px or config.edge:
            raise UsageError(f"data set {card.name!r}: the tiles of its stores stay whole; leave --window-px, --stride-px and --edge out")
        return _stored_sensor(card, config.sensor, card.stores.sensor())
    own = layer.find_sensor()
    sensor = get_sensor(config.sensor) if config.sensor is not None else own
    if sensor is None:
        raise ConfigError(f"data set {card.name!r} leaves the sensor open; give --sensor, such as rgb: it fixes band order and scaling")
    if own is not None:
        _check_order(card, config.sensor, sensor, own)
    return sensor


def _stored_sensor(card: Card, asked: str | None, own: Sensor) -> Sensor:
    """Return the sensor of stored numbers, or another reading of the same numbers that was asked for."""
    sensor = own if asked is None else get_sensor(asked)
    if (len(sensor), sensor.dtype) != (len(own), own.dtype):
        raise UsageError(
            f"--sensor {asked}: {len(sensor)} bands of {sensor.dtype}, stores of {card.name!r} hold {len(own)} of {own.dtype} ({own.name})"
        )
    _check_order(card, asked, sensor, own)
    return sensor


def _check_order(card: Card, asked: str | None, sensor: Sensor, own: Sensor) -> None:
    """Refuse the same bands in another order than they are stored in; who names them otherwise knows what they are."""
    if sensor.band_names != own.band_names and sorted(sensor.band_names) == sorted(own.band_names):
        raise UsageError(f"--sensor {asked}: data set {card.name!r} holds its bands in another order: {', '.join(own.band_names)}")

"""What stored label values and attribute values mean in the class scheme of a build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tilth.catalog.config import BuildConfig
from tilth.classes import IGNORE_INDEX, ClassScheme, get_scheme, scheme_names, stored_values
from tilth.config import read_yaml
from tilth.errors import ConfigError, DataError, suggest

if TYPE_CHECKING:
    from tilth.imagery.label_codes import LabelCodes

_IGNORE = "ignore"
_LISTED = 20


def raster_codes(config: BuildConfig, scheme: ClassScheme) -> LabelCodes | None:
    """Say what the stored values of label rasters become: ``label_codes``, then the mapping from ``label_scheme``.

    Returns:
        Codes that lead to ids of ``scheme``; None where values are ids of it already.

    Raises:
        ConfigError: a class that is not there, ids outside of the scheme, or a mapping that is missing or not complete.
        MissingFileError: no such file of codes or scheme.
    """
    from tilth.imagery.label_codes import LabelCodes

    followed = label_scheme(config, scheme)
    mapping = None if followed == scheme else scheme.mapping_from(followed)
    if config.label_codes is None:
        return None if mapping is None else LabelCodes(values=mapping)
    named = isinstance(config.label_codes, str)
    source = str(config.label_codes) if named else "label_codes"
    tree = _read_codes(config.label_codes)
    for key in ("values", "colours"):
        if isinstance(tree.get(key), Mapping):
            tree[key] = {stored: _id_of(target, followed, source) for stored, target in tree[key].items()}
    codes = LabelCodes.parse(tree, source=source)
    beyond = sorted(target for target in codes.targets if target != IGNORE_INDEX and target >= len(followed))
    if beyond:
        raise ConfigError(f"{source}: class {beyond[0]} is not in scheme {followed.name!r}, which has classes 0 to {len(followed) - 1}")
    if mapping is None:
        return codes
    return codes.model_copy(
        update={
            "values": {stored: mapping[target] for stored, target in codes.values.items()},
            "colours": {stored: mapping[target] for stored, target in codes.colours.items()},
        }
    )


def _read_codes(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return codes as they were given, as a file says, or as the product of a built-in scheme stores its classes."""
    if not isinstance(given, str):
        return dict(given)
    if given not in scheme_names():
        return read_yaml(given)
    names, stored = get_scheme(given).names, stored_values(given)
    if not stored:
        raise ConfigError(f"label_codes: {given!r} is stored as class ids, which need no codes; give label_scheme={given} instead")
    return {"values": {value: _IGNORE if place == IGNORE_INDEX else names[place] for value, place in stored.items()}}


def label_scheme(config: BuildConfig, scheme: ClassScheme) -> ClassScheme:
    """Return the scheme that labels follow; by default that whose codes they hold, or that of the build."""
    named = config.label_scheme
    if named is None and isinstance(config.label_codes, str) and config.label_codes in scheme_names():
        named = config.label_codes
    return scheme if named is None else get_scheme(named)


def attribute_ids(counts: Mapping[str, int], source: str, config: BuildConfig, scheme: ClassScheme) -> dict[str, int]:
    """Say what class each attribute value of polygons is.

    Args:
        counts: number of features by attribute value, as text.
        source: file and column, for messages.
        config: ``label_values``, ``label_scheme``.
        scheme: of the build.

    Returns:
        Id of ``scheme``, or 255, by value.

    Raises:
        DataError: values without a counterpart; all are listed.
        ConfigError: ``label_values`` names a class that is not there, or a mapping is missing or not complete.
    """
    followed = label_scheme(config, scheme)
    mapping = None if followed == scheme else scheme.mapping_from(followed)
    listed = {value: _id_of(name, followed, f"label_values.{value}") for value, name in config.label_values.items()}
    by_name = {name.casefold(): place for place, name in enumerate(followed.names)}
    # Listed values are a code of their own; what it leaves out must not be taken for ids of the scheme.
    codes = stored_values(config.label_scheme or config.scheme or "") or {place: place for place in (*range(len(followed)), IGNORE_INDEX)}
    by_id = {} if listed else {str(value): place for value, place in codes.items()}
    found = {value: listed.get(value, by_name.get(value.casefold(), by_id.get(value))) for value in counts}
    unknown = [value for value, place in found.items() if place is None]
    if unknown:
        shown = ", ".join(f"{value!r} ({counts[value]} features)" for value in unknown[:_LISTED])
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        raise DataError(
            f"{source}: {len(unknown)} of {len(counts)} values have no class: {shown}{more}; "
            f"say what they are with label_values.VALUE=CLASS, or ignore; for {unknown[0]!r}: {suggest(unknown[0], followed.names)}"
        )
    ids = {value: place for value, place in found.items() if place is not None}
    return ids if mapping is None else {value: mapping[place] for value, place in ids.items()}


def outside_id(config: BuildConfig, scheme: ClassScheme) -> int:
    """Say what pixels become that no polygon covers: an id of the scheme, or 255.

    Raises:
        ConfigError: there is no such class.
    """
    place: int = _id_of(config.outside, scheme, "outside")
    return place


def _id_of(name: Any, scheme: ClassScheme, source: str) -> Any:
    """Turn a class name (in any case), ``ignore``, or an id as text into an id; leave anything else to validation."""
    if not isinstance(name, str):
        return name
    by_name = {known.casefold(): place for place, known in enumerate(scheme.names)}
    if name.casefold() in by_name:
        return by_name[name.casefold()]
    if name.casefold() == _IGNORE:
        return IGNORE_INDEX
    if name.isascii() and name.isdigit() and (int(name) < len(scheme) or int(name) == IGNORE_INDEX):
        return int(name)
    raise ConfigError(f"{source}: scheme {scheme.name!r} has no class {name!r}; {suggest(name, (*scheme.names, _IGNORE))}")

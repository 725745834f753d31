"""What is to be watched out for in imagery; each finder gives (key, weight, one line)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tilth.catalog.inspect import bands, names
from tilth.catalog.inspect.ground import ground_pixel_m
from tilth.catalog.inspect.inspection import DataSet
from tilth.catalog.inspect.roles import Part
from tilth.catalog.inspect.sensor_guess import raised_images
from tilth.catalog.suspicion import order_suspicions, scale_suspicions
from tilth.errors import MissingExtraError
from tilth.imagery.black_border import find_black_border

Found = Iterator[tuple[str, int, str]]

_BORDER_SIDE = 1024


def band_order(data: DataSet) -> Found:
    """Bands that seem to come in another order than the proposed sensor's."""
    for part, proposal in zip(data.images, data.proposals, strict=True):
        if part.sample is not None and proposal is not None:
            for doubt in order_suspicions(part.sample.statistics, proposal.sensor):
                yield "band order", 82, f"Colours may be wrong ({part.group.title}): {doubt}"


def scale(data: DataSet) -> Found:
    """Numbers that are not what the sensor expects."""
    for part, proposal in zip(data.images, data.proposals, strict=True):
        sample = part.sample
        if sample is None or proposal is None:
            continue
        title = part.group.title
        if "65535" in proposal.scale:
            yield "scale", 83, f"Every reflectance would be 6.6 times too high: {title} holds {proposal.scale}, by its brightness"
        elif "scaled per band" in proposal.scale:
            yield "scale", 83, f"The numbers of {title} are no reflectance: {proposal.reasons[0]}; sensors of reflectance do not fit"
        elif not raised_images(part):
            for doubt in scale_suspicions(sample.statistics, proposal.sensor):
                yield "scale", 78, f"The scale may be wrong ({title}): {doubt}"
        raised = [Path(item.info.uri).stem for item in raised_images(part)] if "x 10000" in proposal.scale else []
        if raised and len(raised) == len([item for item in sample.statistics if item.bands]):
            yield (
                "offset",
                79,
                f"Reflectance would be 0.1 too high in {title}: the offset of 1000 of newer products is in; the starter takes it out",
            )
        elif raised:
            sure = "B10" in bands.sentinel2_names(part.group.band_names)
            seen = "B10 lies near 1000, not near 0" if sure else "no band is darker than about 1000, unless all is bright ground"
            yield (
                "mixed baseline",
                79 if sure else 51,
                f"{len(raised)} of {len(sample.statistics)} images of {title} may be 0.1 too bright against the others: {seen}, as with "
                f"the offset of newer products ({', '.join(raised[:3])})",
            )
        negative = [band for band, value in zip(part.group.band_names, sample.extreme("minimum"), strict=True) if value < 0]
        if negative and proposal.physical and "reflectance" in proposal.scale:
            yield (
                "negative reflectance",
                15,
                f"Negative numbers of {title} are valid: surface reflectance can fall a little below 0 over water and shadow",
            )


def composites(data: DataSet) -> Found:
    """8-bit pictures where physical units are expected, and bands of two dates in one file."""
    for part, proposal in zip(data.images, data.proposals, strict=True):
        group = part.group
        pixel = ground_pixel_m(group.infos[0])
        satellite = group.words & (names.SENTINEL2_WORDS | names.RADAR_WORDS | {"hls", "landsat"}) or 8 <= (pixel or 0) <= 100
        if proposal is not None and group.dtype == "uint8" and satellite:
            unit = "decibels" if bands.says_radar(group.words, group.band_names) else "reflectance"
            yield (
                "8-bit composite",
                76,
                f"Models trained on {unit} will not fit {group.title}: 8-bit pictures, stretched for the eye, without a physical unit",
            )
        if bands.dates_stacked(group.band_names):
            yield (
                "dates stacked",
                62,
                f"{group.title} holds two dates in one file (bands {', '.join(group.band_names)}): labels may be of either",
            )


def no_data(data: DataSet) -> Found:
    """Empty pixels that no file declares, and declared ones that matter."""
    for part in data.images:
        sample, group = part.sample, part.group
        if sample is None:
            continue
        if group.dtype == "uint8" and group.count >= 3:
            black = [
                item.info.uri
                for item in sample.statistics
                if item.bands and max(band.p02 for band in item.bands) <= 12 and _is_black(item.info.uri)
            ]
            if black:
                yield (
                    "black border",
                    74,
                    f"Training would learn emptiness: {_some(black, part)} black surroundings and no nodata value "
                    "(gdal_edit.py -a_nodata 0 FILE)",
                )
                continue
        void = [item for item in sample.statistics if not item.bands]
        flat = [item for item in sample.statistics if item.bands and all(band.distinct == 1 for band in item.bands)]
        if flat:
            name = Path(flat[0].info.uri).name
            yield (
                "constant image",
                61,
                f"{len(flat)} of {len(sample.statistics)} images of {group.title} show one value only, such as {name}",
            )
        if void:
            yield (
                "empty image",
                63,
                f"{len(void)} of {len(sample.statistics)} images of {group.title} are empty, such as {Path(void[0].info.uri).name}",
            )
        if sample.empty_edges:
            yield (
                "empty edge",
                73,
                f"Training would learn emptiness: {_some(sample.empty_edges, part)} an empty edge of zeros and no nodata value "
                "(gdal_edit.py -a_nodata 0 FILE)",
            )
        tagged = {info.nodata for info in group.infos}
        frequent = {
            value: share for value, share in sample.fillers.items() if value not in tagged and not (group.dtype == "uint8" and value == 255)
        }
        for value, share in frequent.items():
            if not (value == 0 and sample.empty_edges) and (share > 0.01 or value not in {0, 255}):
                yield (
                    "untagged nodata",
                    68,
                    f"{100 * share:.1f} % of the pixels of {group.title} may be empty: {value} in every band, no file calls that nodata",
                )
        declared = sorted(value for value in tagged if value is not None)
        empty = sum(1 - item.valid_share for item in sample.statistics) / max(1, len(sample.statistics))
        if declared:
            shown = ", ".join(f"{value:g}" for value in declared)
            some = f", {100 * empty:.1f} % of the pixels" if empty >= 0.001 else ", hardly any pixel here"
            yield "nodata", 18, f"Pixels without data count nowhere: {group.title} declares nodata {shown}{some}"


def _is_black(uri: str) -> bool:
    try:
        return find_black_border(uri, _BORDER_SIDE) is not None
    except MissingExtraError:
        # Plain pictures can be inspected without the extra.
        return False


def _some(uris: Sequence[str], part: Part) -> str:
    if len(uris) == 1:
        return f"{Path(uris[0]).name} has"
    looked = part.sample.statistics if part.sample is not None else ()
    return f"{len(uris)} of {len(looked)} images of {part.group.title} (such as {Path(uris[0]).name}) have"


def odd_bands(data: DataSet) -> Found:
    """Bands that are no measurement of the surface, and scene classifications."""
    for part in data.parts:
        if part.role == "quality" and "scl" in {*part.group.words, *(name.lower() for name in part.group.band_names)}:
            yield (
                "scene classification",
                19,
                f"Clouds are not masked for you: {part.group.title} tells clouds (8 to 10) from vegetation (4), bare (5), water (6); "
                "its classes may serve as a noisy label",
            )
    for part in data.images:
        group = part.group
        assert part.sample is not None
        for place in part.sample.opaque:
            yield "alpha band", 77, f"Band {place + 1} of {group.title} tells nothing: the same value throughout, an alpha channel perhaps"
        flags = [group.band_names[place] for place in bands.quality_bands(group.band_names)]
        if flags and group.count > 1:
            high = part.sample.extreme("maximum")[bands.quality_bands(group.band_names)[0]]
            yield (
                "quality band",
                52,
                f"{group.title} carries {', '.join(flags)} as a band (values to {high:g}): flags or probabilities, no measurement",
            )
        terrain = [group.band_names[place] for place in bands.terrain_bands(group.band_names)]
        if terrain and group.count > len(terrain):
            yield (
                "terrain band",
                30,
                f"{group.title} mixes {', '.join(terrain)} with optical bands: the starter keeps colour changes away (kind: other)",
            )

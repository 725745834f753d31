"""The classes of synthetic landscapes."""

from __future__ import annotations

from tilth.classes import ClassScheme, LandClass

WATER, TREES, CROPLAND, GRASSLAND, BARE, ROAD, BUILDING = range(7)

_SCHEME = ClassScheme(
    name="landscape",
    classes=(
        LandClass(name="water", colour=(0, 100, 200)),
        LandClass(name="trees", colour=(0, 100, 0)),
        LandClass(name="cropland", colour=(240, 150, 255)),
        LandClass(name="grassland", colour=(170, 220, 60)),
        LandClass(name="bare", colour=(180, 180, 180)),
        LandClass(name="road", colour=(90, 60, 40)),
        LandClass(name="building", colour=(220, 30, 30)),
    ),
)


def landscape_scheme() -> ClassScheme:
    """Return the seven classes of a synthetic landscape.

    Use decides, not colour: a ploughed or fallow field is cropland, a mown meadow grassland, a gravel yard or farm track road;
    trees are forests, hedges and single crowns; bare is rock, gravel bars and pits; bridges are road.

    Example:
        >>> landscape_scheme().names
        ('water', 'trees', 'cropland', 'grassland', 'bare', 'road', 'building')
    """
    return _SCHEME

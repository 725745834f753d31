"""The sidecar that names the classes of a raster, as GDAL and desktop tools read it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tilth.classes import Colour

# Name, type (0 integer, 2 text) and usage of the fields of an attribute table, in GDAL's numbers.
_TABLE_FIELDS = (("Value", 0, 5), ("Count", 0, 1), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))


def legend_xml(class_names: tuple[str, ...], colours: tuple[Colour, ...], counts: NDArray[np.int64] | None) -> str:
    """Return the GDAL sidecar that names the classes: desktop tools show them in the legend; TIFF itself has no place for them.

    Args:
        class_names: by value.
        colours: 8-bit RGB by value, for the attribute table; empty for none.
        counts: (256,) pixels by value; with them the sidecar also holds the attribute table.
    """
    categories = "".join(f"      <Category>{escape(name)}</Category>\n" for name in class_names)
    table = "" if counts is None else _attribute_table(class_names, colours, counts)
    band = f'  <PAMRasterBand band="1">\n    <CategoryNames>\n{categories}    </CategoryNames>\n{table}  </PAMRasterBand>\n'
    return f"<PAMDataset>\n{band}</PAMDataset>\n"


def _attribute_table(class_names: tuple[str, ...], colours: tuple[Colour, ...], counts: NDArray[np.int64]) -> str:
    """Write value, pixels, name and colour of each class as GDAL's raster attribute table."""
    fields = "".join(
        f'      <FieldDefn index="{index}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>\n'
        for index, (name, kind, usage) in enumerate(_TABLE_FIELDS[: 6 if colours else 3])
    )
    rows = ""
    for value, name in enumerate(class_names):
        colour = colours[value] if value < len(colours) else ((0, 0, 0) if colours else ())
        cells = "".join(f"<F>{escape(str(cell))}</F>" for cell in (value, counts[value], name, *colour))
        rows += f'      <Row index="{value}">{cells}</Row>\n'
    return f'    <GDALRasterAttributeTable tableType="thematic">\n{fields}{rows}    </GDALRasterAttributeTable>\n'

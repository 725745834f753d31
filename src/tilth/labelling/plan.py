"""Which images get which label raster, and which shards make them.

Windows of one image share its label raster, so an image belongs to one shard with all its tiles.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tilth.catalog import origin
from tilth.catalog.rows import window_array
from tilth.catalog.shards import ShardPlan, image_facts, shard_stamp
from tilth.catalog.table import Catalog

_LONGEST = 120
"""Characters of an image's name that its label raster is called after."""

# What some file system does not take, or a packed tile has in its name.
_UNFIT = r'[<>:"/\\|?*#\x00-\x1f]'


@dataclass(frozen=True)
class Plan:
    """The work on a pool of N tiles.

    Attributes:
        catalog: the tiles.
        order: int64 (N,), rows of the catalog in the order of the work: image by image as they first appear, in an image from the top.
        images: int64 (N,), number of the image of each tile, in that order.
        stems: name of the label raster of each image, without suffix; no two are alike, even where case does not count.
        shards: pieces of that order.
    """

    catalog: Catalog
    order: NDArray[np.int64]
    images: NDArray[np.int64]
    stems: pa.Array
    shards: tuple[ShardPlan, ...]

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.order)

    @property
    def identity(self) -> str:
        """Hash of all shards."""
        return hashlib.sha256(json.dumps([shard.stamp for shard in self.shards]).encode()).hexdigest()


def plan_labels(catalog: Catalog, identity: str, shard_tiles: int, *, given: bool = False) -> Plan:
    """Divide a pool among shards.

    A label raster is called as its image; of several images of one name the second gets ``-2`` behind it, and so on in their order.
    Tiles that are added at the end change no name and no whole shard before them.

    Args:
        catalog: N tiles.
        identity: what labels depend on besides the tiles: model and settings.
        shard_tiles: tiles of a shard, more where one image has more.
        given: what is made is of the labels that all tiles have: it depends on them, and an image with two labels gets two rasters.
    """
    table, windows = catalog.table, window_array(catalog.table)
    keys = pc.binary_join_element_wise(table["image"], table["label"], "\n") if given else table["image"]
    encoded = pc.dictionary_encode(keys).combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    codes: NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)
    order = np.lexsort((windows[:, 0], windows[:, 1], codes)).astype(np.int64)
    images = codes[order]
    _, first = np.unique(codes, return_index=True)
    stems = _stems(origin.named_images(table).take(pa.array(first)).combine_chunks())

    ids, places, names = table["tile_id"], table["image"].take(pa.array(first)).to_pylist(), stems.to_pylist()
    starts = np.searchsorted(images, np.arange(len(places) + 1))
    shards: list[ShardPlan] = []
    image = 0
    while image < len(places):
        start, head = int(starts[image]), image
        while image < len(places) and (image == head or starts[image + 1] - start <= shard_tiles):
            image += 1
        stop = int(starts[image])
        entries: list[Any] = [[image_facts(places[number]), names[number]] for number in range(head, image)]
        entries.append(ids.take(pa.array(order[start:stop])).to_pylist())
        entries += [windows[order[start:stop]].tolist(), images[start:stop].tolist()]
        if given:
            entries.append([uri and image_facts(uri) for uri in table["label"].take(pa.array(order[start:stop])).to_pylist()])
        shards.append(ShardPlan(f"shard-{len(shards):05d}.arrow", start, stop, shard_stamp(identity, entries)))
    return Plan(catalog, order, images, stems, tuple(shards))


def _stems(uris: pa.Array) -> pa.Array:
    """Names of images without folder and suffix, made to differ."""
    names = pc.replace_substring_regex(uris, r"(?s)^.*[/\\]", "")
    names = pc.replace_substring_regex(names, r"(?s)(.)\.[^.]*$", r"\1")
    names = pc.utf8_slice_codeunits(pc.replace_substring_regex(names, _UNFIT, "_"), 0, _LONGEST)
    names = pc.if_else(pc.equal(names, ""), "image", names)
    while True:
        keys = pc.dictionary_encode(pc.utf8_lower(names)).indices.to_numpy()
        order = np.argsort(keys, kind="stable")
        starts = np.searchsorted(keys[order], np.arange(keys.max(initial=-1) + 1))
        numbers = np.empty(len(keys), np.int64)
        numbers[order] = np.arange(len(keys)) - starts[keys[order]]
        again = pa.array(numbers > 0)
        if not pc.any(again).as_py():
            return names
        numbered = pc.binary_join_element_wise(names, pa.array(numbers + 1).cast(pa.string()), "-")
        names = pc.if_else(again, numbered, names)

"""What a look at features found, as it lies in ``features.json``. Reading it needs neither torch nor GDAL."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from tilth.classes import Colour
from tilth.evaluation.record import Count, Fraction, Record, read_record

FEATURES_FILE = "features.json"
"""Name of the file that a look at features leaves in its folder."""


class MapScores(Record):
    """Numbers of one map.

    Attributes:
        encoder: name of the encoder.
        side: ``encoder``, ``decoder``, or ``bands`` for the image itself.
        stride: sides of the image over those of the map.
        time: when noise was added; None where no noise predictor is behind it.
        width: channels of the map.
        linear_accuracy: of multinomial logistic regression: share of test pixels that are right; None where nothing was probed.
        linear_mean_iou: mean over the classes that are there.
        linear_class_iou: by class id; None of a class without test pixels.
        linear_converged: whether its steps sufficed.
        neighbour_accuracy: the same of the nearest neighbours.
        neighbour_mean_iou: the same.
        neighbour_class_iou: the same.
        cluster_agreement: of the k-means maps that were drawn: share of labelled pixels that are of the class of their cluster, the class
            that most labelled pixels of the cluster have; None without labels.
    """

    encoder: str
    side: Literal["encoder", "decoder", "bands"]
    stride: int = pydantic.Field(ge=1)
    time: Count | None
    width: int = pydantic.Field(ge=1)
    linear_accuracy: Fraction = None
    linear_mean_iou: Fraction = None
    linear_class_iou: tuple[Fraction, ...] = ()
    linear_converged: bool | None = None
    neighbour_accuracy: Fraction = None
    neighbour_mean_iou: Fraction = None
    neighbour_class_iou: tuple[Fraction, ...] = ()
    cluster_agreement: Fraction = None


class FeatureEncoder(Record):
    """An encoder that was looked at.

    Attributes:
        name: as everything else calls it.
        network: what it is, in a few words.
        model_hash: hash of its weights.
    """

    name: str
    network: str
    model_hash: str


class FeatureFigure(Record):
    """A picture in the same folder.

    Attributes:
        file: name of the PNG.
        kind: what it shows.
        encoder: whose maps; None where it shows several.
        title: one line.
    """

    file: str = pydantic.Field(pattern=r"^[^/\\]+\.png$")
    kind: Literal["clusters", "colours", "tsne", "probes"]
    encoder: str | None
    title: str


class FeatureRecord(Record):
    """A look at features: the content of ``features.json``.

    Attributes:
        schema_version: version of this layout.
        catalog: what the catalog is called.
        fingerprint: of the catalog.
        classes: names in id order; none where nothing is labelled.
        colours: of the classes.
        encoders: in the order asked for.
        learn_tiles: tiles that probes learned from.
        test_tiles: tiles that they were tested on; no pixel of them is in a tile of the others.
        learn_pixels: labelled pixels that probes learned from.
        test_pixels: labelled pixels that they were tested on.
        shared_tiles: tiles that were not learnt from because they show pixels of a test tile.
        unreadable: tiles that could not be read.
        maps: numbers of every map.
        figures: pictures.
        settings: everything else that the result follows from.
    """

    schema_version: Literal[1] = 1
    catalog: str
    fingerprint: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    encoders: tuple[FeatureEncoder, ...]
    learn_tiles: Count
    test_tiles: Count
    learn_pixels: Count
    test_pixels: Count
    shared_tiles: Count
    unreadable: Count
    maps: tuple[MapScores, ...]
    figures: tuple[FeatureFigure, ...]
    settings: dict[str, Any]

    def to_json(self) -> str:
        """Return the text of ``features.json``."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a ``features.json``, or that of a folder.

        Raises:
            MissingFileError: there is no such file.
            DataError: it is something else, or was written by a newer version.
        """
        return read_record(cls, path, FEATURES_FILE)

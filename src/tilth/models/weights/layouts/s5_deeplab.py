"""DeepLabV3+ of S5 and UniMatch on a ResNet with a stem of three convolutions: whole networks and encoders."""

from __future__ import annotations

from tilth.models.s5_resnet import DeepStemResNet
from tilth.models.weights.layout import Layout
from tilth.models.weights.layouts.renamed import RenamedLayout
from tilth.models.weights.rename import Renaming

NAMES = Renaming(
    [
        ("encoder.body.*", "backbone.*"),
        *(
            (f"decoder.{ours}.{part}.*", f"{theirs}.{first + step}.*")
            for ours, theirs, first in (
                ("pyramid.branches.{i}", "head.b{i}", 0),
                ("pyramid.mean", "head.b4.gap", 1),
                ("pyramid.projection", "head.project", 0),
                ("reduction", "reduce", 0),
                ("fusion.0", "fuse", 0),
                ("fusion.1", "fuse", 3),
            )
            for step, part in enumerate(("convolution", "norm"))
        ),
        ("segmentation_head.convolution.*", "classifier.*"),
    ]
)
"""Our names beside those of UniMatch."""

_FILE = RenamedLayout(
    NAMES,
    whole=("backbone.", "head.", "reduce.", "fuse.", "classifier."),
    encoder="backbone.",
    aliases=("encoder.",),
    kind=DeepStemResNet,
    dropped={"backbone.fc.": "class layer of the pictures that the encoder was trained on"},
)

LAYOUTS: tuple[Layout, ...] = (
    _FILE.layout(
        "s5-deeplab",
        "S5 and UniMatch, DeepLabV3+ on ResNet: whole network or encoder",
        lambda names: {"backbone.conv1.0.weight", "backbone.conv1.6.weight", "backbone.layer4.0.conv3.weight"} <= names,
    ),
)

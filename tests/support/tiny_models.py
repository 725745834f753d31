"""Tiny real networks that satisfy what inference needs of a Segmenter, for tests of windows, blending and maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tilth.augment.normalise import normalise
from tilth.classes import ClassScheme, LandClass
from tilth.sensors import Sensor, get_sensor

SCHEME = ClassScheme(
    name="four",
    classes=tuple(
        LandClass(name=name, colour=colour)
        for name, colour in (("water", (0, 0, 255)), ("trees", (0, 128, 0)), ("roofs", (200, 0, 0)), ("bare & dry", (180, 160, 90)))
    ),
)


class TinySegmenter(nn.Module):
    """Two convolutions that see a 5 x 5 neighbourhood, with fixed random weights and a dropout that evaluation must switch off."""

    def __init__(self, sensor: Sensor | None = None, scheme: ClassScheme = SCHEME) -> None:
        super().__init__()
        self.sensor = sensor or get_sensor("rgb")
        self.scheme = scheme
        self.first = nn.Conv2d(len(self.sensor), 8, 3, padding=1)
        self.second = nn.Conv2d(8, len(scheme), 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.batches: list[int] = []
        draw = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.5

    def normalise(self, stored: Tensor, valid: Tensor | None = None) -> Tensor:
        return normalise(stored, valid, self.sensor)

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(len(image))
        return self.second(self.dropout(torch.relu(self.first(image))))

"""Synthetic landscapes: exact truth, seen by any sensor, with labels as wrong as one likes.

A controlled laboratory (what helps against which kind of label noise?) and the embedded data of demo and tests.
"""

from tilth.imagery.landscape.config import SEASONS, Composition, LandscapeConfig, NoiseConfig, ScenesConfig, Season
from tilth.imagery.landscape.generate import Landscape, generate_landscape
from tilth.imagery.landscape.label_noise import noisy_labels
from tilth.imagery.landscape.observe import observe
from tilth.imagery.landscape.scenes import write_scenes
from tilth.imagery.landscape.scheme import landscape_scheme

__all__ = [
    "SEASONS",
    "Composition",
    "Landscape",
    "LandscapeConfig",
    "NoiseConfig",
    "ScenesConfig",
    "Season",
    "generate_landscape",
    "landscape_scheme",
    "noisy_labels",
    "observe",
    "write_scenes",
]

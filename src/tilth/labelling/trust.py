"""How sure a model is that a given label is right, pixel by pixel; where it sees a place through several sensors, all have their say.

Shapes: D branches, B tiles, C bands, K classes, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tilth.catalog.confidence import FULL, UNKNOWN
from tilth.catalog.reading import read_ahead
from tilth.catalog.rows import Tile
from tilth.classes import IGNORE_INDEX, ClassScheme
from tilth.errors import DataError, MissingFileError
from tilth.evaluation.samples import read_sample
from tilth.imagery.raster import Pixels
from tilth.labelling.label_noise import confident_joint, mean_confidence, noise_matrix, probability_under_noise
from tilth.labelling.tile_label import NOT_FINITE, Labeller, TileLabel
from tilth.methods.cromss.confidence import enhance
from tilth.models.fused import JOINT, FusedNetwork
from tilth.models.inference import evaluating
from tilth.models.network import SegmentationNetwork
from tilth.models.tiles import Running, predict_tiles
from tilth.sensors import Sensor

if TYPE_CHECKING:
    from tilth.models.segmenter import Segmenter


_PIXELS = 2000
"""Labelled pixels of a tile that tell of the noise of a map, at most; evenly spread, so that they are of many objects."""


@dataclass(frozen=True)
class LabelledPixels(Pixels):
    """A tile with its label.

    Attributes:
        given: uint8 (h, w), class ids; 255 where there is no label or no data.
    """

    given: NDArray[np.uint8]


class Voice(nn.Module):
    """One branch of a model, asked by itself; it takes the images of the whole model and has its layers, not copies."""

    def __init__(self, model: Segmenter, network: SegmentationNetwork, positions: Sequence[int]) -> None:
        """Take a branch.

        Args:
            model: whose branch it is.
            network: of the branch.
            positions: of its bands among those of the model.
        """
        super().__init__()
        self._model, self._positions = (model,), list(positions)
        self.network = network

    @property
    def sensor(self) -> Sensor:
        """The sensor of the whole model."""
        return self._model[0].sensor

    @property
    def scheme(self) -> ClassScheme:
        """The K classes."""
        return self._model[0].scheme

    def normalise(self, stored: Tensor, valid: Tensor | None = None) -> Tensor:
        """Turn stored values (B, C, h, w) into network input."""
        return self._model[0].normalise(stored, valid)

    def forward(self, image: Tensor) -> Tensor:
        """Compute the logits (B, K, h, w) of normalised images (B, C, h, w)."""
        return cast("Tensor", self.network(image[:, self._positions]))


def voices(model: Segmenter) -> dict[str, Voice | Segmenter]:
    """List who can be asked: the branches of a model, the joint one last, or the model itself (``model``) where it has none."""
    network, fusion = model.network, model.config.network.fusion
    if not isinstance(network, FusedNetwork) or fusion is None:
        return {"model": model}
    return {name: Voice(model, network.branch(name), fusion.positions[name]) for name in network.branches}


def entangled(known: Tensor, joint: bool = False) -> Tensor:
    """Join what several say of the given label to one number: the mean of their enhanced confidences (cromss.md section 4.2).

    F_d = K_d (1 + mean of the others' K) / 2, so of two: (K_1 + K_2 + 2 K_1 K_2) / 4. A label that only one believes counts a quarter, one
    that both believe in full. Of one alone it is what that one says.

    Args:
        known: float32 (D, ...) in [0, 1], probabilities that each gives to the given label.
        joint: the last of them sees all modalities: it hears the others, and none hears it.

    Returns:
        float32 (...) in [0, 1].
    """
    return enhance(known[:-1], known[-1]).mean(0) if joint else enhance(known).mean(0)


class Truster(Labeller):
    """Says of tiles that have labels how sure a model is that these are right.

    What it yields are the given classes, in ``percents`` the trust in them, 255 without label or data, and in ``confidence`` the mean.
    """

    def __init__(self, segmenter: Segmenter, running: Running, *, flips: str = "none", readers: int = 2) -> None:
        """Take a model; see :class:`tilth.labelling.tile_label.Labeller`."""
        super().__init__(segmenter, running, flips=flips, readers=readers)
        self._voices = voices(segmenter)
        self._noise: Tensor | None = None

    def allow_for(self, noise: Tensor) -> None:
        """Judge labels from now on knowing how often each class is labelled as each other; see :meth:`learn_noise`."""
        self._noise = noise

    def learn_noise(self, tiles: Sequence[Tile]) -> Tensor | None:
        """Find how often each class is labelled as each other, from the labels of tiles and what the branches say on average.

        Args:
            tiles: those to look at; what cannot be read, has no label or no finite prediction is passed over.

        Returns:
            float64 (K, K) on the CPU, T[j, i] of :mod:`tilth.labelling.label_noise`; None where nothing is left to look at.
        """
        heard: list[tuple[Tensor, Tensor]] = []
        with evaluating(self._segmenter, torch.device(self._running.device)):
            for item in read_ahead(tiles, self._read, self._readers):
                if isinstance(item, str) or not self._asked(item):
                    continue
                each = [predict_tiles(voice, [item], self._running, self._flips) for voice in self._voices.values()]
                mean = torch.stack([one for said in each for one in said]).mean(0)
                given = torch.from_numpy(_given(item)).flatten().long()
                labelled = (given != IGNORE_INDEX).nonzero().squeeze(1)
                chosen = labelled[torch.linspace(0, len(labelled) - 1, min(len(labelled), _PIXELS)).round().long()]
                found = mean.flatten(1).cpu()[:, chosen]
                if bool(found.isfinite().all()):
                    heard.append((found, given[chosen]))
        if not heard:
            return None
        probabilities, labels = torch.cat([said for said, _ in heard], 1), torch.cat([given for _, given in heard])
        sums, counts = mean_confidence(probabilities, labels)
        # Nothing is taken for a class that no label names: there is nothing to compare with.
        confidence = torch.where(counts > 0, sums / counts.clamp(min=1), 2)
        return noise_matrix(confident_joint(probabilities, labels, confidence), counts)

    def _read(self, tile: Tile) -> Pixels | str:
        try:
            sample = read_sample(tile, self._segmenter.sensor)
        except (DataError, MissingFileError, OSError) as error:
            return " ".join(str(error).split())
        strange = sample.mask[(sample.mask >= self.classes) & (sample.mask != IGNORE_INDEX)]
        if strange.size:
            return f"{tile.label}: holds {int(strange[0])}, which is none of the {self.classes} class ids of its scheme, nor 255"
        return LabelledPixels(sample.pixels.data, sample.pixels.valid, sample.mask, origin=sample.pixels.origin)

    def _asked(self, pixels: Pixels) -> bool:
        return bool((_given(pixels) != IGNORE_INDEX).any())

    def _label(self, batch: list[Pixels]) -> Iterator[TileLabel | str]:
        heard = [predict_tiles(voice, batch, self._running, self._flips) for voice in self._voices.values()]
        for pixels, *said in zip(batch, *heard, strict=True):
            given = torch.from_numpy(_given(pixels)).to(said[0].device)
            yield trust_tile(said, given, joint=JOINT in self._voices, noise=self._noise)

    def _nothing(self, pixels: Pixels) -> TileLabel:
        none = np.zeros(self.classes, np.int64)
        return TileLabel(_given(pixels), np.full(pixels.valid.shape, UNKNOWN, np.uint8), none, None, None, none)


def trust_tile(said: Sequence[Tensor], given: Tensor, *, joint: bool = False, noise: Tensor | None = None) -> TileLabel | str:
    """Turn the probabilities of all branches into trust in the label of a tile.

    Args:
        said: float32 (K, h, w) of each branch, sum 1 over K.
        given: uint8 (h, w), class ids, 255 where there is none; at least one pixel has one.
        joint: see :func:`entangled`.
        noise: float (K, K), how often each class is labelled as each other: what a branch says of a label is then how probable it is that
            the pixel is of that class (:func:`tilth.labelling.label_noise.probability_under_noise`), and not that it is labelled so.

    Returns:
        The label with its trust; a text where the probabilities are not finite.
    """
    labelled = given != IGNORE_INDEX
    places = torch.where(labelled, given, 0).long().unsqueeze(0)
    known = [one.gather(0, places).squeeze(0) if noise is None else probability_under_noise(one, places.squeeze(0), noise) for one in said]
    trust = entangled(torch.stack(known).clamp(max=1), joint)
    # Enhancing takes what is not finite for 0; here it must not pass for a wrong label.
    if not all(bool(one.isfinite().all()) for one in said):
        return NOT_FINITE
    classes = len(said[0])
    percents = torch.where(labelled, (trust * FULL).round_(), UNKNOWN).to(torch.uint8)
    ids = places.squeeze(0)[labelled]
    counts = torch.bincount(ids, minlength=classes)
    sums = torch.zeros(classes, dtype=torch.int64, device=ids.device).index_add_(0, ids, percents[labelled].long())
    mean = float(trust[labelled].mean(dtype=torch.float64))
    return TileLabel(given.cpu().numpy(), percents.cpu().numpy(), counts.cpu().numpy(), mean, None, sums.cpu().numpy())


def _given(pixels: Pixels) -> NDArray[np.uint8]:
    return cast("LabelledPixels", pixels).given

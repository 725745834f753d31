"""Does trust find wrong labels? Synthetic places seen by S1 and S2, labels of which a known share is wrong, short trainings on them.

Compared in one run, on the same places, steps and seed, by AUROC (a wrong pixel is trusted less than a right one; 0.5 is guessing):

- ``entangled``: the trust map of ``tilth trust`` with a CromSS pre-training, all branches together;
- ``mean``, ``product``, ``margin``: other ways to join what its branches say;
- ``s1``, ``s2_l2a``: what one branch of it says alone;
- ``joint``: with ``--joint``, the branch of it that sees all bands;
- ``plain``: self-confidence of one network for all bands, trained on the same labels without selection and softening;
- ``on truth``: with ``--bound``, the same network trained on the truth: what land and noise let anybody reach in so many steps.

    python benchmarks/trust.py --wrong 0.3 --steps 300
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tilth import seeds
from tilth.batch import Batch
from tilth.imagery.landscape import LandscapeConfig, NoiseConfig, generate_landscape, landscape_scheme, noisy_labels, observe
from tilth.labelling.trust import entangled, voices
from tilth.labelling.wrong_labels import auroc
from tilth.methods.base import build_method
from tilth.models.config import FusionConfig, NetworkConfig
from tilth.models.inference import evaluating
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import get_sensor

SENSOR = get_sensor("s1+s2_l2a")
SCHEME = landscape_scheme()
LEVELS = 1000
_PLAIN = {"selection": "off", "prior_share": 0, "uniform_share": 0}
_LOOK_ALIKE = {
    "cropland": {"grassland": 0.6},
    "grassland": {"cropland": 0.5, "trees": 0.2},
    "trees": {"grassland": 0.4, "bare": 0.2},
    "water": {"bare": 0.5},
    "bare": {"grassland": 0.5},
    "building": {"bare": 0.4},
    "road": {"grassland": 0.5},
}


@dataclass(frozen=True)
class Places:
    """N places: images float32 (N, C, H, W) in stored units, given and true labels uint8 (N, H, W)."""

    images: Tensor
    given: Tensor
    truth: Tensor

    @property
    def wrong(self) -> float:
        """Share of wrong labels among those that are given."""
        known = self.given != 255
        return float((self.given != self.truth)[known].float().mean())


def noise(kind: str, strength: float, seed: int) -> NoiseConfig:
    """Labels that are wrong in one way, or in all (``mixed``), more so the higher the strength from 0 to 1."""
    confusion = {name: {given: share * strength for given, share in row.items()} for name, row in _LOOK_ALIKE.items()}
    kinds: dict[str, dict[str, Any]] = {
        "boundary": {"boundary_shift_px": 24 * strength},
        "confusion": {"confusion": confusion},
        "missing": {"missing_objects": strength, "missing_classes": ("trees", "water", "bare", "building", "road", "grassland")},
        "mixed": {"boundary_shift_px": 4 * strength, "missing_objects": strength, "confusion": confusion},
    }
    return NoiseConfig(seed=seed, **kinds[kind])


def make_places(options: argparse.Namespace) -> Places:
    """Make land, and labels of which the wanted share is wrong, by halving the strength of the noise."""
    configs = [
        LandscapeConfig(seed=options.seed, index=index, height=options.size, width=options.size, gsd_m=10)
        for index in range(options.places)
    ]
    lands = [generate_landscape(config) for config in configs]
    truth = np.stack([land.label for land in lands])
    low, high = 0.0, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        given = np.stack([noisy_labels(land, noise(options.kind, middle, options.seed)) for land in lands])
        low, high = (middle, high) if np.mean((given != truth)[given != 255]) < options.wrong else (low, middle)
    images = np.stack([observe(land, SENSOR, season="summer") for land in lands]).astype(np.float32)
    return Places(torch.from_numpy(images), torch.from_numpy(given), torch.from_numpy(truth))


def train(places: Places, options: argparse.Namespace, fusion: FusionConfig | None, settings: dict[str, Any]) -> Segmenter:
    """Train a small network for so many steps, on crops that depend on the seed alone."""
    network = NetworkConfig(encoder="resnet10t", options={"decoder_channels": [64, 32, 32, 16, 16]}, fusion=fusion)
    model = build_segmenter(network, SENSOR, SCHEME, seed=options.seed)
    method = build_method("cromss", {"ramp_steps": options.steps // 2, **settings}, model, options.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.learning_rate, total_steps=options.steps)
    model.train()
    for step in range(options.steps):
        draw = np.random.default_rng(seeds.derive(options.seed, "trust benchmark", step))
        crops = [_crop(places, draw, options.crop) for _ in range(options.batch)]
        label = torch.stack([given for _, given in crops]).long()
        image = model.normalise(torch.stack([image for image, _ in crops]))
        valid = torch.ones_like(label, dtype=torch.bool)
        batch = Batch(image=image, mask=label, valid=valid, tile_id=[""] * len(label), draw=[0] * len(label))
        loss = method.step({"labelled": batch}, step).total
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        optimiser.step()
        schedule.step()
    return model


def _crop(places: Places, draw: np.random.Generator, side: int) -> tuple[Tensor, Tensor]:
    place, row, column = draw.integers([len(places.given), *(length - side + 1 for length in places.given.shape[1:])])
    image = places.images[place, :, row : row + side, column : column + side]
    given = places.given[place, row : row + side, column : column + side]
    turns, mirrored = int(draw.integers(4)), bool(draw.integers(2))
    image, given = image.rot90(turns, (-2, -1)), given.rot90(turns, (-2, -1))
    return (image.flip(-1), given.flip(-1)) if mirrored else (image, given)


@torch.no_grad()
def said(model: Segmenter, places: Places) -> dict[str, Tensor]:
    """Probabilities (N, K, H, W) that everybody gives."""
    everybody, found = voices(model), {}
    for name, voice in everybody.items():
        with evaluating(model), evaluating(voice):
            found[name] = torch.cat([voice(model.normalise(image[None])).float().softmax(1) for image in places.images])
    return found


def of_label(probabilities: Tensor, given: Tensor) -> Tensor:
    """Probability of the given label: (N, H, W)."""
    return probabilities.gather(1, torch.where(given == 255, 0, given).long().unsqueeze(1)).squeeze(1)


def margin(probabilities: Tensor, given: Tensor) -> Tensor:
    """Probability of the given label, as a share of it and of the most probable other one: (N, H, W)."""
    own = of_label(probabilities, given)
    other = probabilities.scatter(1, torch.where(given == 255, 0, given).long().unsqueeze(1), 0).amax(1)
    return own / (own + other)


def score(trust: Tensor, places: Places) -> tuple[float | None, list[float | None]]:
    """AUROC of trust against the truth: of all pixels, and of those of each given class."""
    known = places.given != 255
    levels = (trust.clamp(0, 1) * LEVELS).long()[known].numpy()
    right, given = (places.given == places.truth)[known].numpy(), places.given[known].numpy()

    def one(where: NDArray[np.bool_]) -> float | None:
        return auroc(np.stack([np.bincount(levels[where & (right == kind)], minlength=LEVELS + 1) for kind in (False, True)]))

    return one(np.ones_like(right)), [one(given == place) for place in range(len(SCHEME))]


def main() -> None:
    """Train, ask, and print."""
    options = _options()
    begin = time.process_time()
    places = make_places(options)
    print(
        f"{options.places} places of {options.size} px, {options.kind} noise: {places.wrong:.1%} of the labels wrong, seed {options.seed}"
    )
    cromss = train(places, options, FusionConfig(kind="mid", joint=options.joint), {})
    trained = time.process_time()
    print(f"cromss: {options.steps} steps, {trained - begin:.0f} s of processor time with making the land")
    plain = train(places, options, None, _PLAIN)
    print(f"plain: {time.process_time() - trained:.0f} s")
    branches = said(cromss, places)
    known = torch.stack([of_label(one, places.given) for one in branches.values()])
    ways = {
        "entangled": entangled(known, options.joint),
        "mean": known.mean(0),
        "product": known.prod(0),
        "margin": torch.stack([margin(one, places.given) for one in branches.values()]).mean(0),
        **dict(zip(branches, known, strict=True)),
        "plain": of_label(said(plain, places)["model"], places.given),
    }
    if options.bound:
        clean = train(replace(places, given=places.truth), options, None, _PLAIN)
        ways["on truth"] = of_label(said(clean, places)["model"], places.given)
    print(f"{'':<12}{'AUROC':>8}   " + " ".join(f"{name[:9]:>9}" for name in SCHEME.names))
    for name, trust in ways.items():
        whole, each = score(trust, places)
        print(f"{name:<12}{_text(whole):>8}   " + " ".join(f"{_text(value):>9}" for value in each))


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wrong", type=float, default=0.3, help="share of wrong labels, 0 to 1")
    parser.add_argument("--kind", choices=("mixed", "boundary", "confusion", "missing"), default="mixed")
    parser.add_argument("--joint", action="store_true", help="give CromSS a third branch that sees all bands")
    parser.add_argument("--bound", action="store_true", help="also train the plain network on the truth: what could be reached")
    parser.add_argument("--places", type=int, default=12)
    parser.add_argument("--size", type=int, default=192, help="height and width of a place in pixels")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Does trust find wrong labels? Synthetic places seen by S1 and S2, labels of which a known share is wrong, short trainings on them.

Compared in one run, on the same places, steps and seed, by AUROC (a wrong pixel is trusted less than a right one; 0.5 is guessing):

- ``entangled``: the trust map of ``tilth trust`` with a CromSS pre-training, all branches together;
- ``mean``, ``product``, ``margin``: other ways to join what its branches say;
- ``s1``, ``s2_l2a``: what one branch of it says alone;
- ``joint``: with ``--joint``, the branch of it that sees all bands;
- ``plain``: self-confidence of one network for all bands, trained on the same labels without selection and softening;
- ``folds``: with ``--folds 3``, the same by networks none of which learnt the labels of the places it judges;
- ``..., noise``: the same once it is estimated which classes the noise confuses, from labels and predictions alone
  (``tilth trust --noise estimated``);
- ``on truth``: with ``--bound``, the plain network trained on the truth: what land and noise let anybody reach in so many steps.

    python benchmarks/trust.py --kinds scattered boundary confusion missing mixed --joint

Kinds of noise: ``boundary`` (displaced borders), ``confusion`` (objects that are called a class which looks alike), ``missing`` (objects
that were never mapped), ``mixed`` (all three), ``scattered`` (objects that are called any other class, each as often).
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
from tilth.imagery.landscape import SEASONS, LandscapeConfig, NoiseConfig, generate_landscape, landscape_scheme, noisy_labels, observe
from tilth.labelling.label_noise import confident_joint, mean_confidence, noise_matrix, probability_under_noise
from tilth.labelling.trust import entangled, voices
from tilth.labelling.wrong_labels import auroc
from tilth.methods.base import build_method
from tilth.models.config import FusionConfig, NetworkConfig
from tilth.models.inference import evaluating
from tilth.models.segmenter import Segmenter, build_segmenter
from tilth.sensors import Sensor, get_sensor

PARTS = ("s1", "s2_l2a")
SCHEME = landscape_scheme()
LEVELS = 1000
KINDS = ("mixed", "boundary", "confusion", "missing", "scattered")
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

    def some(self, chosen: NDArray[np.bool_]) -> Places:
        """Take some of the places."""
        return Places(self.images[chosen], self.given[chosen], self.truth[chosen])


def noise(kind: str, strength: float, seed: int) -> NoiseConfig:
    """Labels that are wrong in one way, or in several (``mixed``), more so the higher the strength from 0 to 1."""
    confusion = {name: {given: share * strength for given, share in row.items()} for name, row in _LOOK_ALIKE.items()}
    any_other = {name: {given: strength / (len(SCHEME) - 1) for given in SCHEME.names if given != name} for name in SCHEME.names}
    kinds: dict[str, dict[str, Any]] = {
        "boundary": {"boundary_shift_px": 24 * strength},
        "confusion": {"confusion": confusion},
        "scattered": {"confusion": any_other},
        "missing": {"missing_objects": strength, "missing_classes": ("trees", "water", "bare", "building", "road", "grassland")},
        "mixed": {"boundary_shift_px": 4 * strength, "missing_objects": strength, "confusion": confusion},
    }
    return NoiseConfig(seed=seed, **kinds[kind])


def seasonal_sensor(seasons: list[str]) -> tuple[Sensor, FusionConfig]:
    """S1 and S2 of one season, or of several at once: the sensor, and which bands belong to which branch."""
    sensor = get_sensor("+".join(PARTS))
    if len(seasons) == 1:
        return sensor, FusionConfig(kind="mid")
    bands = [band.model_copy(update={"name": f"{band.name}_{season}"}) for season in seasons for band in sensor.bands]
    of_part = {part: get_sensor(part).band_names for part in PARTS}
    branches = {part: tuple(f"{name}_{season}" for season in seasons for name in names) for part, names in of_part.items()}
    whole = Sensor(name="seasons", bands=tuple(bands), dtype=sensor.dtype, unit=sensor.unit, rgb=tuple(band.name for band in bands[2:5]))
    return whole, FusionConfig(kind="mid", branches=branches)


def make_places(options: argparse.Namespace, kind: str, seed: int) -> Places:
    """Make land, and labels of which the wanted share is wrong, by halving the strength of the noise."""
    shape = {"height": options.size, "width": options.size, "gsd_m": options.gsd}
    lands = [generate_landscape(LandscapeConfig(seed=seed, index=index, **shape)) for index in range(options.places)]
    truth = np.stack([land.label for land in lands])
    low, high = 0.0, 1.0
    for _ in range(8):
        middle = (low + high) / 2
        given = np.stack([noisy_labels(land, noise(kind, middle, seed)) for land in lands])
        low, high = (middle, high) if np.mean((given != truth)[given != 255]) < options.wrong else (low, middle)
    sensor = get_sensor("+".join(PARTS))
    images = [np.concatenate([observe(land, sensor, season=season) for season in options.seasons]) for land in lands]
    return Places(torch.from_numpy(np.stack(images).astype(np.float32)), torch.from_numpy(given), torch.from_numpy(truth))


def train(places: Places, options: argparse.Namespace, seed: int, fused: bool, settings: dict[str, Any]) -> Segmenter:
    """Train a small network for so many steps, on crops that depend on the seed alone."""
    sensor, fusion = seasonal_sensor(options.seasons)
    branches = fusion.model_copy(update={"joint": options.joint}) if fused else None
    network = NetworkConfig(encoder="resnet10t", options={"decoder_channels": [64, 32, 32, 16, 16]}, fusion=branches)
    model = build_segmenter(network, sensor, SCHEME, seed=seed).to(memory_format=torch.channels_last)
    method = build_method("cromss", {"ramp_steps": options.steps // 2, **settings}, model, seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.learning_rate, total_steps=options.steps)
    model.train()
    for step in range(options.steps):
        draw = np.random.default_rng(seeds.derive(seed, "trust benchmark", step))
        crops = [_crop(places, draw, options.crop) for _ in range(options.batch)]
        label = torch.stack([given for _, given in crops]).long()
        image = model.normalise(torch.stack([image for image, _ in crops])).contiguous(memory_format=torch.channels_last)
        valid = torch.ones_like(label, dtype=torch.bool)
        batch = Batch(image=image, mask=label, valid=valid, tile_id=[""] * len(label), draw=[0] * len(label))
        with torch.autocast("cpu", torch.bfloat16):
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
def said(model: Segmenter, images: Tensor) -> dict[str, Tensor]:
    """Probabilities (N, K, H, W) that everybody gives."""
    everybody, found = voices(model), {}
    for name, voice in everybody.items():
        with evaluating(model), evaluating(voice):
            found[name] = torch.cat([voice(model.normalise(image[None])).float().softmax(1) for image in images])
    return found


def of_label(probabilities: Tensor, given: Tensor) -> Tensor:
    """Probability of the given label: (N, H, W)."""
    return probabilities.gather(1, torch.where(given == 255, 0, given).long().unsqueeze(1)).squeeze(1)


def margin(probabilities: Tensor, given: Tensor) -> Tensor:
    """Probability of the given label, as a share of it and of the most probable other one: (N, H, W)."""
    own = of_label(probabilities, given)
    other = probabilities.scatter(1, torch.where(given == 255, 0, given).long().unsqueeze(1), 0).amax(1)
    return own / (own + other)


def estimate_noise(probabilities: Tensor, given: Tensor) -> Tensor:
    """How often each class seems to be given for each other: float64 (K, K)."""
    flat, label = probabilities.movedim(1, 0).flatten(1), given.flatten().long()
    sums, counts = mean_confidence(flat, label)
    return noise_matrix(confident_joint(flat, label, torch.where(counts > 0, sums / counts.clamp(min=1), 2)), counts)


def under_noise(probabilities: Tensor, given: Tensor, matrix: Tensor) -> Tensor:
    """Probability of the class that is given, now that it is known which classes the noise confuses: (N, H, W)."""
    return probability_under_noise(probabilities.movedim(1, 0), given.long(), matrix)


def score(trust: Tensor, places: Places) -> tuple[float | None, list[float | None]]:
    """AUROC of trust against the truth: of all pixels, and of those of each given class."""
    known = places.given != 255
    levels = (trust.clamp(0, 1) * LEVELS).long()[known].numpy()
    right, given = (places.given == places.truth)[known].numpy(), places.given[known].numpy()

    def one(where: NDArray[np.bool_]) -> float | None:
        return auroc(np.stack([np.bincount(levels[where & (right == kind)], minlength=LEVELS + 1) for kind in (False, True)]))

    return one(np.ones_like(right)), [one(given == place) for place in range(len(SCHEME))]


def compare(options: argparse.Namespace, kind: str, seed: int) -> dict[str, Tensor]:
    """Train, ask, and print; AUROC by way."""
    began = time.process_time()
    places = make_places(options, kind, seed)
    print(f"\n{kind} noise, seed {seed}: {places.wrong:.1%} of the labels of {options.places} places are wrong")
    ways: dict[str, Tensor] = {}
    if not options.only_plain:
        branches = said(train(places, options, seed, True, {}), places.images)
        known = torch.stack([of_label(one, places.given) for one in branches.values()])
        mean = torch.stack(list(branches.values())).mean(0)
        matrix = estimate_noise(mean, places.given)
        ways = {
            "entangled": entangled(known, options.joint),
            "mean": known.mean(0),
            "product": known.prod(0),
            "margin": torch.stack([margin(one, places.given) for one in branches.values()]).mean(0),
            "entangled, noise": entangled(
                torch.stack([under_noise(one, places.given, matrix) for one in branches.values()]), options.joint
            ),
            "mean, noise": under_noise(mean, places.given, matrix),
            **dict(zip(branches, known, strict=True)),
        }
        print(f"cromss: accuracy of its maps {_accuracies(branches, places)}; {time.process_time() - began:.0f} s with making the land")
    began = time.process_time()
    alone = said(train(places, options, seed, False, _PLAIN), places.images)["model"]
    ways |= {"plain": of_label(alone, places.given), "plain, noise": under_noise(alone, places.given, estimate_noise(alone, places.given))}
    print(f"plain: accuracy of its map {_accuracies({'plain': alone}, places)}; {time.process_time() - began:.0f} s")
    if options.folds > 1:
        fold = np.arange(options.places) % options.folds
        judged = torch.empty_like(alone)
        for number in range(options.folds):
            model = train(places.some(fold != number), options, seed, False, _PLAIN)
            judged[torch.from_numpy(fold == number)] = said(model, places.images[fold == number])["model"]
        noisy = under_noise(judged, places.given, estimate_noise(judged, places.given))
        ways |= {"folds": of_label(judged, places.given), "folds, noise": noisy}
    if options.bound:
        clean = train(replace(places, given=places.truth), options, seed, False, _PLAIN)
        ways["on truth"] = of_label(said(clean, places.images)["model"], places.given)
    print(f"{'':<20}{'AUROC':>7}   " + " ".join(f"{name[:9]:>9}" for name in SCHEME.names))
    for name, trust in ways.items():
        whole, each = score(trust, places)
        print(f"{name:<20}{_text(whole):>7}   " + " ".join(f"{_text(value):>9}" for value in each), flush=True)
    return ways


def _accuracies(said: dict[str, Tensor], places: Places) -> str:
    return ", ".join(f"{name} {float((one.argmax(1) == places.truth).float().mean()):.1%}" for name, one in said.items())


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    """Compare for every kind of noise and every seed."""
    options = _options()
    for kind in options.kinds:
        for seed in options.seeds:
            compare(options, kind, seed)
    print(f"\n{time.process_time():.0f} s of processor time")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wrong", type=float, default=0.3, help="share of wrong labels, 0 to 1")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["mixed"])
    parser.add_argument("--joint", action="store_true", help="give CromSS a third branch that sees all bands")
    parser.add_argument("--bound", action="store_true", help="also train the plain network on the truth: what could be reached")
    parser.add_argument("--folds", type=int, default=1, help="also judge each place by a network that learnt the labels of other places")
    parser.add_argument("--only-plain", action="store_true", help="without CromSS")
    parser.add_argument("--seasons", nargs="+", choices=SEASONS, default=["spring", "summer"], help="seen at once, as further bands")
    parser.add_argument("--gsd", type=float, default=10, help="ground sampling distance in metres")
    parser.add_argument("--places", type=int, default=36)
    parser.add_argument("--size", type=int, default=192, help="height and width of a place in pixels")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64, help="height and width in pixels")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What do noisy labels teach, and what does the selection of CromSS add? Pre-trainings on them, each carried over to few clean labels.

Compared with the same tiles, steps, seeds and network (`--seeds`), by mIoU on tiles that no training saw, one sensor at a time:

- ``cromss``: both sensors, selection, softened labels, consistency;
- ``both``: both sensors without selection and softening (s12 of the paper);
- ``alone``: the sensor by itself, without selection and softening;
- ``none``: no pre-training;

and, as ``... map``, what a pre-training's own map is worth before it has seen any clean label.

    python benchmarks/noisy_labels.py ombria FOLDER --out runs/ombria
    python benchmarks/noisy_labels.py landscapes --kind confusion --wrong 0.3 --out runs/confusion-30

Everything goes through tilth's verbs and is kept under ``--out``: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import tilth
from tilth.imagery.landscape import LandscapeConfig, generate_landscape, noisy_labels
from trust import noise

SENSORS = ("s1", "s2")
CATALOGS = ("noisy", "clean", *SENSORS)
ARMS = ("cromss", "both", "alone", "none")
PLAIN = {"selection": "off", "prior_share": 0, "uniform_share": 0}
_FLOOD = {"name": "flood", "classes": [{"name": "dry", "colour": [190, 170, 120]}, {"name": "flooded", "colour": [30, 90, 200]}]}
# Channels of OMBRIA are 8-bit pictures; their means and deviations over its 74 chips here, after division by 255.
_OMBRIA = {
    "s1": (("s1_before", "s1_after"), (0.4971, 0.6009), (0.1864, 0.1872)),
    "s2": (
        ("before_1", "before_2", "before_3", "after_1", "after_2", "after_3"),
        (0.2891, 0.3031, 0.127, 0.1747, 0.2377, 0.15),
        (0.1146, 0.0973, 0.0781, 0.1307, 0.1258, 0.1252),
    ),
}


def ombria(options: argparse.Namespace) -> None:
    """Flooded or not: radar and optical pictures before and after, a mask made by a threshold, and one by experts."""
    for sensor, (names, means, deviations) in _OMBRIA.items():
        bands = [
            {"name": name, "kind": "other", "scale": 1 / 255, "mean": mean, "std": deviation, "low": 0, "high": 1}
            for name, mean, deviation in zip(names, means, deviations, strict=True)
        ]
        rgb = [names[0], names[-1], names[-1]] if len(names) < 3 else list(names[-3:])
        tree = {"name": f"ombria_{sensor}", "bands": bands, "dtype": "uint8", "unit": "digital number / 255", "rgb": rgb}
        (options.out / f"ombria_{sensor}.yaml").write_text(yaml.safe_dump(tree))
    (options.out / "flood.json").write_text(json.dumps(_FLOOD))
    sensors = {sensor: str(options.out / f"ombria_{sensor}.yaml") for sensor in SENSORS}
    common = {"layout": "scenes", "scheme": str(options.out / "flood.json"), "location_pattern": r"^(.+)\.tif$", "prefix": "ombria"}
    clean = str(options.folder / "label_clean_ems")
    for sensor in SENSORS:
        tilth.catalog_build(
            inputs=[options.folder / sensor], sensor=sensors[sensor], labels=clean, out=options.out / f"built-{sensor}.parquet", **common
        )
    common |= {"inputs": [options.folder / "s2"], "sensor": f"{sensors['s1']}+{sensors['s2']}"}
    common |= {"layers": {"ombria_s1": str(options.folder / "s1")}}
    build_both(options, clean, str(options.folder / options.noisy), common)


def landscapes(options: argparse.Namespace) -> None:
    """Synthetic land seen by Sentinel-1 and Sentinel-2, labels of which a known share is wrong."""
    land = {"scenes": options.scenes, "size": options.size, "seed": options.land, "gsd_m": 10}
    wrong = find_noise(options)
    for sensor, bands in (("noisy", "s1+s2_l2a"), ("s1", "s1"), ("s2", "s2_l2a")):
        folder = options.out / f"land-{sensor}"
        if not folder.exists():
            tilth.landscapes(out=folder, sensor=bands, **land, **({"noise": wrong} if sensor == "noisy" else {}))
        common = {"layout": "scenes", "scheme": str(folder / "classes.json"), "location_pattern": r"^(scene_\d+)", "prefix": "land"}
        common |= {"inputs": [folder / "images"], "sensor": bands, "window_px": options.size // 2}
        if sensor == "noisy":
            build_both(options, str(folder / "masks"), str(folder / "masks_noisy"), common)
        else:
            tilth.catalog_build(labels=str(folder / "masks"), out=options.out / f"built-{sensor}.parquet", **common)


def build_both(options: argparse.Namespace, clean: str, noisy: str, common: Mapping[str, Any]) -> None:
    """Make catalogs of both sensors together: one with the clean labels, one with the noisy ones that knows the clean ones."""
    path = options.out / "built-clean.parquet"
    tilth.catalog_build(labels=clean, out=path, **common)
    tilth.catalog_build(labels=noisy, label_kind="noisy", references=str(path), out=options.out / "built-noisy.parquet", **common)


def find_noise(options: argparse.Namespace) -> dict[str, Any]:
    """Find how strong the noise of a kind must be for the wanted share of wrong labels, on four of the scenes."""
    lands = [
        generate_landscape(LandscapeConfig(seed=options.land, index=index, height=options.size, width=options.size, gsd_m=10))
        for index in range(4)
    ]
    truth = np.stack([land.label for land in lands])
    low, high = 0.0, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        given = np.stack([noisy_labels(land, noise(options.kind, middle, 0)) for land in lands])
        low, high = (middle, high) if np.mean((given != truth)[given != 255]) < options.wrong else (low, middle)
    return dict(noise(options.kind, middle, 0).model_dump(mode="json"))


def divide(options: argparse.Namespace) -> None:
    """Give all catalogs the same splits, by the name of the place, and pack them."""
    for name in CATALOGS:
        target = options.out / f"{name}.parquet"
        tilth.catalog_split(
            catalog=options.out / f"built-{name}.parquet", fractions={"train": 1 - options.held_out, "test": options.held_out}, out=target
        )
        if not (options.out / name / "catalog.parquet").exists():
            tilth.pack(catalog=target, out=options.out / name)
    splits = [_splits(options.out / f"{name}.parquet") for name in CATALOGS]
    assert all(found == splits[0] for found in splits), "the same places are held out everywhere"


def _splits(path: Path) -> dict[str, Any]:
    catalog = tilth.Catalog.open(path)
    return dict(zip(catalog.column("location_id"), catalog.column("split"), strict=True))


def train(run: Path, verb: Any, tree: Mapping[str, Any], options: argparse.Namespace, seed: int, steps: int, rate: float) -> float:
    """Train, or go on; seconds of the processor in this call."""
    loop = {
        "steps": steps,
        "batch_size": options.batch,
        "seed": seed,
        "learning_rate": rate,
        "schedule": {"kind": "cosine", "warmup_steps": min(20, steps // 2)},
        "average_decay": 0.99,
        "export": "last",
        "precision": options.precision,
        "channels_last": True,
        "checkpoint_every": 100,
    }
    weak = {"size": options.crop, "scale_min": 0.8, "scale_max": 1.25}
    began = time.process_time()
    verb(out=run, validation_split=None, loop=loop, weak=weak, resume=(run / "checkpoints").exists(), **tree)
    return time.process_time() - began


def score(model: Path, catalog: Path, out: Path) -> float:
    """MIoU on the tiles held out."""
    if not (out / "metrics.json").exists():
        tilth.evaluate(model=model, catalog=catalog, split=["test"], out=out, gallery=0, bootstrap=0, inference={"window": 256})
    matrix = np.array(json.loads((out / "metrics.json").read_text())["confusion"], dtype=float)
    hits = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - hits
    return float(100 * (hits[union > 0] / union[union > 0]).mean())


def study(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Run all arms with one seed; mIoU by arm and sensor."""
    out, found = options.out, {}
    noisy = tilth.Catalog.open(out / "noisy" / "catalog.parquet").sensor()
    counts = {sensor: tilth.Catalog.open(out / sensor / "catalog.parquet").sensor().band_names for sensor in SENSORS}
    assert noisy.band_names == counts["s1"] + counts["s2"]
    network = {"encoder": options.encoder, "decoder": "unet", "options": {"decoder_channels": [64, 32, 32, 16, 16]}}
    fusion = {"kind": options.fusion, "branches": {sensor: list(names) for sensor, names in counts.items()}}
    both = {"method": "cromss", "labelled": [out / "noisy" / "catalog.parquet"]}
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "cromss": (fusion, {"ramp_steps": options.steps // 2}),
        "both": (fusion, PLAIN),
        **{f"alone-{sensor}": (fusion | {"use": [sensor]}, PLAIN) for sensor in SENSORS},
    }
    for way, (branches, settings) in ways.items():
        run = out / "runs" / f"{way}-{seed}"
        tree = both | {"network": network | {"fusion": branches}, "settings": settings}
        train(run, tilth.pretrain, tree, options, seed, options.steps, options.learning_rate)
        found[f"{way} map"] = score(run, out / "clean" / "catalog.parquet", out / "scores" / f"{way}-map-{seed}")
    for sensor in SENSORS:
        for arm in ARMS:
            start = {"alone": f"alone-{sensor}"}.get(arm, arm)
            tree = {"task": "segment", "labelled": [out / sensor / "catalog.parquet"], "labelled_tiles": options.labels}
            if arm == "none":
                tree["network"] = network
            else:
                tree |= {"initial_weights": out / "runs" / f"{start}-{seed}", "take": sensor}
            run = out / "runs" / f"{arm}-then-{sensor}-{seed}"
            train(run, tilth.finetune, tree, options, seed, options.clean_steps, options.clean_rate)
            found[f"{arm} {sensor}"] = score(run, out / sensor / "catalog.parquet", out / "scores" / f"{arm}-{sensor}-{seed}")
    return found


def main() -> None:
    """Prepare, train, score, print."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    if not (options.out / "s2" / "catalog.parquet").exists():
        (ombria if options.data == "ombria" else landscapes)(options)
        divide(options)
    found = [study(options, seed) for seed in options.seeds]
    print(f"mIoU in % on held-out places, mean ± deviation over seeds {', '.join(map(str, options.seeds))}")
    for name in found[0]:
        values = [one[name] for one in found]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        print(f"{name:<20}{statistics.mean(values):6.1f}{spread}   {', '.join(f'{value:.1f}' for value in values)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("ombria", "landscapes"))
    parser.add_argument("folder", type=Path, nargs="?", help="folder ombria/ with s1, s2 and labels")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--noisy", default="label_noisy_s1otsu", help="ombria: which noisy labels")
    parser.add_argument("--kind", choices=("boundary", "confusion", "missing", "mixed"), default="confusion", help="landscapes: noise")
    parser.add_argument("--wrong", type=float, default=0.3, help="landscapes: share of wrong labels")
    parser.add_argument("--scenes", type=int, default=12, help="landscapes: places")
    parser.add_argument("--size", type=int, default=256, help="landscapes: height and width of a scene in pixels")
    parser.add_argument("--land", type=int, default=0, help="landscapes: their seed")
    parser.add_argument("--held-out", type=float, default=0.45, help="share of the places that no training sees")
    parser.add_argument("--labels", type=int, default=6, help="tiles with clean labels")
    parser.add_argument("--encoder", default="regnetx_002")
    parser.add_argument("--fusion", choices=("mid", "late"), default="mid")
    parser.add_argument("--steps", type=int, default=400, help="of pre-training")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--clean-steps", type=int, default=150)
    parser.add_argument("--clean-rate", type=float, default=5e-4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if options.data == "ombria" and options.folder is None:
        parser.error("ombria needs its FOLDER, with s1, s2, label_clean_ems and the noisy labels")
    return options


if __name__ == "__main__":
    main()

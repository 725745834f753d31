"""What do noisy labels teach, and what does the selection of CromSS add? Pre-trainings on them, each carried over to few clean labels.

Compared with the same tiles, steps, seeds and network (`--seeds`), by mIoU on tiles that no training saw, one sensor at a time:

- ``cromss``: both sensors, selection, softened labels, consistency;
- ``both``: both sensors without selection and softening (s12 of the paper);
- ``alone``: the sensor by itself, without selection and softening;
- ``none``: no pre-training;
- ``selection``, ``softening``: ``both`` with one of the two alone (`--arms`);
- ``strict``: ``cromss`` that selects a fifth of each class and not half, so that the others count much less;

and, as ``... map``, what a pre-training's own map is worth before it has seen any clean label.

    python benchmarks/noisy_labels.py ombria FOLDER --out runs/ombria
    python benchmarks/noisy_labels.py landscapes --kinds boundary confusion missing --wrong 0.1 0.3 0.6 --out runs/landscapes

On landscapes every kind of noise with every share of wrong labels is a cell of a table, on the same land. All seeds of a cell are printed,
and drawn as curves with ``--figure``. Everything goes through tilth's verbs and is kept under ``--out``: the same command goes on where it
stopped, and more kinds, shares, arms or seeds are added to what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import tilth
from tilth.imagery.landscape import LandscapeConfig, generate_landscape, noisy_labels
from trust import noise

SENSORS = ("s1", "s2")
ARMS = ("cromss", "both", "alone", "none")
OFF = {"selection": "off"}
HARD = {"prior_share": 0, "uniform_share": 0}
KINDS = ("boundary", "confusion", "missing", "mixed")
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


@dataclass(frozen=True)
class Cell:
    """One kind and share of noise.

    Attributes:
        name: for people.
        common: folder of the catalogs with clean labels (``clean``, ``s1``, ``s2``), and of what has nothing to do with noise.
        folder: of the catalog ``noisy`` and of all that learns it.
    """

    name: str
    common: Path
    folder: Path


def ombria(options: argparse.Namespace) -> list[Cell]:
    """Flooded or not: radar and optical pictures before and after, a mask made by a threshold, and one by experts."""
    out = options.out
    for sensor, (names, means, deviations) in _OMBRIA.items():
        bands = [
            {"name": name, "kind": "other", "scale": 1 / 255, "mean": mean, "std": deviation, "low": 0, "high": 1}
            for name, mean, deviation in zip(names, means, deviations, strict=True)
        ]
        rgb = [names[0], names[-1], names[-1]] if len(names) < 3 else list(names[-3:])
        tree = {"name": f"ombria_{sensor}", "bands": bands, "dtype": "uint8", "unit": "digital number / 255", "rgb": rgb}
        (out / f"ombria_{sensor}.yaml").write_text(yaml.safe_dump(tree))
    (out / "flood.json").write_text(json.dumps(_FLOOD))
    sensors = {sensor: str(out / f"ombria_{sensor}.yaml") for sensor in SENSORS}
    common = {"layout": "scenes", "scheme": str(out / "flood.json"), "location_pattern": r"^(.+)\.tif$", "prefix": "ombria"}
    clean = {"labels": str(options.folder / "label_clean_ems")}
    for sensor in SENSORS:
        build(options, out / sensor, common | clean | {"inputs": [options.folder / sensor], "sensor": sensors[sensor]})
    common |= {"inputs": [options.folder / "s2"], "sensor": f"{sensors['s1']}+{sensors['s2']}"}
    common |= {"layers": {"ombria_s1": str(options.folder / "s1")}}
    build(options, out / "clean", common | clean)
    given = {"labels": str(options.folder / options.noisy), "label_kind": "noisy", "references": str(out / "built-clean.parquet")}
    build(options, out / "noisy", common | given)
    return [Cell("ombria", out, out)]


def landscapes(options: argparse.Namespace) -> list[Cell]:
    """Synthetic land seen by Sentinel-1 and Sentinel-2, labels of which a known share is wrong."""
    out, land = options.out, {"scenes": options.scenes, "size": options.size, "seed": options.land, "gsd_m": options.gsd}
    common = {"layout": "scenes", "location_pattern": r"^(scene_\d+)", "prefix": "land", "window_px": options.size // 2}
    for name, sensor in (("clean", "s1+s2_l2a"), ("s1", "s1"), ("s2", "s2_l2a")):
        folder = out / f"land-{name}"
        if not (folder / "masks").exists():
            tilth.landscapes(out=folder, sensor=sensor, **land)
        common |= {"scheme": str(folder / "classes.json"), "inputs": [folder / "images"], "sensor": sensor}
        build(options, out / name, common | {"labels": str(folder / "masks")})
    cells = []
    for kind in options.kinds:
        for wrong in options.wrong:
            folder = out / f"{kind}-{round(100 * wrong)}"
            cells.append(Cell(f"{kind} {wrong:.0%}", out, folder))
            if (folder / "noisy" / "catalog.parquet").exists():
                continue
            if not (folder / "land" / "masks_noisy").exists():
                # Only its labels are of use; one sensor is the least that can be asked for.
                tilth.landscapes(out=folder / "land", sensor="s1", **land, noise=find_noise(options, kind, wrong))
            given = {"labels": str(folder / "land" / "masks_noisy"), "label_kind": "noisy", "references": str(out / "built-clean.parquet")}
            given |= {"inputs": [out / "land-clean" / "images"], "sensor": "s1+s2_l2a", "scheme": str(out / "land-clean" / "classes.json")}
            build(options, folder / "noisy", common | given)
    return cells


def find_noise(options: argparse.Namespace, kind: str, wrong: float) -> dict[str, Any]:
    """Find how strong the noise of a kind must be for the wanted share of wrong labels, on eight of the scenes."""
    shape = {"height": options.size, "width": options.size, "gsd_m": options.gsd}
    lands = [generate_landscape(LandscapeConfig(seed=options.land, index=index, **shape)) for index in range(min(8, options.scenes))]
    truth = np.stack([land.label for land in lands])
    low, high = 0.0, 1.0
    for _ in range(9):
        middle = (low + high) / 2
        given = np.stack([noisy_labels(land, noise(kind, middle, 0)) for land in lands])
        low, high = (middle, high) if np.mean((given != truth)[given != 255]) < wrong else (low, middle)
    return dict(noise(kind, middle, 0).model_dump(mode="json"))


def build(options: argparse.Namespace, folder: Path, how: Mapping[str, Any]) -> None:
    """Make a catalog, hold places out by their names (the same ones everywhere), and pack it into a folder."""
    built, divided = (folder.with_name(f"{prefix}{folder.name}.parquet") for prefix in ("built-", ""))
    if not (folder / "catalog.parquet").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        tilth.catalog_build(out=built, **how)
        tilth.catalog_split(catalog=built, fractions={"train": 1 - options.held_out, "test": options.held_out}, out=divided)
        tilth.pack(catalog=divided, out=folder)


def held_out(folder: Path) -> set[str]:
    """Places that are held out."""
    catalog = tilth.Catalog.open(folder / "catalog.parquet")
    return {place for place, split in zip(catalog.column("location_id"), catalog.column("split"), strict=True) if split == "test"}


def train(run: Path, verb: Any, tree: Mapping[str, Any], options: argparse.Namespace, seed: int, steps: int, rate: float) -> Path:
    """Train, or go on; the run's folder."""
    loop = {
        "steps": steps,
        "batch_size": options.batch,
        "seed": seed,
        "learning_rate": rate,
        "schedule": {"kind": "cosine", "warmup_steps": min(20, steps // 2)},
        "average_decay": options.average_decay or 1 - 10 / steps,
        "export": "last",
        "precision": options.precision,
        "channels_last": True,
        "checkpoint_every": 100,
    }
    weak = {"size": options.crop, "scale_min": 0.8, "scale_max": 1.25}
    verb(out=run, validation_split=None, loop=loop, weak=weak, resume=(run / "checkpoints").exists(), **tree)
    return run


def score(model: Path, catalog: Path, out: Path) -> float:
    """MIoU on the tiles held out."""
    if not (out / "metrics.json").exists():
        tilth.evaluate(model=model, catalog=catalog, split=["test"], out=out, gallery=0, bootstrap=0, inference={"window": 256})
    matrix = np.array(json.loads((out / "metrics.json").read_text())["confusion"], dtype=float)
    hits = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - hits
    return float(100 * (hits[union > 0] / union[union > 0]).mean())


def study(options: argparse.Namespace, cell: Cell, seed: int) -> dict[str, float]:
    """Run all arms with one seed; mIoU by arm and sensor."""
    common, found = cell.common, {}
    bands = {sensor: tilth.Catalog.open(common / sensor / "catalog.parquet").sensor().band_names for sensor in SENSORS}
    network = {"encoder": options.encoder, "decoder": "unet", "options": {"decoder_channels": options.decoder_channels}}
    fusion = {"kind": options.fusion, "branches": {sensor: list(names) for sensor, names in bands.items()}}
    ramp = {"ramp_steps": round(options.ramp * options.steps)}
    ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "cromss": (fusion, ramp),
        "both": (fusion, OFF | HARD),
        "selection": (fusion, ramp | HARD),
        "softening": (fusion, OFF),
        "strict": (fusion, ramp | {"selected_share": 0.2}),
        **{f"alone-{sensor}": (fusion | {"use": [sensor]}, OFF | HARD) for sensor in options.sensors},
    }
    for way, (branches, settings) in ways.items():
        if way.split("-")[0] in options.arms:
            tree = {"method": "cromss", "labelled": [cell.folder / "noisy" / "catalog.parquet"], "network": network | {"fusion": branches}}
            tree["settings"] = settings
            run = train(cell.folder / "runs" / f"{way}-{seed}", tilth.pretrain, tree, options, seed, options.steps, options.learning_rate)
            found[f"{way} map"] = score(run, common / "clean" / "catalog.parquet", cell.folder / "scores" / f"{way}-map-{seed}")
    for sensor in options.sensors:
        for arm in options.arms:
            start = f"alone-{sensor}" if arm == "alone" else arm
            tree = {"task": "segment", "labelled": [common / sensor / "catalog.parquet"], "labelled_tiles": options.labels}
            folder = common if arm == "none" else cell.folder
            if arm == "none":
                tree["network"] = network
            else:
                tree |= {"initial_weights": folder / "runs" / f"{start}-{seed}", "take": sensor}
            run = folder / "runs" / f"{arm}-then-{sensor}-{seed}"
            train(run, tilth.finetune, tree, options, seed, options.clean_steps, options.clean_rate)
            found[f"{arm} {sensor}"] = score(run, common / sensor / "catalog.parquet", folder / "scores" / f"{arm}-{sensor}-{seed}")
    return found


def table(found: Mapping[str, list[dict[str, float]]]) -> str:
    """Write a table: a row for every cell, a column for every arm, mean and deviation over the seeds."""
    names = list(dict.fromkeys(name for runs in found.values() for run in runs for name in run))
    lines = ["| noise | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for cell, runs in found.items():
        texts = []
        for name in names:
            values = [run[name] for run in runs if name in run]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            texts.append(f"{statistics.mean(values):.1f}{spread}" if values else "")
        lines.append(f"| {cell} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def draw(found: Mapping[str, list[dict[str, float]]], names: list[str], path: Path) -> None:
    """Draw mIoU against the share of wrong labels: a picture for every kind of noise, a curve with its spread for every arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(cell.split()[0] for cell in found))
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(3.2 * len(kinds), 2.9), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        cells = {float(cell.split()[1].rstrip("%")): runs for cell, runs in found.items() if cell.split()[0] == kind}
        for name in names:
            values = {wrong: [run[name] for run in runs if name in run] for wrong, runs in sorted(cells.items())}
            values = {wrong: one for wrong, one in values.items() if one}
            means = [statistics.mean(one) for one in values.values()]
            spreads = [statistics.stdev(one) if len(one) > 1 else 0 for one in values.values()]
            axis.errorbar(list(values), means, spreads, marker="o", markersize=3, capsize=2, linewidth=1.2, label=name)
        axis.set(title=f"{kind} noise", xlabel="wrong labels (%)")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("mIoU (%)")
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Prepare, train, score, print."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    cells = ombria(options) if options.data == "ombria" else landscapes(options)
    for cell in cells:
        folders = [cell.folder / "noisy", *(cell.common / name for name in ("clean", *SENSORS))]
        assert len({frozenset(held_out(folder)) for folder in folders}) == 1, "the same places are held out everywhere"
    found: dict[str, list[dict[str, float]]] = {cell.name: [] for cell in cells}
    for seed in options.seeds:
        for cell in cells:
            began = time.process_time()
            found[cell.name].append(study(options, cell, seed))
            texts = ", ".join(f"{name} {value:.1f}" for name, value in found[cell.name][-1].items())
            print(f"{cell.name}, seed {seed}: {texts}; {time.process_time() - began:.0f} s of processor time", flush=True)
    print(f"mIoU in % on held-out places, mean ± deviation over seeds {', '.join(map(str, options.seeds))}")
    print(table(found))
    if options.figure:
        names = [f"{arm} map" for arm in options.arms if arm not in ("none", "alone")]
        draw(found, names + [f"{arm} {sensor}" for sensor in options.sensors for arm in options.arms], options.figure)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("ombria", "landscapes"))
    parser.add_argument("folder", type=Path, nargs="?", help="folder ombria/ with s1, s2 and labels")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--noisy", default="label_noisy_s1otsu", help="ombria: which noisy labels")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["confusion"], help="landscapes: kinds of noise")
    parser.add_argument("--wrong", type=float, nargs="+", default=[0.3], help="landscapes: shares of wrong labels")
    parser.add_argument("--scenes", type=int, default=30, help="landscapes: places")
    parser.add_argument("--size", type=int, default=192, help="landscapes: height and width of a scene in pixels")
    parser.add_argument("--gsd", type=float, default=20, help="landscapes: ground sampling distance in metres")
    parser.add_argument("--land", type=int, default=0, help="landscapes: their seed")
    parser.add_argument("--held-out", type=float, default=0.45, help="share of the places that no training sees")
    parser.add_argument("--labels", type=int, default=6, help="tiles with clean labels")
    parser.add_argument("--arms", nargs="+", choices=(*ARMS, "selection", "softening", "strict"), default=list(ARMS))
    parser.add_argument("--sensors", nargs="+", choices=SENSORS, default=list(SENSORS), help="carried over to clean labels")
    parser.add_argument("--encoder", default="regnetx_002")
    parser.add_argument("--decoder-channels", type=int, nargs=5, default=[64, 32, 32, 16, 16])
    parser.add_argument("--fusion", choices=("mid", "late"), default="mid")
    parser.add_argument("--steps", type=int, default=400, help="of pre-training")
    parser.add_argument("--ramp", type=float, default=0.5, help="share of these steps until the selection is complete")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--clean-steps", type=int, default=150)
    parser.add_argument("--clean-rate", type=float, default=5e-4)
    parser.add_argument("--average-decay", type=float, default=0.99, help="of averaged weights; 0 takes 1 - 10 / steps")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128, help="height and width in pixels")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--figure", type=Path, help="picture to draw the curves into")
    options = parser.parse_args()
    if options.data == "ombria" and options.folder is None:
        parser.error("ombria needs its FOLDER, with s1, s2, label_clean_ems and the noisy labels")
    return options


if __name__ == "__main__":
    main()

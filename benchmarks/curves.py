"""Validation mIoU of runs against optimiser steps and against wall time, as one picture.

    python benchmarks/curves.py --out curves.png NAME=RUN NAME=RUN+RUN ...

RUN is a run folder that was validated now and then (``loop.validate_every``). RUN+RUN is a training that went on from another one
(``initial_weights``): its steps and its time are added to those of the first. Lines of one NAME are seeds and share a colour. Wall time
contains the validations, so give all runs the same number of them for the same number of steps; on a machine that does other work it
says little.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure

Point = tuple[float, float, float]
"""Steps, minutes of wall time, mIoU in percent."""


def points_of(runs: list[Path]) -> list[Point]:
    """The validations of runs that follow each other."""
    found: list[Point] = []
    steps = seconds = 0.0
    for run in runs:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found += [
            (steps + line["step"], (seconds + line["time_s"]) / 60, 100 * line["mIoU"])
            for line in lines
            if line["kind"] == "val" and "mIoU" in line
        ]
        timed = [line for line in lines if "time_s" in line]
        steps, seconds = steps + timed[-1]["step"], seconds + timed[-1]["time_s"]
    return found


def main() -> None:
    """Draw the picture that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", metavar="NAME=RUN[+RUN]")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    colours: dict[str, str] = {}
    for item in arguments.lines:
        name, _, folders = item.partition("=")
        points = points_of([Path(folder) for folder in folders.split("+")])
        fresh = name not in colours
        colour = colours.setdefault(name, f"C{len(colours)}")
        for place, axis in enumerate(axes):
            axis.plot([p[place] for p in points], [p[2] for p in points], "o-", color=colour, markersize=3, label=name if fresh else None)
    for axis, label in zip(axes, ("optimiser steps", "minutes of wall time"), strict=True):
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("validation mIoU, %")
    axes[0].legend(fontsize=8)
    figure.savefig(arguments.out, dpi=90)


if __name__ == "__main__":
    main()

"""Validation mIoU of runs against optimiser steps and against time, as one picture.

    python benchmarks/curves.py --out curves.png NAME=RUN NAME=RUN@0.27 NAME=RUN@0.27+RUN@0.54 ...

RUN is a run folder that was validated now and then (``loop.validate_every``). RUN+RUN is a training that went on from another one
(``initial_weights``): its steps and its time are added to those of the first. ``@0.27`` says how many processor seconds a step takes, for
machines that did other work meanwhile; without it, time is that of the clock on the wall, validations included. Lines of one NAME are seeds
and share a colour.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.figure import Figure

Point = tuple[float, float, float]
"""Steps, minutes, mIoU in percent."""


def points_of(runs: list[str]) -> list[Point]:
    """The validations of runs that follow each other."""
    found: list[Point] = []
    steps = seconds = 0.0
    for run in runs:
        folder, _, pace = run.partition("@")
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        timed = [(line["step"], line["step"] * float(pace) if pace else line["time_s"], line) for line in lines if "time_s" in line]
        found += [
            (steps + step, (seconds + time) / 60, 100 * line["mIoU"])
            for step, time, line in timed
            if line["kind"] == "val" and "mIoU" in line
        ]
        steps, seconds = steps + timed[-1][0], seconds + timed[-1][1]
    return found


def main() -> None:
    """Draw the picture that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", metavar="NAME=RUN[@SECONDS][+RUN[@SECONDS]]")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    colours: dict[str, str] = {}
    for item in arguments.lines:
        name, _, runs = item.partition("=")
        points = points_of(runs.split("+"))
        label = name if name not in colours else None
        colour = colours.setdefault(name, f"C{len(colours)}")
        for place, axis in enumerate(axes):
            axis.plot([p[place] for p in points], [p[2] for p in points], "o-", color=colour, markersize=3, linewidth=1.2, label=label)
    for axis, title in zip(axes, ("optimiser steps", "minutes of one core" if "@" in arguments.lines[0] else "minutes"), strict=True):
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("validation mIoU, %")
    axes[0].legend(fontsize=7)
    figure.savefig(arguments.out, dpi=90)


if __name__ == "__main__":
    main()

"""``tilth export``: a model for programs that know nothing of tilth."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from tilth.config import Config
from tilth.errors import OutputExistsError
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


class ExportOptions(Config):
    """Options of ``tilth export``."""

    model: Path = pydantic.Field(json_schema_extra={"positional": True}, description="model or run folder")
    out: Path = pydantic.Field(description="file to write: .onnx, or .pt2 for torch")
    format: Literal["onnx", "torch"] = pydantic.Field("onnx", description="onnx, or torch for a program of torch.export")
    size: tuple[int, ...] = pydantic.Field((256,), description="side of the images in pixels, or height and width; fixed in the graph")
    batch: int | None = pydantic.Field(None, ge=1, description="number of images in one call; any if nothing is said")
    normalisation: bool = pydantic.Field(False, description="take values as stored; otherwise whoever calls the graph normalises")
    overwrite: bool = pydantic.Field(False, description="replace a graph that is there")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        wanted = _SUFFIXES[self.format]
        if self.out.suffix.lower() != wanted:
            raise ValueError(f"--out {self.out}: a graph of format {self.format} is called *{wanted}")
        if len(self.size) not in (1, 2) or min(self.size) < 1:
            raise ValueError(f"--size {', '.join(map(str, self.size))}: give one side in pixels, or height and width")
        return self


@verb("export", ExportOptions)
def export(options: ExportOptions, console: Console) -> Result:
    """Write a model as ONNX or torch.export graph, and check it against the model.

    The graph takes images (B, C, H, W), bands in the order of the sensor, and gives logits (B, K, H, W). A note inside says what they are.
    """
    from tilth.models.export import export_model, weights_beside
    from tilth.models.segmenter import Segmenter
    from tilth.models.weights.importing import warning_of_fresh_parts

    for place in (options.out, weights_beside(options.out)):
        if place.is_file() and not options.overwrite:
            raise OutputExistsError(f"{place}: exists already; give another --out, or --overwrite to replace it")
    model = Segmenter.load(options.model)
    height, width = options.size * 2 if len(options.size) == 1 else options.size
    if (warning := warning_of_fresh_parts(options.model)) is not None:
        console.warn(warning)
    console.status(f"writing {model.config.network.title} at {height} x {width} pixels")
    with _ended_in_order():
        done = export_model(model, options.out, options.format, (height, width), batch=options.batch, normalisation=options.normalisation)
    if options.batch is None and done.batch is not None:
        console.warn(f"{model.config.network.title} cannot be written for any number of images; the graph takes {done.batch}")
    takes = f"{model.sensor.dtype} as stored" if options.normalisation else "float32, normalised"
    count = "B" if done.batch is None else str(done.batch)
    checked = (
        "not run here: onnxruntime is not installed"
        if done.difference is None
        else f"its logits differ from the model's by {done.difference:.1e} at most, on random pixels"
    )
    return Result(
        summary=(
            f"image ({count}, {len(model.sensor)}, {height}, {width}) {takes} -> logits ({count}, {len(model.scheme)}, {height}, {width})",
            checked,
        ),
        outputs={"graph": done.files[0], **({"weights": done.files[1]} if len(done.files) > 1 else {})},
        values={"difference": done.difference, "batch": done.batch, "size": (height, width)},
    )


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that half a graph of gigabytes is removed; only the main thread may set what a signal does."""

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

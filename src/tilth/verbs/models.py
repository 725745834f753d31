"""``tilth models list|info``: which networks go by a name, and what can be set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pydantic

from tilth.config import Config
from tilth.verbs.console import Console
from tilth.verbs.registry import Result, verb

if TYPE_CHECKING:
    from tilth.models.named import Named

_COLUMNS = ("name", "kind", "bands", "parameters", "what it is")
_CALLED = {
    "segmentation": "image -> logits",
    "multi-task": "image and task -> logits",
    "fusion": "one image for each modality -> one logits tensor for each branch",
    "diffusion": "noisy image and noise level -> noise",
}


class ModelsListOptions(Config):
    """Options of ``tilth models list``."""


class ModelsInfoOptions(Config):
    """Options of ``tilth models info``."""

    name: str = pydantic.Field(json_schema_extra={"positional": True}, description="name of a network, as tilth models list gives it")


@verb("models list", ModelsListOptions)
def models_list(_options: ModelsListOptions, _console: Console) -> Result:
    """List the networks that go by a name: kind, bands, parameters."""
    from tilth.models.by_name import available
    from tilth.models.named import NAMES

    counts = available()
    rows = [_COLUMNS, *((name, named.kind, _bands(named), f"{counts[name]:,}", named.summary) for name, named in NAMES.items())]
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    values = {name: {"kind": named.kind, "in_channels": named.in_channels, "parameters": counts[name]} for name, named in NAMES.items()}
    return Result(
        summary=(*lines, "parameters: with these bands, 16 classes and 512 pixels; any encoder of timm goes with network.encoder=NAME"),
        values={"networks": values},
    )


@verb("models info", ModelsInfoOptions)
def models_info(options: ModelsInfoOptions, _console: Console) -> Result:
    """Describe a network that goes by a name, with all its options."""
    import torch

    from tilth.models.by_name import create
    from tilth.models.describe import options_of
    from tilth.models.named import NAMES

    with torch.device("meta"):
        network = create(options.name, seed=0)
    named = NAMES[options.name]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    settings = options_of(options.name)
    layout = getattr(network, "layout", None)
    values: dict[str, Any] = {
        "name": options.name,
        "kind": named.kind,
        "in_channels": named.in_channels,
        "parameters": parameters,
        "layout": layout,
        "options": {setting.name: setting.default for setting in settings},
    }
    lines = [
        f"{options.name}: {named.summary}",
        f"kind:       {named.kind} ({_CALLED[named.kind]})",
        f"bands:      {_bands(named)}, or as many as the sensor has",
        f"parameters: {parameters:,} with these bands, 16 classes and 512 pixels",
        f"published:  {f'weights in layout {layout}' if layout else 'nobody published weights for the whole of it'}",
        "options:",
        *_table((setting.name, _show(setting.default), setting.description) for setting in settings),
    ]
    return Result(summary=tuple(lines), values=values)


def _table(rows: Iterator[tuple[str, str, str]]) -> list[str]:
    listed = list(rows)
    first, second = (max((len(row[index]) for row in listed), default=0) for index in (0, 1))
    return [f"  {name.ljust(first)}  {default.ljust(second)}  {text}".rstrip() for name, default, text in listed]


def _bands(named: Named) -> str:
    return " + ".join(str(bands) for bands in ((named.in_channels,) if isinstance(named.in_channels, int) else named.in_channels))


def _show(default: Any) -> str:
    if default is None:
        return "-"
    if isinstance(default, bool):
        return "yes" if default else "no"
    return str(list(default)) if isinstance(default, tuple) else str(default)

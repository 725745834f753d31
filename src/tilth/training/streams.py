"""Streams: how the tile of a slot gets from disk to the training device.

Rank *r* of R takes slots [r B / R, (r + 1) B / R) of a step. So neither the number of workers nor of ranks nor an interruption changes
what is trained on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader

from tilth.errors import ConfigError, TilthError
from tilth.training.collate import AnyRaw, RawBatch, collate, to_batch
from tilth.training.feature_samples import FeatureDataset, FeatureSample, RawFeatures
from tilth.training.order import Key
from tilth.training.samples import Sample, TileDataset

__all__ = ["AnyRaw", "FeatureDataset", "RawBatch", "Sample", "TileDataset", "build_loader", "collate", "plain_errors", "to_batch"]


class _Schedule:
    """The keys of every micro-batch of one rank, from a step on."""

    def __init__(self, streams: Sequence[str], steps: range, slots: Sequence[range]) -> None:
        self.streams, self.steps, self.slots = streams, steps, slots

    def __iter__(self) -> Iterator[list[Key]]:
        for step in self.steps:
            for slots in self.slots:
                yield [(stream, step, slot) for stream in self.streams for slot in slots]

    def __len__(self) -> int:
        return len(self.steps) * len(self.slots)


class _Collate:
    """Sorts the samples of a micro-batch back into streams."""

    def __init__(self, streams: Sequence[str]) -> None:
        self.streams = streams

    def __call__(self, samples: list[Sample] | list[FeatureSample]) -> dict[str, AnyRaw]:
        size = len(samples) // len(self.streams)
        put_together: Any = RawFeatures.of if isinstance(samples[0], FeatureSample) else collate
        return {stream: put_together(samples[place * size : (place + 1) * size]) for place, stream in enumerate(self.streams)}


def build_loader(
    dataset: TileDataset | FeatureDataset, steps: range, *, accumulate: int, rank: int, ranks: int, workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """Build the loader of one rank: ``accumulate`` dictionaries of raw batches for each step.

    Raises:
        ConfigError: the batch cannot be cut evenly over ranks and accumulation steps.
    """
    total = dataset.order.batch_size
    if total % (ranks * accumulate):
        raise ConfigError(
            f"batch_size {total} cannot be cut evenly over {ranks} devices and {accumulate} accumulation steps; choose a multiple"
        )
    size = total // (ranks * accumulate)
    own = range(rank * total // ranks, (rank + 1) * total // ranks)
    slots = [range(start, start + size) for start in range(own.start, own.stop, size)]
    streams = list(dataset.order.streams)
    return DataLoader(
        dataset,
        batch_sampler=_Schedule(streams, steps, slots),
        collate_fn=_Collate(streams),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_stand_apart,
        persistent_workers=False,
    )


def plain_errors(loader: Iterable[Any]) -> Iterator[Any]:
    """Go through a loader; what tilth raised in a worker process arrives as the one line it was, without the worker's traceback."""
    try:
        yield from loader
    except TilthError as error:
        text = str(error)
        if not text.startswith("Caught "):
            raise
        raise type(error)(text.strip().splitlines()[-1].partition(": ")[2]) from None


def _stand_apart(_worker: int) -> None:
    """Ctrl-C and termination reach a whole process group; only the main process decides what they mean, and ends its workers itself."""
    os.setpgrp()
    torch.set_num_threads(1)

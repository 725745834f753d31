"""Defects of the official S5 program that concern methods and their streams (s5_pretrain.md section 12); ours is free of them.

B4, B5 and B7 (beginnings and ends of runs) are in tests/training/test_ends_of_runs.py, B8 (no resume) in test_s4p_resume.py beside it;
B12 (pixelavg) and B13 (views that nobody sees) in test_every_variant.py; those of networks in
tests/models/test_defects_of_published_networks.py; B1 in two real processes in tests/training/test_tiles_of_two_processes.py.
"""

from __future__ import annotations

from collections import Counter

import torch

from support.s4p_steps import make_batches, make_method
from tilth.augment.config import CutMixConfig, StrongConfig, WeakConfig
from tilth.augment.cutmix import boxes
from tilth.augment.strong import draw_strong
from tilth.methods.s4p.channels import kept_channels
from tilth.training.order import Order
from tilth.training.streams import TileDataset, build_loader


def of_two_processes(catalogs, steps: int = 12):
    """What each of two processes is given: for each step a dictionary of raw batches."""
    streams = make_method().streams
    chosen = {name: catalogs[0] if stream.source == "labelled" else catalogs[1] for name, stream in streams.items()}
    order = Order(0, streams, {name: len(rows) for name, rows in chosen.items()}, 4)
    dataset = TileDataset(order, chosen, 3, WeakConfig(size=32))
    return [list(build_loader(dataset, range(steps), accumulate=1, rank=rank, ranks=2, workers=0, pin_memory=False)) for rank in range(2)]


def test_partner_is_another_image_in_every_process_and_pairs_are_not_fixed(catalogs):
    """B1: both unlabelled loaders share one sampler, so the partner is another crop of the same image."""
    pairs = Counter()
    for batches in of_two_processes(catalogs):
        for batch in batches:
            for own, partner in zip(batch["unlabelled"].tile_id, batch["partner"].tile_id, strict=True):
                assert own != partner
                pairs[own, partner] += 1
    assert len(pairs) > 20
    assert len({partner for own, partner in pairs if own == "pool/0"}) > 2


def test_processes_draw_other_numbers_and_the_same_ones_again(catalogs):
    """B9: all processes share one seed, so their augmentations repeat each other."""
    first, second = of_two_processes(catalogs)
    drawn = [[batch[stream].draw for batch in batches for stream in batch] for batches in (first, second)]
    flat = [draw for batches in drawn for draws in batches for draw in draws]
    assert len(set(flat)) == len(flat)
    ours, theirs = first[0]["unlabelled"].draw, second[0]["unlabelled"].draw
    assert draw_strong(ours[0], StrongConfig()) != draw_strong(theirs[0], StrongConfig())
    config = CutMixConfig(probability=1)
    assert not torch.equal(boxes(ours, 64, 64, config), boxes(theirs, 64, 64, config))
    kept = [kept_channels(draws, [64], 0.5, torch.device("cpu"))[0] for draws in (ours, theirs)]
    assert not torch.equal(kept[0], kept[1])
    assert drawn == [[batch[stream].draw for batch in batches for stream in batch] for batches in of_two_processes(catalogs)]


def test_nothing_valid_is_zero_not_nan():
    """B10: a batch of padding alone makes the published loss NaN."""
    batches = make_batches()
    batches["unlabelled"]["valid"][:] = False
    batches["partner"]["valid"][:] = False
    for variant in ("fixmatch", "unimatch", "corrmatch", "wscl"):
        losses = make_method(variant).step(batches, 0)
        assert torch.isfinite(losses.total)
        assert all(value == 0 for name, value in losses.terms.items() if not name.startswith("loss_labelled"))

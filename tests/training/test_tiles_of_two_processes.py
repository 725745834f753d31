"""Two processes of one training: each has tiles of its own, together those of one process, and boxes come from other images."""

from __future__ import annotations

import json

import pytest

from support import rank_tiles
from support.resuming import run_two
from support.s4p_steps import make_method
from tilth.training.streams import build_loader


@pytest.fixture(scope="module")
def ranks(server, data, tmp_path_factory):
    """What each of two gloo processes was given in every variant."""
    folder = tmp_path_factory.mktemp("ranks")
    run_two(server, [str(data[0]), str(data[1]), str(folder)], folder / "log", rank_tiles.__file__)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(("variant", "partner"), rank_tiles.RUNS)
def test_two_processes_see_other_tiles_and_together_those_of_one(ranks, data, variant, partner):
    streams = dict(make_method(variant, partner=partner).streams)
    dataset = rank_tiles.dataset_for(streams, *map(str, data))
    one = build_loader(dataset, range(rank_tiles.STEPS), accumulate=1, rank=0, ranks=1, workers=0, pin_memory=False)
    first, second = (rank[f"{variant} {partner}"] for rank in ranks)
    for step, (whole, left, right) in enumerate(zip(one, first, second, strict=True)):
        for stream in streams:
            assert left["tiles"][stream] + right["tiles"][stream] == whole[stream].tile_id, (step, stream)
        assert left["draws"] + right["draws"] == whole["unlabelled"].draw
        if not step:  # later steps may lie across the end of an epoch, behind which a tile may come at once again
            assert all(not set(left["tiles"][stream]) & set(right["tiles"][stream]) for stream in streams)
            assert not set(left["tiles"]["unlabelled"]) & set(left["tiles"].get("partner", []))


@pytest.mark.parametrize(("variant", "partner"), rank_tiles.RUNS)
def test_boxes_come_from_other_images_in_both_processes(ranks, variant, partner):
    lent = []
    for rank in ranks:
        steps = rank[f"{variant} {partner}"]
        for step in steps:
            assert len(step["pasted"]) == rank_tiles.BATCH // 2
            alike = len(set(step["tiles"]["unlabelled"])) == 1  # across the end of an epoch a batch may hold one tile twice
            for own, tile, lender, lent_tile in step["pasted"]:
                assert own != lender
                assert tile != lent_tile or (partner == "batch" and alike)
        lent.append({lender for step in steps for _, _, lender, _ in step["pasted"]})
    assert not lent[0] & lent[1]

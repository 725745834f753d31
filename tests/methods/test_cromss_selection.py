"""Which labels CromSS lets count: exactly the surest of each class, over one or several processes, ignored pixels left out."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from support.cromss_method import CLASSES, tensors
from tilth.methods.cromss.ramps import kept_ratio, ramp
from tilth.methods.cromss.selection import Selection, select


def by_sorting(confidence: Tensor, label: Tensor, classes: int, ratio: float, rare: str = "keep") -> Tensor:
    """Weights by one top-k a class."""
    weight = torch.zeros_like(confidence)
    for modality in range(len(confidence)):
        for index in range(classes):
            inside = label == index
            values = confidence[modality][inside]
            count = int(np.floor(np.float32(len(values)) * np.float32(ratio)))
            count = max(count, 1) if rare == "keep" else count
            if not len(values) or not count:
                continue
            limit = values.topk(count).values[-1]
            weight[modality][inside] = (values / limit).clamp(max=1) if limit > 0 else torch.ones_like(values)
    return weight


def draw(seed: int, classes: int = 5, size: int = 40, modalities: int = 2, batch: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(modalities, batch, size, size, generator=generator) ** (seed % 5 + 0.2)
    return confidence, torch.randint(0, classes, (batch, size, size), generator=generator)


def test_weights_at_every_epoch_are_the_published_ones():
    stored, recorded = tensors("selection"), 0
    confidence = torch.stack([stored["lbl_enh1"], stored["lbl_enh2"]])
    for name, wanted in stored.items():
        if "lblmask" in name:
            kind, epoch, *rest = name.split("_")
            ratio = kept_ratio(ramp(kind, int(epoch[2:]), 80), 0.5)
            found = select(confidence, stored["y"], CLASSES, ratio, balanced="global1" not in rest and "global2" not in rest, rare="drop")
            weight = found.weight[int(name[-1]) - 1]
            torch.testing.assert_close(weight, wanted, atol=1e-6, rtol=0)
            assert (weight == 1).sum() == (wanted == 1).sum()
            recorded += 1
    assert recorded == 40


@pytest.mark.parametrize("ratio", [0.999, 0.7, 0.5, 0.01])
@pytest.mark.parametrize("rare", ["keep", "drop"])
def test_weights_equal_one_top_k_for_each_class(ratio, rare):
    for seed in range(4):
        confidence, label = draw(seed)
        label[0, :2] = 255
        label[label == 4] = torch.where(torch.rand((label == 4).sum()) < 0.99, 0, 4)  # a class of few pixels
        found = select(confidence, label, 5, ratio, rare=rare)
        assert torch.equal(found.weight, by_sorting(confidence, label, 5, ratio, rare))
        assert torch.equal(found.selected, found.weight == 1)


def test_ties_at_the_threshold_are_all_selected():
    confidence, label = draw(0)
    confidence = (confidence * 8).round() / 8
    found = select(confidence, label, 5, 0.5)
    assert torch.equal(found.weight, by_sorting(confidence, label, 5, 0.5))
    assert torch.equal(select(torch.ones_like(confidence), label, 5, 0.5).weight, torch.ones_like(confidence))


def test_numbers_next_to_each_other_are_told_apart():
    values = torch.tensor([0.7], dtype=torch.float32).view(torch.int32) + torch.arange(16, dtype=torch.int32)
    confidence = values.view(torch.float32)[torch.randperm(16)].view(1, 1, 4, 4)
    found = select(confidence, torch.zeros(1, 4, 4, dtype=torch.int64), 1, 0.25)
    assert found.selected.sum() == 4
    assert torch.equal(found.selected.flatten(), confidence.flatten() >= confidence.flatten().topk(4).values[-1])


def test_classes_of_one_pixel_are_kept_unless_asked_otherwise():  # finding 3
    label = torch.zeros(1, 4, 4, dtype=torch.int64)
    label[0, 0, 0] = 1
    confidence = torch.rand(1, 1, 4, 4).clamp(min=0.01)
    assert select(confidence, label, 2, 0.99).weight[0, 0, 0, 0] == 1
    assert select(confidence, label, 2, 0.99, rare="drop").weight[0, 0, 0, 0] == 0


def test_one_ranking_of_all_classes_takes_the_surest_pixels():  # finding 9
    confidence, label = draw(1)
    found = select(confidence, label, 5, 0.5, balanced=False)
    assert torch.equal(found.weight, by_sorting(confidence, torch.zeros_like(label), 1, 0.5))


def test_nothing_and_everything():
    confidence, label = draw(2)
    label[0, 0] = 255
    known = (label != 255).expand_as(confidence)
    assert torch.equal(select(confidence, label, 5, 1.0).weight, known.float())
    assert torch.equal(select(confidence, label, 5, 0.0).weight, torch.where(known, confidence, 0.0))
    none = select(confidence, torch.full_like(label, 255), 5, 0.5)
    assert none.weight.abs().max() == 0
    assert not none.selected.any()


def test_confidence_of_zero_is_believed_where_nothing_is_better():
    label = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert torch.equal(select(torch.zeros(1, 1, 4, 4), label, 1, 0.5).weight, torch.ones(1, 1, 4, 4))


def test_ignored_pixels_are_not_ranked():  # finding 6
    stored = tensors("ignore")
    confidence = torch.stack([stored["lbl_enh1"], stored["lbl_enh2"]])
    ratio = kept_ratio(ramp("exp", int(stored["epoch"]), 80), 0.5)
    for value in (CLASSES, 255, -1):
        label = torch.where(stored["y"] == CLASSES, value, stored["y"])
        found = select(confidence, label, CLASSES, ratio, rare="drop")
        for place in range(2):
            torch.testing.assert_close(found.weight[place], stored[f"lblmask{place + 1}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("ratio", [0.9, 0.5])
def test_one_histogram_is_right_to_a_thousandth(ratio):
    for seed in range(3):
        confidence, label = draw(seed, size=128)
        exact, coarse = (select(confidence, label, 5, ratio, ranking=ranking) for ranking in ("exact", "histogram"))
        assert (exact.selected & ~coarse.selected).sum() == 0
        for modality in range(2):
            for index in range(5):
                inside = label == index
                limits = [confidence[modality][inside & item.selected[modality]].min() for item in (exact, coarse)]
                assert limits[0] - limits[1] < 1e-3


def test_processes_that_rank_together_select_what_one_would():
    confidence, label = draw(3, batch=4)
    halves = [(confidence[:, :2], label[:2]), (confidence[:, 2:], label[2:])]
    meeting = threading.Barrier(2)
    brought: list[Tensor] = [torch.empty(0)] * 2
    found: list[Selection | None] = [None, None]

    def work(rank: int) -> None:
        def pooled(counts: Tensor) -> Tensor:
            brought[rank] = counts
            meeting.wait()
            total = brought[0] + brought[1]
            meeting.wait()
            return total

        found[rank] = select(*halves[rank], 5, 0.5, pooled=pooled)

    workers = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    together = torch.cat([item.weight for item in found if item is not None], dim=1)
    assert torch.equal(together, select(confidence, label, 5, 0.5).weight)
    alone = torch.cat([select(*half, 5, 0.5).weight for half in halves], dim=1)
    assert not torch.equal(together, alone)

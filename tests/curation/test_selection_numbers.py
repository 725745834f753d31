"""Order, quotas and walk: against the published worked example, and against the slowest program that could do the same."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.curation_world import SCHEME
from support.official_s5 import S5, normal, read_json
from tilth.curation.clusters import ArrayRows, assign
from tilth.curation.entropy import READINGS, background_classes, pixel_entropies, tile_entropies
from tilth.curation.selection import entropy_order, share_out, walk
from tilth.errors import UsageError

EXAMPLE = read_json(S5 / "curation_a.json")


@pytest.fixture(scope="module")
def example():
    prototypes = normal("input:curation_a_prototypes", (EXAMPLE["M"], EXAMPLE["d"])).numpy()
    candidates = normal("input:curation_a_candidates", (EXAMPLE["N"], EXAMPLE["d"])).numpy()
    entropies = normal("input:curation_a_entropy", (EXAMPLE["N"],)).abs().numpy()
    return prototypes, candidates, entropies


def test_worked_example_is_reproduced(example):
    prototypes, candidates, entropies = example
    clusters, similarity = assign(ArrayRows(candidates), prototypes)
    assert clusters.tolist() == EXAMPLE["assignment"]
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (candidates.astype(np.float64), prototypes.astype(np.float64))]
    np.testing.assert_allclose(similarity, (unit[0] @ unit[1].T).max(axis=1), atol=1e-6)
    quotas = share_out(EXAMPLE["target"], np.array(EXAMPLE["labelled_per_cluster"]))
    assert quotas.tolist() == EXAMPLE["quotas"]
    order = entropy_order(entropies)
    assert order.tolist() == EXAMPLE["entropy_order"]
    strict = walk(order, clusters.astype(np.int64), quotas, fill_shortfall=False)
    assert strict.taken.tolist() == EXAMPLE["selected_by_quota"]
    assert strict.used.tolist() == EXAMPLE["per_cluster_taken"]
    assert walk(order, clusters.astype(np.int64), quotas).taken.tolist() == EXAMPLE["selected_after_shortfall_fill"]


def test_entropy_of_the_worked_example_in_all_readings():
    probabilities = (3 * normal("input:curation_a_logits", (16, 6, 6))).softmax(dim=0)[None]
    found = tile_entropies(probabilities, torch.ones(1, 6, 6, dtype=torch.bool), (0,))[0]
    names = {"foreground": "excluding_background"}
    for value, reading in zip(found.tolist(), READINGS, strict=True):
        assert value == pytest.approx(EXAMPLE["entropy"][names.get(reading, reading)], abs=1e-6)


def slow_quotas(total, counts):
    shares = [Fraction(total * count, sum(counts)) for count in counts]
    quotas = [int(share) for share in shares]
    missing = total - sum(quotas)
    for _ in range(missing):
        # max gives the first of equals: ties go to the lower index.
        best = max(range(len(counts)), key=lambda index: shares[index] - quotas[index])
        quotas[best] += 1
    return quotas


def slow_walk(entropies, clusters, quotas, target, fill):
    order = sorted(range(len(entropies)), key=lambda index: (entropies[index], index))
    left, taken = list(quotas), []
    for index in order:
        if left[clusters[index]] > 0:
            left[clusters[index]] -= 1
            taken.append(index)
    within = set(taken)
    if fill:
        for index in order:
            if len(taken) < target and index not in within:
                taken.append(index)
    return order, taken


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("target", [1, 300, 1000, 2000])
def test_two_thousand_rows_as_the_slowest_program_takes_them(target, fill):
    draw = np.random.default_rng(target)
    features, prototypes = draw.standard_normal((2000, 12), dtype=np.float32), draw.standard_normal((17, 12), dtype=np.float32)
    # Few values, so that many are equal.
    entropies = draw.integers(0, 200, 2000) / 100
    counts = draw.integers(0, 40, 17)
    clusters, _ = assign(ArrayRows(features), prototypes)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (features.astype(np.float64), prototypes.astype(np.float64))]
    assert clusters.tolist() == [int(np.argmax([row @ one for one in unit[1]])) for row in unit[0]]
    quotas = share_out(target, counts)
    assert quotas.tolist() == slow_quotas(target, counts.tolist())
    order, taken = slow_walk(entropies.tolist(), clusters.tolist(), quotas.tolist(), target, fill)
    assert entropy_order(entropies).tolist() == order
    found = walk(entropy_order(entropies), clusters.astype(np.int64), quotas, fill_shortfall=fill)
    assert found.taken.tolist() == taken
    assert found.within == sum(min(quota, count) for quota, count in zip(quotas.tolist(), np.bincount(clusters, minlength=17), strict=True))


@given(st.integers(0, 10**7), st.lists(st.integers(0, 10**6), min_size=1, max_size=40).filter(any))
def test_quotas_add_up_and_are_off_by_less_than_one(total, counts):
    quotas = share_out(total, np.array(counts))
    assert quotas.sum() == total
    for quota, count in zip(quotas.tolist(), counts, strict=True):
        assert abs(quota * sum(counts) - total * count) < sum(counts)


def test_equal_remainders_go_to_the_lower_index():
    assert share_out(2, np.array([1, 1, 1, 1])).tolist() == [1, 1, 0, 0]
    assert share_out(0, np.array([3, 4])).tolist() == [0, 0]


def test_more_places_than_tiles_take_all():
    found = walk(np.array([0, 2, 1]), np.array([0, 1, 0]), np.array([1, 5]))
    assert found.taken.tolist() == [0, 1, 2]
    assert found.used.tolist() == [1, 1]


# Entropies.


def test_pixels_that_are_not_valid_do_not_count_and_all_invalid_is_not_a_number():
    draw = torch.Generator().manual_seed(0)
    probabilities = torch.randn(3, 5, 7, 9, generator=draw).softmax(dim=1)
    valid = torch.rand(3, 7, 9, generator=draw) > 0.5
    valid[2] = False
    found = tile_entropies(probabilities, valid, (0, 3))
    for image in range(2):
        sums = np.zeros(3)
        for row, column in valid[image].nonzero().tolist():
            values = probabilities[image, :, row, column].double().numpy()
            kept = values[[1, 2, 4]]
            sums += [-(kept * np.log(kept)).sum(), -(values * np.log(values)).sum(), -(kept / kept.sum() * np.log(kept / kept.sum())).sum()]
        np.testing.assert_allclose(found[image].numpy(), sums / int(valid[image].sum()), atol=1e-6)
    assert found[2].isnan().all()


def test_certain_pixels_have_no_entropy_in_any_reading():
    certain = torch.nn.functional.one_hot(torch.tensor([[[0, 1], [2, 2]]]), 3).permute(0, 3, 1, 2).float()
    assert (pixel_entropies(certain, (0,)) == 0).all()


def test_foreground_readings_do_not_depend_on_how_sure_background_is_but_by_its_share():
    pixel = torch.tensor([0.98, 0.01, 0.01]).reshape(1, 3, 1, 1)
    printed, every, alone = pixel_entropies(pixel, (0,)).flatten().tolist()
    assert printed == pytest.approx(-0.02 * np.log(0.01), abs=1e-6)
    assert every == pytest.approx(printed - 0.98 * np.log(0.98), abs=1e-6)
    assert alone == pytest.approx(np.log(2), abs=1e-6)


def test_without_background_all_readings_agree_and_names_decide_what_it_is():
    probabilities = torch.randn(1, 4, 5, 5).softmax(dim=1)
    found = pixel_entropies(probabilities, ())
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])
    assert background_classes(SCHEME, None) == (0,)
    assert background_classes(SCHEME, ("tank", "ship")) == (1, 3)
    assert background_classes(SCHEME, ()) == ()
    with pytest.raises(UsageError, match="did you mean 'ship'"):
        background_classes(SCHEME, ("shipp",))
    with pytest.raises(UsageError, match="leave one as foreground"):
        background_classes(SCHEME, SCHEME.names)

"""k-means over chunks is Lloyd's algorithm, to the last digit that counts, however it is cut up and interrupted."""

from __future__ import annotations

import numpy as np
import pytest

from tilth.curation import clusters
from tilth.curation.clusters import ArrayRows, Clusters, assign, count_rows, lloyd, read_clusters, seed_centres, write_clusters
from tilth.curation.store import ChosenRows, MappedRows
from tilth.errors import DataError


def blobs(rows: int = 700, kinds: int = 9, width: int = 10, spread: float = 0.4, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    made = draw.standard_normal((kinds, width))[draw.integers(0, kinds, rows)] + spread * draw.standard_normal((rows, width))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def start(values: np.ndarray, count: int = 9, seed: int = 0) -> Clusters:
    centres = seed_centres(ArrayRows(values), count, seed=seed, seeding_rows=10**6)
    return Clusters(centres, np.zeros(len(centres), np.int64))


def slow_lloyd(values, centres, steps):
    values, centres = values.astype(np.float64), centres.astype(np.float64)
    for _ in range(steps):
        nearest = np.array([np.argmin(((row - centres) ** 2).sum(axis=1)) for row in values])
        centres = np.stack([values[nearest == index].mean(axis=0) for index in range(len(centres))])
    return centres


def test_steps_are_those_of_the_slowest_program_whatever_the_chunks(monkeypatch):
    values = blobs(300)
    first = start(values)
    expected = slow_lloyd(values, first.centres, 4)
    for chunk in (37, 300, 8192):
        monkeypatch.setattr(clusters, "CHUNK", chunk)
        found = lloyd(ArrayRows(values), first, iterations=4)
        np.testing.assert_allclose(found.centres, expected, atol=2e-6)
        assert found.iterations == 4


def test_it_comes_to_an_end_where_scikit_learn_does():
    from sklearn.cluster import KMeans

    values = blobs()
    first = start(values)
    found = lloyd(ArrayRows(values), first, iterations=100)
    assert found.converged
    theirs = KMeans(9, init=first.centres, n_init=1, max_iter=100, tol=0).fit(values)
    np.testing.assert_allclose(found.centres, theirs.cluster_centers_, atol=1e-5)
    assert found.counts.tolist() == np.bincount(theirs.labels_, minlength=9).tolist()
    assert found.counts.tolist() == count_rows(ArrayRows(values), found.centres).tolist()
    assert lloyd(ArrayRows(values), found, iterations=100) == found


def test_interrupted_search_goes_on_to_the_same_bytes(tmp_path):
    values = blobs(spread=1.5)
    whole = lloyd(ArrayRows(values), start(values), iterations=30)
    assert whole.iterations > 6

    class StopError(Exception):
        pass

    def die(now: Clusters) -> None:
        write_clusters(tmp_path / "c.safetensors", "s", now)
        if now.iterations == 3:
            raise StopError

    with pytest.raises(StopError):
        lloyd(ArrayRows(values), start(values), iterations=30, after=die)
    kept = read_clusters(tmp_path / "c.safetensors", "s")
    assert kept is not None
    assert kept.iterations == 3
    again = lloyd(ArrayRows(values), kept, iterations=30)
    assert again.centres.tobytes() == whole.centres.tobytes()
    assert (again.iterations, again.converged, again.counts.tolist()) == (whole.iterations, whole.converged, whole.counts.tolist())
    assert read_clusters(tmp_path / "c.safetensors", "other") is None
    (tmp_path / "c.safetensors").write_bytes(b"torn")
    assert read_clusters(tmp_path / "c.safetensors", "s") is None
    assert read_clusters(tmp_path / "none", "s") is None


def test_centre_without_rows_moves_to_the_row_furthest_from_its_own():
    values = blobs()
    centres = np.concatenate([start(values).centres, np.full((1, 10), 50, np.float32)])
    found = lloyd(ArrayRows(values), Clusters(centres, np.zeros(10, np.int64)), iterations=1)
    distances = ((values[:, None] - centres[None, :9]) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_array_equal(found.centres[9], values[np.argmax(distances)])
    assert (lloyd(ArrayRows(values), found, iterations=50).counts > 0).all()


def test_first_centres_are_rows_that_differ_and_follow_the_seed():
    values = blobs(60)
    assert seed_centres(ArrayRows(values), 8, seed=3, seeding_rows=1000).tolist() == start(values, 8, 3).centres.tolist()
    assert start(values, 8, 3).centres.tolist() != start(values, 8, 4).centres.tolist()
    assert len(np.unique(start(values, 60).centres, axis=0)) == 60
    rows = {row.tobytes() for row in values}
    assert all(row.tobytes() in rows for row in start(values, 8).centres)


def test_fewer_kinds_than_clusters_give_fewer_clusters():
    three = blobs(3).repeat(5, axis=0)
    assert len(start(three, 8).centres) == 3
    assert len(start(blobs(1), 8).centres) == 1
    with pytest.raises(DataError, match="no feature"):
        start(np.zeros((0, 4), np.float32))


def test_first_centres_are_drawn_by_squared_distance():
    values = np.array([[0.0, 0], [1, 0], [3, 0]], np.float32)
    pairs = [start(values, 2, seed).centres[:, 0].tolist() for seed in range(1500)]
    second = [pair[1] for pair in pairs if pair[0] == 0]
    assert len(second) / len(pairs) == pytest.approx(1 / 3, abs=0.04)
    assert second.count(3.0) / len(second) == pytest.approx(9 / 10, abs=0.05)


def test_large_pools_are_seeded_from_a_sample():
    values = blobs(500)
    found = seed_centres(ArrayRows(values), 5, seed=0, seeding_rows=50)
    assert len(found) == 5
    assert found.tolist() != start(values, 5).centres.tolist()


def test_similarity_is_the_cosine_and_zeros_have_none():
    values = np.concatenate([blobs(20), np.zeros((1, 10), np.float32)])
    nearest, likeness = assign(ArrayRows(values), 3 * values[:4])
    assert nearest[:4].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(likeness[:4], 1, atol=1e-6)
    assert (nearest[20], likeness[20]) == (0, 0)


def test_rows_in_pieces_are_read_as_if_they_were_one_array():
    values = blobs(23)
    rows = MappedRows([values[:5], values[5:6], values[6:]])
    np.testing.assert_array_equal(rows.part(3, 17), values[3:17])
    np.testing.assert_array_equal(rows.part(0, 23), values)
    picked = np.array([22, 0, 5, 5, 4])
    np.testing.assert_array_equal(rows.take(picked), values[picked])
    for positions in (np.arange(4, 20), np.array([1, 2, 4, 9, 21])):
        chosen = ChosenRows(rows, positions)
        np.testing.assert_array_equal(chosen.part(1, 4), values[positions[1:4]])
        np.testing.assert_array_equal(chosen.take(np.array([3, 0])), values[positions[[3, 0]]])
        assert len(chosen) == len(positions)

"""k-means maps: clusters of directions, colours by best overlap, sizes that do not divide, and nothing where there is no image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from support.tiny_models import SCHEME
from tilth.insight.clusters import NO_CLUSTER, best_classes, cluster, enlarge, overlap, shown_map, shrink
from tilth.insight.config import ClusterConfig, TsneConfig
from tilth.insight.figures import cluster_palette, paint_clusters
from tilth.insight.projection import colours_of, embed_pixels


def test_overlap_and_best_class_by_brute_force():
    draw = np.random.default_rng(3)
    clusters = draw.integers(0, 5, (19, 23)).astype(np.uint8)
    mask = draw.integers(0, 4, (19, 23)).astype(np.uint8)
    clusters[:3], mask[:, :4] = NO_CLUSTER, 255
    clusters[clusters == 4] = 3
    counts = overlap(clusters, mask, 5, 4)
    for number in range(5):
        for value in range(4):
            wanted = sum(clusters[row, column] == number and mask[row, column] == value for row in range(19) for column in range(23))
            assert counts[number, value] == wanted
    best = best_classes(counts)
    assert best[4] == 255, "no labelled pixel"
    for number in range(4):
        assert counts[number, best[number]] == max(counts[number])
    assert best_classes(np.array([[2, 5, 5]])).tolist() == [1], "of two that are as many, the smaller id"


def test_ignored_pixels_give_no_cluster_a_class():
    clusters = np.array([[0, 0, 0, 1, 1]], np.uint8)
    # Most of cluster 0 is ignored; the one labelled pixel decides.
    assert best_classes(overlap(clusters, np.array([[255, 255, 3, 255, 255]], np.uint8), 2, 4)).tolist() == [3, 255]


def test_colours_are_those_of_the_classes():
    clusters = np.array([[0, 1], [2, NO_CLUSTER]], np.uint8)
    painted = paint_clusters(clusters, np.array([1, 1, 255], np.uint8), SCHEME, ())
    assert tuple(painted[0, 0]) == SCHEME.colours[1]
    light = painted[0, 1].astype(int)
    assert (light > painted[0, 0]).all(), "the next cluster of one class has a lighter shade"
    assert (np.argsort(light) == np.argsort(painted[0, 0])).all()
    assert len({tuple(colour) for colour in painted.reshape(-1, 3).tolist()}) == 4, "no class, and no image, are two greys of their own"
    plain = paint_clusters(clusters, None, None, cluster_palette(10))
    assert len({tuple(colour) for colour in plain.reshape(-1, 3).tolist()}) == 4


def test_clusters_are_of_directions_not_of_lengths():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 3, (12, 10))
    vectors = np.eye(3, 8)[truth] * draw.uniform(0.1, 50, (12, 10, 1))
    found = cluster(vectors.transpose(2, 0, 1).astype(np.float32), np.ones((12, 10), bool), ClusterConfig(count=3), 0)
    pairs = set(zip(found.reshape(-1).tolist(), truth.reshape(-1).tolist(), strict=True))
    assert len(pairs) == 3
    assert (cluster(vectors.transpose(2, 0, 1).astype(np.float32), np.ones((12, 10), bool), ClusterConfig(count=3), 0) == found).all()


def test_fewer_different_pixels_than_clusters_and_none_at_all():
    same = np.ones((4, 3, 2), np.float32)
    assert set(np.unique(cluster(same, np.ones((3, 2), bool), ClusterConfig(), 0))) == {0}
    valid = np.zeros((3, 2), bool)
    assert (cluster(same, valid, ClusterConfig(), 0) == NO_CLUSTER).all()
    valid[1, 1] = True
    assert cluster(np.zeros((4, 3, 2), np.float32), valid, ClusterConfig(), 0)[1, 1] == 0


@pytest.mark.parametrize("stride", [2, 4, 16])
@pytest.mark.parametrize("native", [False, True])
def test_maps_are_resized_cut_and_laid_over_images_of_odd_sides(stride, native):
    found = torch.randn(3, 64 // stride, 96 // stride)
    shown, step = shown_map(found, stride, (50, 83), native=native)
    assert step == (stride if native else 4)
    assert shown.shape == (3, -(-50 // step), -(-83 // step))
    whole = found if native else F.interpolate(found[None], (16, 24), mode="bilinear", align_corners=False)[0]
    if stride == 2 and not native:
        whole = F.avg_pool2d(found, 2)
    torch.testing.assert_close(torch.from_numpy(shown), whole[:, : shown.shape[1], : shown.shape[2]])
    assert enlarge(shown[0], step, (50, 83)).shape == (50, 83)


def test_a_pixel_of_a_map_shows_something_where_one_valid_pixel_lies_in_it():
    valid = np.zeros((9, 6), bool)
    valid[4, 5] = valid[8, 0] = True
    assert shrink(valid, 4).tolist() == [[False, False], [False, True], [True, False]]


def test_colours_follow_the_strongest_components_on_one_scale():
    draw = np.random.default_rng(1)
    first, second = (draw.normal(size=(5, 20, 20)).astype(np.float32) * np.array([9, 3, 1, 0.1, 0.1])[:, None, None] for _ in range(2))
    seen = np.ones((20, 20), bool)
    seen[0] = False
    one, two = colours_of([first.astype(np.float32), second.astype(np.float32)], [seen, np.ones((20, 20), bool)])
    assert (one[0] == 128).all()
    for channel in range(3):
        for picture, values, valid in ((one, first, seen), (two, second, np.ones((20, 20), bool))):
            assert np.corrcoef(picture[valid][:, channel], values[channel][valid])[0, 1] > 0.9
    assert (colours_of([np.ones((2, 4, 4), np.float32)], [np.ones((4, 4), bool)])[0] == 0).all(), "nothing varies"
    assert (colours_of([first], [np.zeros((20, 20), bool)])[0] == 128).all()


def test_pixels_without_any_difference_few_channels_and_few_pixels_are_laid_out():
    alike = np.ones((20, 8), np.float32)
    assert not embed_pixels(alike, TsneConfig(), 0).any()
    assert not embed_pixels(alike[:3], TsneConfig(), 0).any()
    line = embed_pixels(np.arange(20, dtype=np.float32)[:, None], TsneConfig(), 0)
    assert line.shape == (20, 2)
    assert bool(np.isfinite(line).all())

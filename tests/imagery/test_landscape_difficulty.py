"""Landscapes are honest: colour alone does not solve them, context helps, no class gives itself away."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from tilth.imagery.landscape import LandscapeConfig, generate_landscape, landscape_scheme, observe
from tilth.sensors import get_sensor

CLASSES = len(landscape_scheme())


def context(image):
    """Mean, deviation, contrast and roughness at three scales beside the bands themselves: float32 (F, H, W)."""
    bands = image.astype(np.float32)
    edges = ndimage.gaussian_gradient_magnitude(bands.mean(axis=0), 0.8)
    features = [bands]
    for width in (5, 13, 31):
        mean = np.stack([ndimage.uniform_filter(band, width) for band in bands])
        square = np.stack([ndimage.uniform_filter(band * band, width) for band in bands])
        features += [mean, np.sqrt(np.maximum(square - mean * mean, 0)), bands - mean, ndimage.uniform_filter(edges, width)[None]]
    return np.concatenate(features)


def scenes(indices, sensor, gsd_m):
    """Pixels (N, C), context (N, F) and labels (N,) of several scenes, thinned to every fourth row and column."""
    colours, contexts, labels = [], [], []
    for index in indices:
        landscape = generate_landscape(LandscapeConfig(seed=21, index=index, height=256, width=256, gsd_m=gsd_m))
        image = observe(landscape, get_sensor(sensor))
        colours.append(image[:, ::4, ::4].reshape(len(image), -1).T)
        around = context(image)[:, ::4, ::4]
        contexts.append(around.reshape(len(around), -1).T)
        labels.append(landscape.label[::4, ::4].ravel())
    return np.concatenate(colours), np.concatenate(contexts), np.concatenate(labels)


def class_iou(features, labels, test_features, test_labels):
    """IoU by class of the better of two forests, one of them with balanced classes."""
    found = []
    for weight in (None, "balanced_subsample"):
        forest = RandomForestClassifier(10, min_samples_leaf=5, max_samples=0.5, class_weight=weight, random_state=0).fit(features, labels)
        given = forest.predict(test_features)
        found.append(
            [np.sum((test_labels == k) & (given == k)) / max(np.sum((test_labels == k) | (given == k)), 1) for k in range(CLASSES)]
        )
    return max(map(np.array, found), key=np.mean)


@pytest.mark.parametrize(("sensor", "gsd_m", "gain"), [("rgb", 2.5, 0.05), pytest.param("s1", 10, 0.1, marks=pytest.mark.slow)])
def test_context_beats_colour_and_colour_fails(sensor, gsd_m, gain):
    colours, contexts, labels = scenes(range(7), sensor, gsd_m)
    test_colours, test_contexts, test_labels = scenes(range(50, 54), sensor, gsd_m)
    by_colour = class_iou(colours, labels, test_colours, test_labels)
    by_context = class_iou(contexts, labels, test_contexts, test_labels)
    assert by_colour.mean() < 0.5
    assert by_colour.max() < 0.85, "a class gives itself away by its colour"
    assert by_context.mean() > by_colour.mean() + gain


@pytest.mark.slow
def test_twelve_bands_do_not_solve_it_pixel_by_pixel():
    colours, _, labels = scenes(range(7), "s2_l2a", 10)
    test_colours, _, test_labels = scenes(range(50, 54), "s2_l2a", 10)
    by_colour = class_iou(colours, labels, test_colours, test_labels)
    assert by_colour.mean() < 0.6
    # Water is black in the infrared, in the world as here; nothing else is told apart so easily.
    assert np.delete(by_colour, landscape_scheme().index("water")).max() < 0.75


def test_no_threshold_in_one_band_separates_a_class():
    landscape = generate_landscape(LandscapeConfig(seed=21, index=1, height=384, width=384, gsd_m=2.5))
    for band in observe(landscape, get_sensor("rgb")):
        for k in range(CLASSES):
            here = np.bincount(band[landscape.label == k], minlength=256).cumsum()
            there = np.bincount(band[landscape.label != k], minlength=256).cumsum()
            # IoU of "value <= t" and of "value > t" for every t.
            below = here / (here[-1] + there)
            above = (here[-1] - here) / (here[-1] + there[-1] - there)
            assert max(below.max(), above.max()) < 0.75

"""Label noise: each kind alone does what was asked, in the amount asked for."""

import numpy as np
import pytest

from tilth.errors import ConfigError
from tilth.imagery.landscape import LandscapeConfig, NoiseConfig, generate_landscape, landscape_scheme, noisy_labels
from tilth.imagery.landscape.label_noise import coarsen, displacement, leave_out, shift_boundaries
from tilth.seeds import generator

SCHEME = landscape_scheme()


@pytest.fixture(scope="module")
def landscape():
    return generate_landscape(LandscapeConfig(seed=8, height=384, width=384, gsd_m=5))


def objects_of(landscape, name):
    return np.unique(landscape.objects[landscape.label == SCHEME.index(name)])


def share_within(found, wanted, count):
    """Four standard deviations of a binomial share."""
    assert abs(found - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / count) + 1e-9, (found, wanted, count)


def first_label(landscape, label):
    """Label of one pixel of every object, after checking that all its pixels share it."""
    pairs = np.unique(np.stack([landscape.objects.ravel(), label.ravel().astype(np.int32)]), axis=1)
    assert pairs.shape[1] == len(landscape.traits), "an object carries two labels"
    return pairs[1]


def test_no_noise_gives_the_exact_label(landscape):
    assert np.array_equal(noisy_labels(landscape, NoiseConfig(seed=9)), landscape.label)


def test_noise_is_a_pure_function_of_its_seed(landscape):
    noise = NoiseConfig(
        seed=1,
        stale_objects=0.1,
        missing_objects=0.1,
        confusion={"grassland": {"cropland": 0.2}},
        boundary_shift_px=2,
        coarse_factor=2,
        ignore_share=0.1,
    )
    first = noisy_labels(landscape, noise)
    assert first.dtype == np.uint8
    assert first.tobytes() == noisy_labels(landscape, noise).tobytes()
    assert not np.array_equal(first, noisy_labels(landscape, noise.model_copy(update={"seed": 2})))


def test_kinds_do_not_disturb_each_other(landscape):
    one = NoiseConfig(confusion={"grassland": {"cropland": 0.3}})
    with_gaps = noisy_labels(landscape, one.model_copy(update={"ignore_share": 0.2}))
    kept = with_gaps != 255
    assert np.array_equal(with_gaps[kept], noisy_labels(landscape, one)[kept])


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_requested_share_of_objects_is_confused_whole(landscape, share):
    noise = NoiseConfig(confusion={"cropland": {"grassland": share, "bare": (1 - share) / 2}, "building": {"road": 0.5}})
    given = first_label(landscape, noisy_labels(landscape, noise))
    fields, houses = objects_of(landscape, "cropland"), objects_of(landscape, "building")
    share_within(np.mean(given[fields] == SCHEME.index("grassland")), share, len(fields))
    share_within(np.mean(given[fields] == SCHEME.index("bare")), (1 - share) / 2, len(fields))
    share_within(np.mean(given[houses] == SCHEME.index("road")), 0.5, len(houses))
    others = ~np.isin(landscape.label, [SCHEME.index("cropland"), SCHEME.index("building")])
    assert np.array_equal(noisy_labels(landscape, noise)[others], landscape.label[others])


def test_confusion_of_probability_one_takes_every_object(landscape):
    label = noisy_labels(landscape, NoiseConfig(confusion={"water": {"trees": 1.0}, "trees": {"water": 1.0}}))
    swapped = np.where(landscape.label == 0, 1, np.where(landscape.label == 1, 0, landscape.label))
    assert np.array_equal(label, swapped)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_requested_share_of_buildings_is_missing_and_ground_shows(landscape, share):
    label = noisy_labels(landscape, NoiseConfig(missing_objects=share, missing_classes=("building",)))
    house = landscape.label == SCHEME.index("building")
    ids = objects_of(landscape, "building")
    left = np.unique(landscape.objects[label == SCHEME.index("building")])
    assert set(left) <= set(ids)
    share_within(1 - len(left) / len(ids), share, len(ids))
    assert np.array_equal(label[~house], landscape.label[~house])


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_requested_share_of_changed_objects_is_stale(landscape, share):
    label = noisy_labels(landscape, NoiseConfig(stale_objects=share))
    changed = label != landscape.label
    assert np.array_equal(label[changed], landscape.former[changed])
    ids = np.unique(landscape.former_objects[landscape.former_objects >= 0])
    shown = np.unique(landscape.former_objects[changed])
    share_within(len(shown) / len(ids), share, len(ids))
    # Whole objects: no pixel of a stale object is up to date.
    assert changed[np.isin(landscape.former_objects, shown)].all()
    if share == 1.0:
        assert (label == SCHEME.index("building")).sum() > (landscape.label == SCHEME.index("building")).sum()


@pytest.mark.parametrize("shift_px", [1.0, 3.0])
def test_boundaries_move_by_the_requested_root_mean_square(shift_px):
    straight = np.zeros((512, 512), np.uint8)
    straight[:, 256:] = 1
    moved = shift_boundaries(straight, shift_px, generator(0, "shift"))
    edge = 512 - moved.sum(axis=1, dtype=int)
    assert np.sqrt(np.mean((edge - 256.0) ** 2)) == pytest.approx(shift_px, rel=0.3)
    by_row, by_column = displacement((200, 300), shift_px, generator(1, "shift"))
    assert np.sqrt(np.mean(by_row**2)) == pytest.approx(shift_px, rel=1e-3)
    assert np.sqrt(np.mean(by_column**2)) == pytest.approx(shift_px, rel=1e-3)


def test_more_shift_spoils_more_but_only_near_boundaries(landscape):
    wrong = [(noisy_labels(landscape, NoiseConfig(boundary_shift_px=shift)) != landscape.label).mean() for shift in (0.5, 1, 2, 4)]
    assert wrong == sorted(wrong)
    flat = np.full((64, 64), 3, np.uint8)
    assert np.array_equal(shift_boundaries(flat, 5, generator(0, "flat")), flat)


@pytest.mark.parametrize("factor", [2, 5, 64])
def test_coarse_labels_are_the_majority_of_their_block(factor):
    label = generator(0, "coarse").integers(0, 4, (23, 31)).astype(np.uint8)
    label[:4, :4] = 255
    expected = label.copy()
    for row in range(0, 23, factor):
        for column in range(0, 31, factor):
            block = label[row : row + factor, column : column + factor]
            expected[row : row + factor, column : column + factor] = np.bincount(block.ravel(), minlength=256).argmax()
    coarse = coarsen(label, factor)
    assert np.array_equal(coarse, expected)
    assert np.array_equal(coarsen(coarse, factor), coarse)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_requested_share_of_pixels_is_left_out(share):
    label = np.zeros((200, 200), np.uint8)
    assert (leave_out(label, share, generator(0, "ignore")) == 255).mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"confusion": {"wood": {"bare": 0.1}}}, "unknown class 'wood'"),
        ({"confusion": {"trees": {"bare": 0.7, "water": 0.6}}}, "add up to 1.3"),
        ({"missing_classes": ["house"]}, "unknown class 'house'"),
        ({"stale_objects": 1.5}, "stale_objects"),
        ({"shift": 1}, "unknown key 'shift'"),
    ],
)
def test_impossible_noise_is_refused_with_its_reason(values, message):
    with pytest.raises(ConfigError, match=message):
        NoiseConfig.parse(values)

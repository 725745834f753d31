"""Rotation by any angle. Oracles: torch's quarter turns, scipy's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tilth.augment.config import WeakConfig
from tilth.augment.rotation import rotate
from tilth.augment.weak import WeakDraw, WeakGeometry, draw_weak, weak_view
from tilth.imagery.read import Window
from tilth.seeds import generator
from tilth.sensors import get_sensor


def crops(size: int, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(size)
    return torch.from_numpy(rng.random((count, 2, size, size), np.float32)), torch.from_numpy(rng.integers(0, 256, (count, 3, size, size)))


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_quarter_turns_meet_the_pixels(size):
    image, maps = crops(size)
    turned, found = rotate(image, maps, [90, -90, 180])
    for sample, turns in enumerate((1, -1, 2)):
        assert torch.equal(found[sample], torch.rot90(maps[sample], turns, (1, 2)))
        torch.testing.assert_close(turned[sample], torch.rot90(image[sample], turns, (1, 2)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [9, 40])
def test_any_angle_is_interpolated_and_mirrored_as_scipy_does(size):
    ndimage = pytest.importorskip("scipy.ndimage")
    image, maps = crops(size)
    angles = [12.5, -71.0, 45.0]
    turned, found = rotate(image, maps, angles)
    middle = (size - 1) / 2
    for sample, angle in enumerate(np.deg2rad(angles)):
        # Rows and columns of the source; counter-clockwise, as rows count downwards.
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        shift = np.full(2, middle) - matrix @ np.full(2, middle)
        for band in range(2):
            wanted = ndimage.affine_transform(image[sample, band].numpy(), matrix, shift, order=1, mode="mirror")
            np.testing.assert_allclose(turned[sample, band].numpy(), wanted, atol=2e-4)
        wanted = ndimage.affine_transform(maps[sample, 0].numpy(), matrix, shift, order=0, mode="mirror")
        # Between two pixels either may be the nearest.
        assert (found[sample, 0].numpy() == wanted).mean() > 0.99


def test_draws_without_rotation_stay_what_they_were():
    plain, never = WeakConfig(size=32, rot90=True), WeakConfig(size=32, rot90=True, rotation=1.0)
    for key in range(20):
        one, other = draw_weak(generator(key), 50, 60, plain), draw_weak(generator(key), 50, 60, never)
        assert one.degrees == 0
        assert other.degrees != 0
        assert (one.x, one.y, one.new_height, one.hflip, one.quarter_turns) == (
            other.x,
            other.y,
            other.new_height,
            other.hflip,
            other.quarter_turns,
        )


def test_a_share_of_the_samples_is_rotated_by_a_uniform_angle():
    config = WeakConfig(size=8, rotation=0.2)
    angles = np.array([draw_weak(generator("angle", key), 9, 9, config).degrees for key in range(4000)])
    rotated = angles[angles != 0]
    assert abs(len(rotated) / 4000 - 0.2) < 0.03
    assert -90 <= rotated.min() < -85
    assert 85 < rotated.max() <= 90
    assert abs(rotated.mean()) < 6


def test_labels_and_holes_go_with_the_image():
    sensor, size = get_sensor("rgb"), 24
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(np.kron(rng.integers(0, 3, (2, 4, 4)), np.ones((6, 6))).astype(np.uint8))
    stored = (labels[:, None] * 100).expand(-1, 3, -1, -1).contiguous()
    valid = torch.ones(2, size, size, dtype=torch.bool)
    valid[:, 2:6, 3:9] = False
    geometry = [WeakGeometry(Window(0, 0, size, size), size, size, WeakDraw(size, size, 0, 0, degrees=angle)) for angle in (33.0, 0.0)]
    layers = torch.stack([labels, (labels + 1) % 3], 1)
    image, maps, seen = weak_view(stored, layers, valid, geometry, size, sensor)
    assert maps.shape == (2, 2, size, size)
    assert maps.dtype == torch.int64
    assert seen.dtype == torch.bool
    assert ((maps[:, 0] + 1) % 3 == maps[:, 1])[seen].all()
    assert (maps[:, :, :][~seen.unsqueeze(1).expand_as(maps)] == 255).all()
    assert torch.equal(seen[1], valid[1])
    assert 10 < int((~seen[0]).sum()) < 40
    # Far from edges and holes, colour and label still belong together.
    agree = (image[0, 0] == maps[0, 0] * 100)[seen[0]].float().mean()
    assert agree > 0.5
    alone = weak_view(stored, labels, valid, geometry, size, sensor)
    assert torch.equal(alone[1], maps[:, 0])
    assert torch.equal(alone[0], image)
    none = weak_view(stored, None, valid, geometry, size, sensor)
    assert (none[1] == 255).all()

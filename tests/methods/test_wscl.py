"""WSCL: the published arithmetic, its intent, halves, and the limit of the entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from support.s4p_steps import SIZE, make_batches, make_method
from tilth.augment.config import StrongConfig
from tilth.augment.strong import draw_strong, strong_view
from tilth.methods.base import build_method
from tilth.methods.s4p.wscl import entropy_bits, halves, mixes, percentile
from tilth.sensors import get_sensor


def replayed(recorded, replay, **settings):
    again = replay("wscl", mix_probability=1, **settings)
    # Neighbours take turns: the first image is needed in its first view, the second in its second.
    views = torch.stack([recorded.image("img_u_s1")[0], recorded.image("img_u_s2")[1]])
    again.replace("strong_view", lambda *_: views)
    again.replace("halves", lambda *_: recorded.half)
    keeping, found = again.module.health, []
    again.replace("health", lambda labels, kept, *rest: (found.append((labels, kept)), keeping(labels, kept, *rest))[1])
    again.method.student = lambda image: (again.passes.append(image), torch.cat([again.given("logits_x"), again.given("logits_u_s1")]))[1]
    batches = again.batches()
    batches["unlabelled"]["valid"].fill_(value=True)  # nothing is ignored in what was recorded
    return again, again.method.step(batches, 0), *found[0]


@pytest.mark.parametrize(("official", "wanted"), [(True, "official"), (False, "intended")])
def test_published_losses(recorded, replay, official, wanted):
    again, losses, labels, kept = replayed(recorded, replay, official=official)
    facts = recorded.facts["wscl"]
    assert torch.equal(labels.target, recorded.arrays["wscl_target"].long())
    assert torch.equal(kept, recorded.bits("wscl_keep", 2, 32, 32))
    torch.testing.assert_close(again.passes[0][2:, 0, ::2, ::2], recorded.arrays["wscl_img"], atol=0, rtol=0)
    assert losses.terms["loss_labelled"].item() == pytest.approx(facts["loss_l"], rel=1e-5)
    assert losses.terms["loss_unlabelled"].item() == pytest.approx(facts[f"loss_u_{wanted}"], rel=1e-5)
    assert losses.total.item() == pytest.approx(facts[f"loss_{wanted}"], rel=1e-5)
    above, below = losses.shares["accepted_share"]
    assert (above / below).item() == pytest.approx(facts["kept_fraction"], rel=1e-5)
    losses.total.backward()
    received = again.logits["logits_u_s1"].grad.abs().sum(1) > 0
    assert torch.equal(received, torch.ones_like(kept) if official else kept)


def test_limit_is_the_percentile_by_linear_interpolation(recorded):
    undecided = entropy_bits(recorded.logits("logits_u_s1"))
    limit = percentile(undecided, torch.ones_like(undecided, dtype=torch.bool), 20)
    assert limit.item() == pytest.approx(recorded.facts["wscl"]["entropy_threshold_bits"], rel=1e-5)
    draw = torch.Generator().manual_seed(3)
    for count in (1, 2, 7, 100):
        values, counted = torch.rand(count, generator=draw), torch.rand(count, generator=draw) > 0.3
        counted[0] = True
        for percent in (0, 20, 33.3, 50, 100):
            wanted = np.percentile(values[counted].numpy().astype(np.float64), percent)
            assert percentile(values, counted, percent).item() == pytest.approx(wanted, rel=1e-5), (count, percent)
    assert percentile(values, torch.zeros_like(counted), 20).isinf()


def test_entropy_is_that_of_the_softmax_in_bits():
    assert entropy_bits(torch.zeros(1, 8, 2, 2)).tolist() == [[[pytest.approx(3)] * 2] * 2]
    assert entropy_bits(torch.tensor([[50.0, 0.0]]).view(1, 2, 1, 1)).item() == pytest.approx(0, abs=1e-6)


def test_boxes_cover_half_of_the_image_anywhere():
    for height, width in ((512, 512), (32, 32), (33, 47), (4, 4)):
        inside = halves(range(200), height, width)
        for box in inside[:50]:
            rows, columns = box.any(1).nonzero().flatten(), box.any(0).nonzero().flatten()
            assert width // 2 + 1 <= len(columns) <= width - 1
            assert len(rows) == round(height * width / 2 / len(columns))
            assert box.sum() == len(rows) * len(columns)
            assert abs(box.sum().item() - height * width / 2) <= len(columns) / 2
        assert inside.any(0).all() or height > 4
    assert torch.equal(halves([5], 32, 32)[0], halves([9, 5], 32, 32)[1])


def test_about_half_of_the_steps_mix_and_the_seed_says_which():
    first = [mixes(0, step, 0.5) for step in range(400)]
    assert 150 < sum(first) < 250
    assert first != [mixes(1, step, 0.5) for step in range(400)]
    assert all(mixes(0, step, 1) and not mixes(0, step, 0) for step in range(50))


def test_padding_is_neither_kept_nor_counted():
    method, batches = make_method("wscl", kept_percent=100, mix_probability=0), make_batches()
    seen = []
    student = method.student
    method.student = lambda image: (seen.append(student(image)), seen[0].retain_grad(), seen[0])[2]
    losses = method.step(batches, 0)
    losses.total.backward()
    assert torch.equal(seen[0].grad[3:].abs().sum(1) > 0, batches["unlabelled"]["valid"])
    above, below = losses.shares["accepted_share"]
    assert above == below == batches["unlabelled"]["valid"].sum()
    official = make_method("wscl", method.model, official=True, mix_probability=0).step(make_batches(), 0)
    assert official.shares["accepted_share"][1] == 3 * SIZE * SIZE


def test_kept_share_is_the_one_asked_for():
    for percent in (5, 20, 60):
        above, below = make_method("wscl", kept_percent=percent).step(make_batches(), 0).shares["accepted_share"]
        assert (above / below).item() == pytest.approx(percent / 100, abs=0.01)


def test_strong_view_enhances_edges_as_pillow_does():
    draw = np.random.default_rng(0)
    stored = draw.integers(90, 150, (1, 3, 24, 31)).astype(np.uint8)
    sensor = get_sensor("rgb")
    config = StrongConfig(jitter_probability=0, grayscale_probability=0, blur_probability=0, edge_probability=1)
    from tilth.augment.normalise import from_unit, to_unit

    image = from_unit(torch.from_numpy(stored).float() / 255, sensor)
    found = to_unit(strong_view(image, sensor, [3], config), sensor) * 255
    wanted = np.asarray(Image.fromarray(stored[0].transpose(1, 2, 0)).filter(ImageFilter.EDGE_ENHANCE)).transpose(2, 0, 1)
    np.testing.assert_allclose(found[0].numpy(), wanted, atol=0.51)
    assert np.abs(wanted.astype(int) - stored[0]).max() > 20


def test_enhanced_edges_shift_no_other_draw():
    for seed in range(20):
        plain, enhanced = draw_strong(seed, StrongConfig()), draw_strong(seed, StrongConfig(edge_probability=1))
        assert (plain.edges, enhanced.edges) == (False, True)
        assert plain.order == enhanced.order
        assert (plain.factors, plain.sigma_px, plain.looks) == (enhanced.factors, enhanced.sigma_px, enhanced.looks)


def test_changing_one_strong_setting_keeps_the_edges():
    method = build_method("s4p", {"variant": "wscl", "strong": {"blur_probability": 0}}, make_method("wscl").model)
    assert method.config.strong.edge_probability == 0.5

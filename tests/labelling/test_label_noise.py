"""Which classes labels take for which others: found from what a model says that learnt them, and allowed for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tilth.labelling.label_noise import confident_joint, mean_confidence, noise_matrix, probability_under_noise

# Of class 1 half is labelled 0, of class 2 a fifth is labelled 1; of 0 all labels are right.
NOISE = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.2, 0.8]], dtype=torch.float64)


def world(sharp: float, pixels: int = 30_000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """True and given classes (N,), and what is known of the true ones and hence of the given ones (K, N), sharper or less."""
    draw = torch.Generator().manual_seed(1)
    logits = sharp * torch.randn(pixels, 3, generator=draw, dtype=torch.float64)
    true_probabilities = logits.softmax(1)
    true = torch.multinomial(true_probabilities, 1, generator=draw).squeeze(1)
    given = torch.multinomial(NOISE[true], 1, generator=draw).squeeze(1)
    return true, given, true_probabilities.T, (true_probabilities @ NOISE).T


def estimate(said: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    sums, counts = mean_confidence(said, given)
    return noise_matrix(confident_joint(said, given, torch.where(counts > 0, sums / counts.clamp(min=1), 2)), counts)


def test_noise_is_found_where_classes_are_clear():
    _, given, _, said = world(sharp=12)
    torch.testing.assert_close(estimate(said, given), NOISE, atol=0.06, rtol=0)


def test_probabilities_of_classes_are_solved_for():
    _, given, true, said = world(sharp=3, pixels=2000)
    found = probability_under_noise(said, given, NOISE)
    assert found.dtype == torch.float32
    # The iteration is stopped early; what it has not resolved yet lies where two classes are all but equal.
    assert (found - true[given, torch.arange(2000)]).abs().mean() < 0.03


def test_without_noise_it_is_the_probability_of_the_label():
    _, given, true, _ = world(sharp=2, pixels=600)
    found = probability_under_noise(true.float().view(3, 20, 30), given.view(20, 30), torch.eye(3))
    torch.testing.assert_close(found, true.gather(0, given[None])[0].float().view(20, 30), atol=1e-5, rtol=0)


def test_wrong_labels_are_found_better_once_noise_is_known():
    true, given, _, said = world(sharp=6)
    right = (true == given).numpy()
    plain = roc_auc_score(right, said.gather(0, given[None])[0].numpy())
    known = roc_auc_score(right, probability_under_noise(said, given, estimate(said, given)).numpy())
    assert known > plain + 0.03
    assert known > 0.9


def test_counts_are_those_of_a_plain_loop():
    draw = np.random.default_rng(0)
    said = torch.from_numpy(draw.dirichlet(np.ones(4), 500).T)
    given = torch.from_numpy(draw.integers(0, 3, 500))  # of class 3 there is no label
    sums, counts = mean_confidence(said, given)
    confidence = torch.where(counts > 0, sums / counts.clamp(min=1), 2)
    expected = np.zeros((4, 4), int)
    for pixel in range(500):
        believed = [(float(said[place, pixel]), place) for place in range(3) if said[place, pixel] >= said[place, given == place].mean()]
        if believed:
            expected[given[pixel], max(believed)[1]] += 1
    np.testing.assert_array_equal(confident_joint(said, given, confidence).numpy(), expected)
    halves = [mean_confidence(said[:, part], given[part]) for part in (slice(200), slice(200, None))]
    torch.testing.assert_close(halves[0][0] + halves[1][0], sums)


def test_classes_of_which_nothing_is_known_are_labelled_as_they_are():
    joint = torch.tensor([[90, 0, 10], [0, 0, 0], [0, 0, 50]])
    found = noise_matrix(joint, torch.tensor([100, 5, 50]))
    torch.testing.assert_close(found.sum(1), torch.ones(3, dtype=torch.float64))
    assert found[1].tolist() == [0, 1, 0]
    assert found[2].tolist() == pytest.approx([10 / 60, 0, 50 / 60])
    nothing = noise_matrix(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    assert nothing.tolist() == [[1, 0], [0, 1]]

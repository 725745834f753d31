"""Which classes a label map takes for which others, told from the map and a model that learnt it; no clean label is needed.

A model that learnt wrong labels repeats how often they are wrong: where half of the waters are missing from a map of fields, it says of
every water that it is labelled a field as likely as not. What it says is the probability of a label, not of the class: P(i) = sum over j
of p(j) T[j, i], with T[j, i] how often pixels of class j are labelled i. Once T is known, the probabilities p of the classes are solved
for, and trust in a label i is p(i).

T is counted as the confident joint of confident learning (C. G. Northcutt, L. Jiang, I. L. Chuang, 2021, arXiv:1911.00068): pixels
labelled i that the model finds more likely to be labelled j than pixels labelled j are on average, are taken for class j.

Shapes: K classes, N pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 30
"""Steps of the iteration that solves for the classes."""

_LEAST = 1e-9


def mean_confidence(probabilities: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the probabilities that labels get, and count labels, by class; sums of several calls may be added.

    Args:
        probabilities: float (K, N), sum 1 over K.
        given: int64 (N,), class ids.

    Returns:
        float64 (K,) sums, whose quotient by the counts is the mean confidence of a class, and int64 (K,) counts.
    """
    own = probabilities.gather(0, given.unsqueeze(0)).squeeze(0).double()
    counts = torch.bincount(given, minlength=len(probabilities))
    return torch.zeros(len(probabilities), dtype=torch.float64, device=given.device).index_add_(0, given, own), counts


def confident_joint(probabilities: Tensor, given: Tensor, confidence: Tensor) -> Tensor:
    """Count labels by what their pixels seem to be; counts of several calls may be added.

    Args:
        probabilities: float (K, N), sum 1 over K.
        given: int64 (N,), class ids.
        confidence: float (K,), mean probability of a label of each class; what is not below it is believed. Above 1 for a class without
            labels: nothing is believed to be of it.

    Returns:
        int64 (K, K): pixels labelled i (row) that seem to be of class j (column). Pixels that seem to be of no class are not counted.
    """
    classes = len(probabilities)
    best, true = torch.where(probabilities >= confidence.to(probabilities).unsqueeze(1), probabilities, 0).max(0)
    counted = best > 0
    return torch.bincount(given[counted] * classes + true[counted], minlength=classes**2).view(classes, classes)


def noise_matrix(joint: Tensor, labels: Tensor) -> Tensor:
    """Turn counts into how often pixels of class j are labelled i.

    Args:
        joint: int64 (K, K) of :func:`confident_joint`.
        labels: int64 (K,), all labels of each class; rows of the joint are scaled to them.

    Returns:
        float64 (K, K), T[j, i]; rows sum to 1. A class that no pixel seems to be of is taken to be labelled as it is.
    """
    known = joint.sum(1, keepdim=True)
    # Of labels none of which was counted nothing is known but what they say.
    shares = torch.where(known > 0, joint.double() / known.clamp(min=1), torch.eye(len(joint), dtype=torch.float64, device=joint.device))
    shares = shares * labels.double().unsqueeze(1)
    total = shares.sum(0)
    return torch.where(total > 0, shares / total.clamp(min=_LEAST), torch.eye(len(joint), dtype=torch.float64, device=joint.device)).T


@torch.no_grad()
def probability_under_noise(probabilities: Tensor, given: Tensor, noise: Tensor) -> Tensor:
    """Compute how probable it is that pixels are of the class that they are labelled as, p(given).

    The label itself is no evidence here: by Bayes' rule it would be one, p(i) T[i, i] / P(i), but then a label that the estimated T knows
    no way to get wrong would be right for certain.

    Args:
        probabilities: float (K, ...), P, as a model says that learnt such labels; sum 1 over K.
        given: int64 (...), class ids.
        noise: float (K, K), T of :func:`noise_matrix`. Without any noise (ones on the diagonal) the result is P(given).

    Returns:
        float32 (...) in [0, 1].
    """
    classes = len(probabilities)
    said, noise = probabilities.reshape(classes, -1).T.float(), noise.to(probabilities.device, torch.float32)
    true = torch.full_like(said, 1 / classes)
    for _ in range(ROUNDS):
        # Richardson and Lucy's iteration: stays positive and sums to 1, and explains what was said better with every step.
        true = true * ((said / (true @ noise).clamp(min=_LEAST)) @ noise.T)
    return true.gather(1, given.reshape(-1, 1)).view(given.shape).clamp(0, 1)

"""Models of libraries with random weights, statistics of batch norm included, so that no two layers compute the same."""

from __future__ import annotations

import torch


def random_weights(model, seed=0, scale=0.15):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * scale + (1.0 if "norm" in name and "weight" in name else 0.0))
        for name, value in model.named_buffers():
            if "running_mean" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * scale)
            elif "running_var" in name:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model.eval()

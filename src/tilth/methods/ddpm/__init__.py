"""Diffusion features: a noise predictor learns from imagery alone, then a head learns on its maps from few labels (ddpm.md).

Each variant is one module with a class ``METHOD``: ``denoise`` for ``tilth pretrain``, ``segment`` for ``tilth finetune``.
"""

DEFAULT_VARIANT = "denoise"

SHARED_PARTS = frozenset({"previews", "cache"})
"""Modules that are no variant."""

"""S4P: semi-supervised pre-training on a labelled and an unlabelled stream (S5 paper; s5_pretrain.md sections 4 to 10).

Each variant is one module with a class ``METHOD``; the modules of ``SHARED_PARTS`` hold what they share.
"""

DEFAULT_VARIANT = "fixmatch"

SHARED_PARTS = frozenset({"parts", "family", "channels", "correlation"})
"""Modules that are no variant."""

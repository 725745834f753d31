"""How far the method is on its way from trusting all labels to choosing among them (cromss.md section 4.3)."""

from __future__ import annotations

import math
from typing import Literal

RampKind = Literal["exp", "linear", "none"]


def ramp(kind: RampKind, passes: float, length: float) -> float:
    """Compute q, which goes from about 0 to 1.

    Args:
        kind: ``exp``: exp(-5 (1 - e/N)^2), which starts at 0.0067 and not at 0; ``linear``: e/N; ``none``: 1 from the start.
        passes: e, passes through the data so far; need not be whole.
        length: N, passes after which q is 1; 0 for at once.

    Returns:
        q in [0, 1].
    """
    if kind == "none" or length <= 0:
        return 1.0
    done = min(max(passes, 0.0), length) / length
    return done if kind == "linear" else math.exp(-5 * (1 - done) ** 2)


def kept_ratio(progress: float, share: float) -> float:
    """Compute r, the share of the pixels of a class that count in full: from about 1 down to ``share`` as q goes to 1 (section 4.4)."""
    return 1 - progress * (1 - share)

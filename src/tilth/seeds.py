"""Pure randomness: every draw is a function of what it is for, never of what happened before.

A run that was killed and resumed, a run with other numbers of workers or ranks, and a run that was never stopped must
draw the same numbers. So nothing here keeps state: a key (seed, purpose, step, tile, ...) is hashed into a fresh generator.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Key = int | str


def derive(*parts: Key) -> int:
    """Hash a key into a 63-bit seed.

    Args:
        parts: integers and strings, in order; ``derive(1, "23")`` differs from ``derive("1", 23)`` and ``derive(12, "3")``.

    Returns:
        An integer in [0, 2**63), the same on every machine and Python version.

    Example:
        >>> derive(0, "weak", 7) == derive(0, "weak", 7) != derive(0, "weak", 8)
        True
    """
    # Type and length go into the hash, so that neighbouring parts cannot run into each other.
    text = "".join(f"{type(part).__name__[0]}{len(str(part))}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: Key) -> np.random.Generator:
    """Make the NumPy generator that belongs to a key (see :func:`derive`).

    Example:
        >>> float(generator(3, "x").random()) == float(generator(3, "x").random())
        True
    """
    import numpy as np

    return np.random.Generator(np.random.PCG64(derive(*parts)))

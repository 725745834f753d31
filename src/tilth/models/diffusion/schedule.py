"""How much noise an image holds at which time: tables in double precision, and the two ways of counting times; ddpm.md section 2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilth.errors import ConfigError, suggest

Table = NDArray[np.float64]
CONVENTIONS = ("sr3", "paper", "guided")
SR3_LINEAR = (2000, 1e-6, 1e-2)
"""Steps, first and last beta of the schedule ``sr3_linear``."""
_MAPPING = ("kind", "steps", "start", "end", "betas")


@dataclass(frozen=True)
class Posterior:
    """Of x(t-1), given x(t) and the clean image: normal, with mean ``clean * x0 + noisy * x(t)``; float64 (T,) each, by index from 0."""

    variance: Table
    clean: Table
    noisy: Table


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A noise schedule of T steps.

    Two numbers say when: the *index* into the tables, 0 to T - 1, where 0 already holds one step of noise; and the *time* of a
    configuration, where 0 is the clean image and t otherwise means index t - 1 (convention ``sr3``, also called ``paper``) or index t
    (``guided``). The *signal* is the square root of the running product of alphas: how much is left of the image, 1 where it is clean;
    SR3 calls it the noise level. The *strength* is the standard deviation of the noise beside it, the root of 1 - signal squared.

    Attributes:
        name: what it is called, for messages and records.
        betas: float64 (T,), variance that each step adds, in (0, 1).
        convention: how times are counted.
    """

    name: str
    betas: Table
    convention: str = "sr3"

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Table:
        """Running product of 1 - beta: float64 (T,)."""
        return np.cumprod(1.0 - self.betas, dtype=np.float64)

    @cached_property
    def before(self) -> Table:
        """The same one step earlier, 1 for the first: float64 (T,)."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @cached_property
    def signals(self) -> Table:
        """Signal after 0 to T steps: float64 (T + 1,), the first 1."""
        return np.asarray(np.sqrt(np.append(1.0, self.alphas_cumprod)), np.float64)

    @cached_property
    def posterior(self) -> Posterior:
        """What is known of the step before, were the clean image known (ddpm.md section 3)."""
        rest = 1.0 - self.alphas_cumprod
        return Posterior(
            variance=self.betas * (1.0 - self.before) / rest,
            clean=self.betas * np.sqrt(self.before) / rest,
            noisy=(1.0 - self.before) * np.sqrt(1.0 - self.betas) / rest,
        )

    @property
    def last_time(self) -> int:
        """The greatest time of the convention."""
        return self.steps - self._first

    def index(self, time: int) -> int:
        """Turn a time into an index, which networks of guided type are told; the clean image is told as index 0.

        Raises:
            ConfigError: no such time.
        """
        if time != int(time) or not 0 <= time <= self.last_time:
            raise ConfigError(
                f"time {time}: schedule {self.name!r} of {self.steps} steps has whole times 0 (clean) to {self.last_time} (noise)"
            )
        return max(int(time) - 1 + self._first, 0)

    def signal(self, time: int) -> float:
        """Share of the image that is left at a time, which networks of SR3 type are told; exactly 1 at time 0.

        Raises:
            ConfigError: no such time.
        """
        index = self.index(time)
        return float(self.signals[index + 1]) if time else 1.0

    def strength(self, time: int) -> float:
        """Standard deviation of the noise at a time, 0 to 1; exactly 0 at time 0.

        Raises:
            ConfigError: no such time.
        """
        index = self.index(time)
        return float(np.sqrt(1.0 - self.alphas_cumprod[index])) if time else 0.0

    def time_of(self, strength: float) -> int:
        """Find the time whose noise is nearest to a standard deviation, so that schedules can be asked for the same noise.

        Raises:
            ConfigError: not in [0, 1).
        """
        if not 0 <= strength < 1:
            raise ConfigError(f"noise_levels: {strength}: a standard deviation of the noise in an image is at least 0 and below 1")
        strengths = np.array([self.strength(time) for time in range(self.last_time + 1)])
        return int(np.abs(strengths - strength).argmin())

    def respaced(self, indices: Sequence[int]) -> NoiseSchedule:
        """Keep some indices only: the schedule whose steps lead from each kept one to the next, with the same noise there."""
        kept = self.alphas_cumprod[list(indices)]
        return NoiseSchedule(f"{self.name}, {len(kept)} steps", 1.0 - kept / np.append(1.0, kept[:-1]), self.convention)

    @property
    def _first(self) -> int:
        return int(self.convention == "guided")


def build_schedule(schedule: str | Mapping[str, Any], convention: str = "sr3") -> NoiseSchedule:
    """Build a noise schedule.

    Args:
        schedule: ``linear`` (1000 steps), ``cosine`` (1000), ``sr3_linear`` (2000, betas 1e-6 to 1e-2) or ``sr3_cosine`` (2000); or a
            mapping with ``kind`` (one of these), ``steps``, and for linear ones ``start`` and ``end``, the first and last beta; or a
            mapping with ``betas``, a list. Without start and end, ``linear`` goes from 0.1 / steps to 20 / steps.
        convention: ``sr3``, ``paper`` or ``guided``, see :class:`NoiseSchedule`.

    Raises:
        ConfigError: unknown name, or betas that are not between 0 and 1.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"convention: unknown {convention!r}; {suggest(convention, CONVENTIONS)}")
    given = {"kind": schedule} if isinstance(schedule, str) else dict(schedule)
    for key in given:
        if key not in _MAPPING:
            raise ConfigError(f"schedule: unknown entry {key!r}; {suggest(key, _MAPPING)}")
    kind = str(given.get("kind", "own" if "betas" in given else "linear"))
    try:
        betas = np.asarray(given["betas"], np.float64) if "betas" in given else _betas(kind, given)
    except ConfigError:
        raise
    except (TypeError, ValueError):
        raise ConfigError(f"schedule {dict(given)}: betas, start and end are numbers, each above 0 and below 1") from None
    if betas.ndim != 1 or len(betas) < 2 or not (np.isfinite(betas).all() and (betas > 0).all() and (betas < 1).all()):
        raise ConfigError(f"schedule {kind!r}: needs at least two betas, each above 0 and below 1")
    return NoiseSchedule(kind, betas, convention)


def _betas(kind: str, given: Mapping[str, Any]) -> Table:
    if kind not in KINDS:
        raise ConfigError(f"schedule: unknown {kind!r}; {suggest(kind, KINDS)}")
    usual, compute = KINDS[kind]
    steps, ends = given.get("steps", usual), ("start" in given, "end" in given)
    if not isinstance(steps, int) or steps < 2:
        raise ConfigError(f"schedule: steps is {steps!r}; give a whole number of at least 2")
    if any(ends) and (not all(ends) or "cosine" in kind):
        raise ConfigError("schedule: start and end belong together, and to linear schedules; give both or none of them")
    return np.linspace(float(given["start"]), float(given["end"]), steps) if all(ends) else compute(steps)


def _linear(steps: int) -> Table:
    # The same noise at the end, in however many steps.
    return np.linspace(0.1 / steps, 20.0 / steps, steps)


def _sr3_linear(steps: int) -> Table:
    return np.linspace(SR3_LINEAR[1], SR3_LINEAR[2], steps)


def _cosine(steps: int) -> Table:
    left = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.asarray(np.minimum(1.0 - left[1:] / left[:-1], 0.999), np.float64)


KINDS: Mapping[str, tuple[int, Callable[[int], Table]]] = {
    "linear": (1000, _linear),
    "cosine": (1000, _cosine),
    "sr3_linear": (SR3_LINEAR[0], _sr3_linear),
    "sr3_cosine": (SR3_LINEAR[0], _cosine),
}
"""Schedules by name: usual number of steps, and betas for a number of steps."""


def kept_indices(steps: int, spacing: str | int) -> list[int]:
    """Choose which indices a sampler visits (ddpm.md section 3).

    Args:
        steps: of the whole schedule.
        spacing: ``ddimN``, N indices from 0 at the smallest whole stride that gives exactly N; a number N, spread evenly over the whole;
            or numbers with commas, spread evenly over as many equal sections.

    Returns:
        Indices, ascending.

    Raises:
        ConfigError: more than there are, or no whole stride.

    Example:
        >>> kept_indices(1000, "ddim10")[:3], kept_indices(1000, 10)[:3]
        ([0, 100, 200], [0, 111, 222])
    """
    text = str(spacing)
    numbers = text.removeprefix("ddim").split(",")
    if not all(number.isdecimal() for number in numbers) or (text.startswith("ddim") and len(numbers) > 1):
        raise ConfigError(f"spacing {text!r}: give a number, numbers with commas, or ddim and a number")
    counts = [int(number) for number in numbers]
    if text.startswith("ddim"):
        whole = next((stride for stride in range(1, steps + 1) if len(range(0, steps, stride)) == counts[0]), None)
        if whole is None:
            raise ConfigError(f"spacing {text}: no whole stride visits {counts[0]} of {steps} steps; give a plain number")
        return list(range(0, steps, whole))
    found: list[int] = []
    start = 0
    for place, count in enumerate(counts):
        size = steps // len(counts) + int(place < steps % len(counts))
        if not 1 <= count <= size:
            raise ConfigError(f"spacing {text}: {count} of a section of {size} steps; give 1 to {size}")
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        # Summed up, not multiplied, as in the public code: a tie may round otherwise.
        at = 0.0
        for _ in range(count):
            found.append(start + round(at))
            at += stride
        start += size
    return found

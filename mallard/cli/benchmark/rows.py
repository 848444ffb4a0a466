"""A row of the benchmark: what was measured, side by side, and the target it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Target:
    """What DESIGN section 10 asks for. unit: of the limit, such as " x" or " s"."""

    limit: float
    unit: str
    at_least: bool = False  # otherwise: less than

    def met_by(self, value: float) -> bool:
        """Tell whether a value reaches the target."""
        return value >= self.limit if self.at_least else value < self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<'} {self.limit:g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    what: what was done. measured: the numbers that the value was made of. value: what the target
    is about, in its unit. target: None for a row that only informs. sound: False when an answer
    was wrong, whatever the speed.
    """

    what: str
    measured: str
    value: float
    target: Target | None
    unit: str = ""
    sound: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if not self.sound:
            return False
        return None if self.target is None else self.target.met_by(self.value)

    @property
    def shown(self) -> str:
        """The value with its unit."""
        unit = self.target.unit if self.target else self.unit
        return f"{self.value:,.2f}{unit}" if self.value < 100 else f"{self.value:,.0f}{unit}"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two things measured in turn, so that the machine's moods fall on both."""

    first: list[float]
    second: list[float]

    @property
    def ratio(self) -> float:
        """The median of first over second, pair by pair."""
        return median(a / b for a, b in zip(self.first, self.second, strict=True))

    @property
    def spread(self) -> str:
        """The least and the greatest of these ratios."""
        ratios = [a / b for a, b in zip(self.first, self.second, strict=True)]
        return f"{min(ratios):.2f} to {max(ratios):.2f}"

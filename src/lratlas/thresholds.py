"""The numbers that define regimes and boundaries: options of every study, with their reasons."""

from dataclasses import dataclass, fields

from lratlas.errors import SpecError
from lratlas.text import to_python

__all__ = ["Thresholds"]


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The numbers that define regimes and boundaries, all between 0 and 1.

    Attributes:
        chance_level: Level of the one-sided t test of accuracy against chance. A grid has about five to ten large
            PLRs, and each is tested; at 1% a study rarely contains a false alarm.
        chance_trace: The excess over chance that the test uses as its null value. A network at chance still
            remembers a little of its last batches; with many seeds that would be significant without being
            learned: in the ticks study, 50 seeds measure 0.04 to 0.18 points (p < 0.005) at PLRs
            that leave test accuracy at 50%.
        chance_margin: The excess over chance that a single seed must reach. Batches of a network at chance give means
            within a fraction of a point over a quarter of a training; two points are beyond that. If every seed
            exceeds the margin, no test is needed: with two or three seeds a t test has so little power that more
            seeds would otherwise mean less evidence. Without accuracies it is a share of the chance loss.
        small_loss: A loss below this share of the chance loss counts as zero.
        fitted_accuracy: Mean accuracy of the mini-batches over the last quarter from which a fitted training set
            counts as at rest, and not as fitted by luck at the last step. One sample in a thousand may miss.
        trend_level: Level of the test for a falling loss, per seed; strict, since a plateau's slow waves
            sometimes look like trends.
        fall: Smallest relevant relative fall of the mean loss from the third to the last quarter of the steps. A loss
            that goes down like t^(-1/4) falls by 8%, one like t^(-1/10) by 3%; plateaus drift by a few percent.
        unmoved: A run has not moved if its test loss stays within this share of its value before training,
            in every trace row of the last half of the steps: its LR is too small, not too large. Training that
            learns or diverges moves the loss further; initial outputs of a random scale cost about 1%.
            A network killed by a huge step may pass this test too: the loss of constant predictions is often less than
            half a percent from the start, and a plateau may return to it. Two more conditions exclude such networks:
            the gradient is not zero, and no smaller LR has moved the loss.
        barrier: Largest median test error barrier between connected solutions. Solutions of the same basin
            stay under 0.02 to 0.03; solutions of different basins reach 0.06 and more.
        spread: Largest median spread of test accuracy between solutions of similar quality. Barriers by themselves
            are not enough: between a good model and an average at chance level, nothing rises above the line.

    Raises:
        SpecError: A number is not between 0 and 1.
    """

    chance_level: float = 0.01
    chance_trace: float = 0.005
    chance_margin: float = 0.02
    small_loss: float = 0.01
    fitted_accuracy: float = 0.999
    trend_level: float = 0.01
    fall: float = 0.05
    unmoved: float = 0.01
    barrier: float = 0.04
    spread: float = 0.04

    def __post_init__(self) -> None:
        for field in fields(self):
            value = to_python(getattr(self, field.name))
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise SpecError(f"threshold {field.name} is {value}; it must be between 0 and 1")
            object.__setattr__(self, field.name, value)


DEFAULTS = Thresholds()

GEOMETRY_COUNT = 5
"""SWA-5 represents the averaged solution (paper, Fig. 3); if it is missing, the nearest count does."""

"""From a mean over seeds and its interval to a verdict, and to what would tell where there is none."""

import math
from dataclasses import dataclass
from typing import Literal

from lratlas.analysis.gains import FEWEST_SEEDS, Gain

Verdict = Literal["supported", "contradicted", "inconclusive", "not measured"]
# Half a point of accuracy, or half a per cent of a loss, is as good as nothing.
NEGLIGIBLE = 0.005
# More seeds than this to tell a difference means that it hardly matters.
MOST_SEEDS = 200


class Unanswered(Exception):  # noqa: N818 - not an error: it ends in a judgement
    """A study cannot speak about a claim; the text says what it lacks, and what to add."""

    verdict: Verdict = "inconclusive"


class NotMeasured(Unanswered):
    """Nothing was measured of what the claim is about."""

    verdict: Verdict = "not measured"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a study says about one claim.

    Attributes:
        verdict: Whether the claim holds here.
        statement: One sentence, numbers included; also what to add where the claim is open.
        effect: The size of what the claim is about; None where it was not measured.
        low: Lower end of its 95 % interval over seeds; None where there is none.
        high: Upper end.
    """

    verdict: Verdict
    statement: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None


def exceeds(effect: Gain, limit: float, *, negligible: float | None = None) -> Verdict:
    """Whether an effect is above a limit.

    Args:
        effect: The effect.
        limit: Supported if the whole interval lies above.
        negligible: Contradicted if the whole interval lies below this, else below the limit: so small an effect
            is as good as none.
    """
    if effect.low is None or effect.high is None:
        return "inconclusive"
    if effect.low > limit:
        return "supported"
    return "contradicted" if effect.high < (limit if negligible is None else negligible) else "inconclusive"


def opposite(verdict: Verdict) -> Verdict:
    """The verdict on the contrary."""
    turned: dict[Verdict, Verdict] = {"supported": "contradicted", "contradicted": "supported"}
    return turned.get(verdict, verdict)


def together(*verdicts: Verdict) -> Verdict:
    """The verdict on a claim of several parts: all must hold, one that does not is enough against it."""
    if "contradicted" in verdicts:
        return "contradicted"
    return "inconclusive" if "inconclusive" in verdicts else "supported"


def what_would_tell(effect: Gain, limit: float = 0.0, *, negligible: float | None = None) -> str:
    """How many seeds would probably tell an effect from a limit.

    Args:
        effect: The effect.
        limit: Above it a claim is supported.
        negligible: Below it a claim is contradicted; the limit unless given.
    """
    if effect.low is None or effect.high is None:
        have = "one seed is" if effect.seeds == 1 else f"{effect.seeds} seeds are"
        return f"{have} too few for an interval; repeat with at least {FEWEST_SEEDS}, better 5 or more"
    lower = limit if negligible is None else negligible
    if lower <= effect.mean <= limit and lower < limit:
        return "the effect lies between what counts as little and as much"
    # What stands between the effect and the nearest limit that it could clear
    above = effect.mean > limit
    reach, distance = (
        (effect.mean - effect.low, effect.mean - limit) if above else (effect.high - effect.mean, lower - effect.mean)
    )
    needed = math.inf if distance <= 0 else effect.seeds * (reach / distance) ** 2
    if needed > MOST_SEEDS:
        return f"the difference is too small to tell with fewer than {MOST_SEEDS} seeds"
    return f"{effect.seeds} seeds do not tell; about {max(math.ceil(needed), effect.seeds + 1)} would"

"""What a look says, in words: the state with its numbers, and what to do about it."""

from lratlas.watching.tracker import Look, RegimeTracker

# Share of the steps at a learning rate that must be in regime 1 before a higher one is suggested
_LONG = 0.5


def report(tracker: RegimeTracker, look: Look | None) -> str:
    """A sentence on the regime, with its numbers, and one on what to do where there is something to do."""
    advice = suggestion(tracker) or _unmoved(tracker, look)
    return f"{_state(tracker, look)} {advice}".rstrip()


def suggestion(tracker: RegimeTracker) -> str:
    """What to do about the learning rate; empty while nothing is decided."""
    if tracker.regime == "diverging":
        return "Try a learning rate 3 times lower."
    if tracker.regime == "equilibrium":
        return (
            f"The loss has been stationary since about step {tracker.since:,}: anneal the learning rate now, or "
            "average the weights; going on as it is will not lower the loss."
        )
    share = tracker.spent.get("converging", 0) / max(tracker.phase_step, 1)
    if tracker.regime == "converging" and share >= _LONG:
        return (
            f"The learning rate has been in the convergence regime for {share:.0%} of its steps: try one 3 times "
            "higher next time; the best ones lie above those that converge."
        )
    return ""


def _unmoved(tracker: RegimeTracker, look: Look | None) -> str:
    """What a loss at the level of chance may mean."""
    if look is None or look.loss is None or look.loss < tracker.reference / tracker.rules.above:
        return ""
    once_above = tracker.peak > tracker.rules.above * tracker.reference
    return (
        f"The loss is still at the level of chance: the learning rate may be far too {'high' if once_above else 'low'}."
    )


def _state(tracker: RegimeTracker, look: Look | None) -> str:
    where = f"step {tracker.step:,}: {tracker.regime}"
    if look is None:
        return f"{where}; there are too few losses to judge."
    if look.loss is None:
        what = "the loss is not finite" if tracker.regime == "diverging" else "there are too few losses to judge"
        return f"{where}; {what}."
    accuracy = "" if look.accuracy is None else f", the accuracy {look.accuracy:.1%}"
    norm = "" if look.gradient_norm is None else f", the gradient norm {look.gradient_norm:.3g}"
    return f"{where}; the loss is {look.loss:.4g}{accuracy}{norm}; {_trend(look)} (at step {look.step:,})."


def _trend(look: Look) -> str:
    fall = look.fall or 0.0
    change = f"it fell by {fall:.1%}" if fall >= 0 else f"it rose by {-fall:.1%}"
    span = f"{change} from the third to the last quarter of {look.phase_step:,} steps at this learning rate"
    if look.falling_p is None:
        return f"{span}, but varies too slowly for a test"
    return f"{span} (p = {look.falling_p:.2g} for a fall by chance)"

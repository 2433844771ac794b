"""Text of a report: the regime, the evidence that decided, and a suggestion."""

from lratlas.monitor.rules import FIRST_LOOK
from lratlas.monitor.tracker import Look, RegimeTracker

# Share of the steps of the phase that must be in regime 1 before higher learning rates are suggested
_LONG = 0.5

_TINY = 1e-15  # smaller p values are rounding errors

_COURSES = {
    "falling": "The loss falls",
    "stationary": "The loss is stationary",
    "rising": "The loss rises",
    "unclear": "The loss shows no clear trend",
}


def report(tracker: RegimeTracker, look: Look | None) -> str:
    """Report the regime with its numbers, the evidence, and a suggestion or the reason why nothing is decided."""
    look = _of_this_phase(tracker, look)
    if not tracker.rules.loss_is_progress:
        return f"{_state(tracker, look)} {_course_only(look)}".rstrip()
    sentences = [_state(tracker, look), _fit(tracker, look), _advice(tracker, look) or _reason(tracker, look)]
    return " ".join(sentence for sentence in sentences if sentence)


def describe_no_steps(losses: int) -> str:
    """The report of a watch whose optimizer has not taken a step."""
    given = "1 loss was" if losses == 1 else f"{losses:,} losses were"
    return (
        f"step 0: undecided; this optimizer has not stepped, although {given} given. Its learning rate cannot be "
        "judged. Another optimizer may be taking the steps, such as a copy of this one, or a gradient scaler may have "
        "skipped every step."
    )


def suggestion(tracker: RegimeTracker, look: Look | None) -> str:
    """Suggestion for the regime, with the evidence; empty while nothing is decided."""
    look = _of_this_phase(tracker, look)
    p = 1.0 if look is None or look.settled_p is None else look.settled_p
    evidence = f" ({_p(p)} for a missed fall)" if p < tracker.rules.settled_level else ""
    return _advice(tracker, look, evidence=evidence)


def _advice(tracker: RegimeTracker, look: Look | None, *, evidence: str = "") -> str:
    """Suggestion for the regime; ``evidence`` is added if the report does not include it before."""
    if not tracker.rules.loss_is_progress or look is None:
        return ""
    if tracker.regime == "diverging":
        return _of_divergence(tracker, look)
    if tracker.regime == "equilibrium" and look.loss is not None:
        return _of_equilibrium(tracker, look, evidence)
    share = tracker.spent.get("converging", 0) / max(tracker.phase_step, 1)
    if tracker.regime == "converging" and share >= _LONG:
        return (
            f"The loss fell or was near zero for {share:.0%} of {tracker.phase_step:,} steps. Somewhat higher learning "
            "rates often give better models; one training cannot show whether this holds here. lratlas.find compares "
            "several learning rates."
        )
    return ""


def _of_divergence(tracker: RegimeTracker, look: Look) -> str:
    at = "" if look.lr is None else f" (learning rate now: {look.lr:.3g})"
    if not tracker.finite:
        return (
            f"The loss has not been finite since step {tracker.since:,}{at}. A lower learning rate usually prevents "
            "this. If single mini-batches cause it, warm-up or gradient clipping may be enough."
        )
    since = f"since step {tracker.since:,}{at}"
    chance, loss = tracker.rules.chance_accuracy, "" if look.loss is None else f", {look.loss:.4g},"
    if look.accuracy is None or chance is None:
        found = f"The loss{loss} has been above {_reference(tracker, upper=True)}, {since}"
    else:
        found = f"The accuracy has been at chance, {chance:.1%}, {since}"
        if look.standing == "above":
            found += f", and the loss{loss} is above {_reference(tracker, upper=True)}"
    return (
        f"{found}: there is no sign that the model has learned. Try a lower learning rate first; an error in the"
        " loss or the data looks the same."
    )


def _of_equilibrium(tracker: RegimeTracker, look: Look, evidence: str) -> str:
    found = f"The loss has been stationary since about step {tracker.since:,} at {look.loss:.4g}{evidence}"
    if look.lr_moves:
        return f"{found}, while {_lr_course(look)}: continuing this schedule will probably not lower the loss."
    return (
        f"{found}: with a constant learning rate it will probably not fall further. Annealing the learning rate or "
        "averaging the weights usually lowers it."
    )


def _fit(tracker: RegimeTracker, look: Look | None) -> str:
    """Reason why a training counts as converging although its loss does not fall; otherwise empty."""
    if look is None or look.loss is None or tracker.regime != "converging" or look.course == "falling":
        return ""
    chance = tracker.rules.chance_loss
    level = tracker.rules.thresholds.small_loss * (tracker.start.low if chance is None else chance)
    if look.loss < level:
        return "The training counts as converging because the loss is near zero."
    return "The training counts as converging because almost every sample is classified correctly."


def _reason(tracker: RegimeTracker, look: Look | None) -> str:
    """Reason why nothing is decided; empty if a regime is decided or the state already gives the reason."""
    if look is None or look.loss is None or tracker.regime != "undecided":
        return ""
    if look.lr_moves and not tracker.rules.scheduled:
        return f"{_of_moving(look)} {_MOVING}"
    chance = tracker.rules.chance_accuracy
    if look.course == "stationary" and look.accuracy is not None and chance is not None:
        return (
            f"The loss is stationary, but the accuracy is not clearly above chance, {chance:.1%}: the learning rate "
            f"may be far too {'high' if tracker.blown else 'low'}."
        )
    return _of_above(tracker, look, look.loss) or _of_start(tracker, look)


def _of_above(tracker: RegimeTracker, look: Look, loss: float) -> str:
    """Reason if the loss is above the reference and has been clearly above it; otherwise empty."""
    chance = tracker.rules.chance_loss
    lower = tracker.start.low if chance is None else chance
    if look.standing != "above" and not (tracker.blown and loss > lower):
        return ""
    reference = _reference(tracker, upper=look.standing == "above")
    if look.course == "falling":
        return (
            f"The loss falls, but at {loss:.4g} it is still above {reference}: the learning rate may be far too high, "
            "or the training began with a higher loss."
        )
    return f"{_COURSES[look.course]} and, at {loss:.4g}, is above {reference}: the learning rate may be far too high."


def _of_start(tracker: RegimeTracker, look: Look) -> str:
    """Reason if the loss is not above the reference."""
    if look.standing == "below" or look.course == "rising":
        return f"{_COURSES[look.course]}."
    low, high = f"{tracker.start.low:.4g}", f"{tracker.start.high:.4g}"
    through = f" to {high}" if tracker.rules.chance_loss is None and low != high else ""
    found = f"{_COURSES[look.course]} and is not clearly below {_reference(tracker)}{through}"
    if tracker.blown:
        return f"{found} after being above it: the learning rate may be far too high."
    if tracker.rules.chance_loss is None:
        return (
            f"{found}: the learning rate may be far too low or far too high, or the loss may have been stationary "
            "before the watch began."
        )
    return f"{found}: the learning rate may be far too low."


def _of_moving(look: Look) -> str:
    causes = {
        "falling": "The loss falls, perhaps only because the learning rate falls.",
        "stationary": "The loss is stationary, in equilibrium or because the learning rate is too low to move it.",
    }
    return causes.get(look.course, f"{_COURSES[look.course]}, perhaps because the learning rate moves.")


_MOVING = (
    "While the learning rate moves, the loss does not show the regime of any single learning rate. Pass"
    " schedule=True to judge the training under its schedule."
)


def _course_only(look: Look | None) -> str:
    if look is None or look.loss is None:
        return ""
    return f"{_COURSES[look.course]}. The loss does not measure progress here, so there is no regime and no suggestion."


def _state(tracker: RegimeTracker, look: Look | None) -> str:
    regime = f"{tracker.regime}; " if tracker.rules.loss_is_progress or tracker.regime == "diverging" else ""
    where = f"step {tracker.step:,}: {regime}"
    if look is None or look.loss is None:
        return f"{where}{_too_few(tracker) if tracker.finite else 'the loss is not finite'}."
    accuracy = "" if look.accuracy is None else f", the accuracy {look.accuracy:.1%}"
    norm = "" if look.gradient_norm is None else f", the gradient norm {look.gradient_norm:.3g}"
    return f"{where}at step {look.step:,} the loss is {look.loss:.4g}{accuracy}{norm}. {_evidence(tracker, look)}"


def _too_few(tracker: RegimeTracker) -> str:
    since = tracker.step - tracker.phase_step
    again = f" since step {since:,}, where the tests restarted" if since else ""
    return f"there are too few losses to judge{again}; the first check is after {FIRST_LOOK} steps"


def _evidence(tracker: RegimeTracker, look: Look) -> str:
    """The test that decided the course of the loss, in one sentence that agrees with it."""
    fall = look.fall or 0.0
    lrs = f", while {_lr_course(look)}" if look.lr_moves else " at this learning rate"
    span = f"from the third to the last quarter of {look.phase_step:,} steps{lrs}"
    if look.course == "stationary":
        change = f"changed by {-fall:+.3g}" if fall else "did not change"
        least = "" if look.least_fall is None else f" {look.least_fall:.3g}"
        if look.settled_p is not None and look.settled_p < tracker.rules.settled_level:
            return f"The loss {change} {span}; a fall of{least} or more is ruled out ({_p(look.settled_p)})."
        return (
            f"The loss {change} {span}; it was stationary at the previous check, and only a change of{least} or more "
            "would count."
        )
    change = f"fell by {fall:.3g}" if fall >= 0 else f"rose by {-fall:.3g}"
    if look.falling_p is None:
        return f"The loss {change} {span}, but varies too slowly for a test."
    value = look.falling_p if fall >= 0 else 1 - look.falling_p
    p = _p(value)
    if look.course == "unclear":
        return f"The loss {change} {span}, which may be chance ({p}; at most {tracker.rules.trend_level:.2g} counts)."
    return f"The loss {change} {span} ({p} for a {'fall' if fall >= 0 else 'rise'} by chance)."


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= _TINY else f"p < {_TINY:.0g}"


def _of_this_phase(tracker: RegimeTracker, look: Look | None) -> Look | None:
    """The look, unless the tests have restarted since: its numbers are then those of another learning rate."""
    since = tracker.step - tracker.phase_step
    return None if look is None or (look.loss is not None and look.step <= since) else look


def _lr_course(look: Look) -> str:
    """Movement of the learning rate within the tested stretch."""
    low, high, last = look.lr_low or 0.0, look.lr_high or 0.0, look.lr or 0.0
    if last <= 1.05 * low:
        return f"the learning rate fell from {high:.3g} to {last:.3g}"
    if last >= 0.95 * high:
        return f"the learning rate rose from {low:.3g} to {last:.3g}"
    return f"the learning rate moved between {low:.3g} and {high:.3g}"


def _reference(tracker: RegimeTracker, *, upper: bool = False) -> str:
    """Reference level of the loss: that of an untrained model, or the lower or upper level at the start."""
    if (chance := tracker.rules.chance_loss) is not None:
        return f"the loss of an untrained model, {chance:.4g}"
    return f"its level at the start, {tracker.start.high if upper else tracker.start.low:.4g}"

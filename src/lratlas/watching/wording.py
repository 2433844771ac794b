"""A look in words: the state with its numbers, and what it suggests with the evidence for it."""

from lratlas.watching.rules import FIRST_LOOK
from lratlas.watching.tracker import Look, RegimeTracker

# Share of the steps of the phase that must be in regime 1 before higher learning rates are mentioned
_LONG = 0.5

_COURSES = {
    "falling": "The loss falls",
    "stationary": "The loss is stationary",
    "rising": "The loss rises",
    "unclear": "The loss shows no clear trend",
}


def report(tracker: RegimeTracker, look: Look | None) -> str:
    """A sentence on the state with its numbers, and one on what it suggests, or why nothing is decided."""
    if not tracker.rules.loss_is_progress:
        return f"{_state(tracker, look)} {_course_only(look)}".rstrip()
    advice = suggestion(tracker, look) or _reason(tracker, look)
    return f"{_state(tracker, look)} {advice}".rstrip()


def not_stepped(losses: int) -> str:
    """The report of a watch whose optimizer has not taken a step."""
    given = "1 loss was" if losses == 1 else f"{losses:,} losses were"
    return (
        f"step 0: undecided; this optimizer has not stepped, although {given} given. Nothing can be said of its "
        "learning rate. Perhaps another optimizer steps, such as a copy of this one, or a gradient scaler has skipped "
        "every step."
    )


def suggestion(tracker: RegimeTracker, look: Look | None) -> str:
    """What the regime suggests and what this rests on; empty while nothing is decided."""
    if not tracker.rules.loss_is_progress or look is None:
        return ""
    if tracker.regime == "diverging":
        return _of_divergence(tracker, look)
    if tracker.regime == "equilibrium" and look.loss is not None:
        return _of_equilibrium(tracker, look, look.loss)
    share = tracker.spent.get("converging", 0) / max(tracker.phase_step, 1)
    if tracker.regime == "converging" and share >= _LONG:
        return (
            f"The loss fell or was near zero for {share:.0%} of {tracker.phase_step:,} steps. Somewhat higher learning "
            "rates often end in better models; one training cannot show whether that holds here, but lratlas.find can, "
            "which compares several."
        )
    return ""


def _of_divergence(tracker: RegimeTracker, look: Look) -> str:
    at = "" if look.lr is None else f", at a learning rate of {look.lr:.3g} now"
    if not tracker.finite:
        return (
            f"The loss has not been finite since step {tracker.since:,}{at}. A lower learning rate usually prevents "
            "this; warm-up or gradient clipping may be enough where single mini-batches cause it."
        )
    of_loss = look.standing == "above"
    what = "The loss has been above" if of_loss else "The accuracy has been at chance and the loss around"
    return (
        f"{what} {_reference(tracker)} since step {tracker.since:,}{at}: the model has learned nothing that shows in "
        "it. A lower learning rate is the usual first try; a mistake in the loss or the data looks the same."
    )


def _of_equilibrium(tracker: RegimeTracker, look: Look, loss: float) -> str:
    sure = look.settled_p is not None and look.settled_p < tracker.rules.settled_level
    p = f" (p = {look.settled_p:.2g} for an overlooked fall)" if sure else ""
    found = f"The loss has been stationary since about step {tracker.since:,} at {loss:.4g}{p}"
    if look.lr_moves:
        return f"{found}, while {_lr_course(look)}: moving it on in the same way will probably not lower the loss."
    return (
        f"{found}: with a constant learning rate it will probably not fall further. Annealing the learning rate or "
        "averaging the weights usually lowers it."
    )


def _reason(tracker: RegimeTracker, look: Look | None) -> str:
    """Why nothing is decided; empty where something is, or where the state has said it."""
    if look is None or look.loss is None or tracker.regime != "undecided":
        return ""
    if look.lr_moves and not tracker.rules.scheduled:
        return f"{_COURSES[look.course]} while {_lr_course(look)}. {_of_moving(look)}"
    if look.course == "rising":
        return "The loss rises."
    if look.standing == "below":
        return f"{_COURSES[look.course]}." if look.course == "unclear" else ""
    chance = tracker.rules.chance_loss
    if chance is None:
        return (
            f"{_COURSES[look.course]} and is not clearly below its level at the start, {tracker.start.low:.4g}: the "
            "learning rate may be far too low or far too high, or the training may have been at rest before."
        )
    far = "high" if tracker.blown else "low"
    return f"{_COURSES[look.course]} and is at the level of chance: the learning rate may be far too {far}."


def _of_moving(look: Look) -> str:
    causes = {
        "falling": "It may fall only because the learning rate does",
        "stationary": "A loss at rest may be in equilibrium, or the learning rate too low to move it",
    }
    cause = causes.get(look.course, "It may follow the learning rate")
    return (
        f"{cause}: while the learning rate moves, the regime of a single one cannot be told. "
        "Declare a schedule with schedule=True to have the training judged under it."
    )


def _course_only(look: Look | None) -> str:
    if look is None or look.loss is None:
        return ""
    return f"{_COURSES[look.course]}. It does not measure progress here, so no regime is named and nothing suggested."


def _state(tracker: RegimeTracker, look: Look | None) -> str:
    regime = f"{tracker.regime}; " if tracker.rules.loss_is_progress or tracker.regime == "diverging" else ""
    where = f"step {tracker.step:,}: {regime}"
    if look is None or look.loss is None:
        return f"{where}{_too_few(tracker) if tracker.finite else 'the loss is not finite'}."
    accuracy = "" if look.accuracy is None else f", the accuracy {look.accuracy:.1%}"
    norm = "" if look.gradient_norm is None else f", the gradient norm {look.gradient_norm:.3g}"
    return f"{where}the loss is {look.loss:.4g}{accuracy}{norm}; {_trend(look)} (at step {look.step:,})."


def _too_few(tracker: RegimeTracker) -> str:
    since = tracker.step - tracker.phase_step
    again = f" since step {since:,}, where the tests started again" if since else ""
    return f"there are too few losses to judge{again}; the first look is after {FIRST_LOOK} steps"


def _trend(look: Look) -> str:
    fall = look.fall or 0.0
    change = f"it fell by {fall:.3g}" if fall >= 0 else f"it rose by {-fall:.3g}"
    lrs = f", while {_lr_course(look)}" if look.lr_moves else " at this learning rate"
    span = f"{change} from the third to the last quarter of {look.phase_step:,} steps{lrs}"
    if look.falling_p is None:
        return f"{span}, but varies too slowly for a test"
    return f"{span} (p = {look.falling_p:.2g} for a fall by chance)"


def _lr_course(look: Look) -> str:
    """How the learning rate moved in the stretch that was judged."""
    low, high, last = look.lr_low or 0.0, look.lr_high or 0.0, look.lr or 0.0
    if last <= 1.05 * low:
        return f"the learning rate fell from {high:.3g} to {last:.3g}"
    if last >= 0.95 * high:
        return f"the learning rate rose from {low:.3g} to {last:.3g}"
    return f"the learning rate moved between {low:.3g} and {high:.3g}"


def _reference(tracker: RegimeTracker) -> str:
    chance = tracker.rules.chance_loss
    name, level = ("start", tracker.start.high) if chance is None else ("chance", chance)
    return f"its level at {'the ' if chance is None else ''}{name}, {level:.4g},"

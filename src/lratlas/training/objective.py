"""Objectives: the loss of a batch, and the score of its predictions, by accuracy or by a metric."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from lratlas.data.parts import Parts, copy_tensors, count, each, logits_of
from lratlas.rng import stream

Loss = Callable[[Any, Any], Tensor]
Labels = Literal["classes", "binary", "metric", "none"]


class Score(Protocol):
    """``(outputs, targets, shares) -> (right, chance)``, each one number per sample, [n], or one per batch, []."""

    def __call__(self, outputs: Any, targets: Any, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Right and chance accuracy."""
        ...


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss, and a score of predictions.

    Attributes:
        name: For messages.
        batch: ``(outputs, targets) -> []``: the loss of a batch, which training minimises.
        losses: ``(outputs, targets) -> [n]``: one loss per sample, whose mean is the loss of any batch; None if no such
            function exists, and data sets are then evaluated by batches.
        labels: ``classes`` (integers), ``binary`` (0 or 1), ``metric`` (a user's function) or ``none`` (accuracy is not
            defined).
        score: Per sample or batch: the share of correct predictions, and the expected share with shuffled labels.
        classes: Number of classes; 0 if the targets are not labels.
        ignored: Labels that do not count, such as an ``ignore_index``; negative labels never count.
        score_by_sample: Whether the score is one number per sample, or else one per batch.
        named: Whether the loss is one of `LOSSES` rather than a user's function.
        takes_logits: Whether the loss takes the logits in the model's outputs rather than the outputs themselves.
    """

    name: str
    batch: Loss
    losses: Loss | None
    labels: Labels
    score: Score
    classes: int = 0
    ignored: tuple[int, ...] = ()
    score_by_sample: bool = True
    named: bool = False
    takes_logits: bool = False

    @property
    def by_batches(self) -> bool:
        """Whether data sets must be evaluated by batches: the loss or score is not a mean over samples."""
        return self.losses is None or not self.score_by_sample

    @property
    def has_accuracy(self) -> bool:
        """Whether predictions can be right or wrong; if not, accuracies are NaN and tables contain null."""
        return self.labels != "none"


def no_score(outputs: Any, targets: Any, shares: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001 - a `Score`
    """The score if accuracy is not defined: NaN for the batch."""
    missing = torch.full((), torch.nan, dtype=shares.dtype, device=shares.device)
    return missing, missing


def counted_labels(targets: Tensor, ignored: Sequence[int]) -> Tensor:
    """A mask of the labels that count: not negative and not ignored, bool."""
    known = targets >= 0
    for label in ignored:
        known = known & (targets != label)
    return known


def class_score(
    outputs: Tensor,
    targets: Tensor,
    shares: Tensor,
    *,
    axis: int = 1,
    ignored: Sequence[int] = (),
    together: bool = False,
) -> tuple[Tensor, Tensor]:
    """Right and chance accuracy of class scores, float [n]; means over the positions of a sample if it has several.

    Args:
        outputs: Scores, [n, ..., C, ...].
        targets: Labels, with outputs' shape without the class axis; negative labels do not count.
        shares: Share of each class in the training labels, [C].
        axis: The axis of the classes.
        ignored: Other labels that do not count.
        together: Whether some samples have no label that counts; the result is then one number for the batch, [].
    """
    predicted = outputs.argmax(axis)
    # Compare with every class instead of indexing: this stacks and compiles without a gather.
    chosen = predicted[..., None] == torch.arange(shares.shape[0], device=outputs.device)
    right, chance = (predicted == targets).to(shares.dtype), (chosen * shares).sum(-1)
    if targets.dim() == 1 and not together:
        return right, chance
    counts = counted_labels(targets, ignored).to(shares.dtype)
    axes = tuple(range(0 if together else 1, targets.dim()))
    total = counts.sum(axes).clamp(min=1)
    return (right * counts).sum(axes) / total, (chance * counts).sum(axes) / total


def binary_score(outputs: Tensor, targets: Tensor, shares: Tensor, *, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Right and chance accuracy of outputs that predict 1 above a threshold, float [n]; means over several labels.

    Args:
        outputs: One output per sample and label, [n, ...].
        targets: 0 or 1, one per output.
        shares: Share of 0 and of 1 in the training labels, [2] or, for several labels, [2, labels].
        threshold: 0 for logits, 0.5 for probabilities.
    """
    predicted = outputs.reshape(outputs.shape[0], -1) > threshold
    right = (predicted == (targets.reshape(predicted.shape) > 0.5)).to(shares.dtype)
    chance = torch.where(predicted, shares[1], shares[0])
    return right.mean(1), chance.mean(1)


def metric_score(outputs: Any, targets: Any, shares: Tensor, *, metric: Loss) -> tuple[Tensor, Tensor]:
    """The user's metric, and the metric with the batch's targets in random order; NaN for a batch of one."""
    size = count(targets)
    order = stream(size, "shuffled").permutation(size).tolist()
    shuffled = each(lambda part: part[order], targets)
    right, chance = (_measure_metric(metric, outputs, other, shares) for other in (targets, shuffled))
    return right, chance if size > 1 else torch.full_like(chance, torch.nan)


def _measure_metric(metric: Loss, outputs: Any, targets: Any, shares: Tensor) -> Tensor:
    return _per_sample(torch.as_tensor(metric(outputs, targets), device=shares.device).to(shares.dtype))


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    # Like functional.cross_entropy, which for a stack runs in Python after a slow import of a symbolic algebra package.
    return -functional.log_softmax(outputs, dim=-1).gather(-1, targets.long()[:, None])[:, 0]


def _binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    logits = outputs.reshape(outputs.shape[0], -1)
    labels = targets.reshape(logits.shape).to(logits)
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)


def _mse(outputs: Tensor, targets: Tensor) -> Tensor:
    # Written out: functional.mse_loss does not stack if the lanes share their targets.
    squares = (outputs - targets.reshape(outputs.shape)).square()
    return squares.flatten(1).mean(1) if squares.dim() > 1 else squares


def _mean(losses: Loss, outputs: Any, targets: Any) -> Tensor:
    return losses(outputs, targets).mean()


def _make_named(name: str, losses: Loss, labels: Labels, score: Score) -> Objective:
    return Objective(name=name, batch=partial(_mean, losses), losses=losses, labels=labels, score=score, named=True)


LOSSES = {
    "cross_entropy": _make_named("cross_entropy", _cross_entropy, "classes", class_score),
    "binary_cross_entropy": _make_named("binary_cross_entropy", _binary_cross_entropy, "binary", binary_score),
    "mse": _make_named("mse", _mse, "none", no_score),
}
_FEWEST_CLASSES = 2
MODEL = "model"
"""The name of the loss that the model itself returns, as ``outputs.loss``."""

_EXACT = 1e-9
_SCALES = (0.1, 1.0, 10.0)


def objective_of(loss: Loss, outputs: Any, targets: Parts) -> Objective:
    """Build the objective of a callable loss by testing it on the outputs for some samples.

    Training minimises the value that the loss returns for a batch, or the mean of several values. A test with outputs
    at several scales and batches of several sizes shows whether the loss of every batch is the mean of its samples'
    losses. Integer targets are class labels if the loss falls most along the score of the label; labels without
    influence are ignored. Targets of 0 and 1 are labels if the loss separates them by the sign of the output, or at
    0.5.

    Args:
        loss: Maps outputs and targets to the loss of the batch, or to one value per sample or element.
        outputs: The model's outputs for n samples.
        targets: Their targets.
    """
    tried = _fresh_value(loss, outputs, targets)
    if not isinstance(tried, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - users return anything
        raise TypeError(f"it returned {type(tried).__name__}; it must return one tensor")
    by_sample = tried.dim() > 0 and len(tried) == count(targets)
    losses = partial(_rows if by_sample else _losses_one_by_one, loss)
    made = Objective(
        name=getattr(loss, "__qualname__", type(loss).__qualname__),
        batch=partial(_of_batch, loss),
        losses=losses if _is_mean_of_samples(partial(_fresh_value, loss), losses, outputs, targets) else None,
        labels="none",
        score=no_score,
    )
    return _with_accuracy(made, loss, outputs, targets)


def with_metric(made: Objective, metric: Loss, outputs: Any, targets: Any) -> Objective:
    """The objective with a user's metric in place of accuracy, tested on the outputs for some samples."""
    score = partial(metric_score, metric=metric)
    right, _ = score(outputs, targets, torch.ones(1))
    return replace(made, labels="metric", score=score, score_by_sample=right.dim() > 0)


def _fresh_value(loss: Loss, outputs: Any, targets: Any) -> Tensor:
    """The loss of copies, since a loss may change its arguments in place."""
    return loss(copy_tensors(outputs), copy_tensors(targets))


def _of_batch(loss: Loss, outputs: Any, targets: Any) -> Tensor:
    value = loss(outputs, targets)
    return value.mean() if value.dim() else value


def _per_sample(value: Tensor) -> Tensor:
    return value.flatten(1).mean(1) if value.dim() > 1 else value


def _rows(loss: Loss, outputs: Any, targets: Any) -> Tensor:
    return _per_sample(loss(outputs, targets))


def _losses_one_by_one(loss: Loss, outputs: Any, targets: Any) -> Tensor:
    """The loss of every sample, as a batch of one, [n]."""

    def alone(output: Any, target: Any) -> Tensor:
        return _of_batch(loss, each(lambda part: part[None], output), each(lambda part: part[None], target))

    return torch.func.vmap(alone, randomness="different")(outputs, targets)


def _is_mean_of_samples(loss: Loss, losses: Loss, outputs: Any, targets: Parts) -> bool:
    """Whether the loss of a batch is the mean of its samples' losses, in batches of several sizes and scales."""
    generator = torch.Generator().manual_seed(0)
    try:
        for scale in _SCALES:
            drawn = each(partial(_like, scale=scale, generator=generator), outputs)
            for tried in (each(partial(_scale_part, scale=scale), outputs), drawn):
                alone = losses(tried, targets)
                if alone.dim() != 1 or not alone.isfinite().all():
                    return False
                for at in _subsets(len(alone), generator):
                    some = [each(lambda part, at=at: part[at], parts) for parts in (tried, targets)]
                    whole, mean = float(_of_batch(loss, *some)), float(alone[at].mean())
                    if not abs(whole - mean) <= _EXACT * max(1.0, abs(whole)):
                        return False
    except Exception:
        return False
    return True


def _subsets(count: int, generator: torch.Generator) -> list[Tensor]:
    order = torch.randperm(count, generator=generator)
    return [order[: max(1, count // part)] for part in (1, 2, 5)] + [order[-3:]]


def _scale_part(part: Tensor, *, scale: float) -> Tensor:
    return scale * part.double() if part.is_floating_point() else part


def _like(part: Tensor, *, scale: float, generator: torch.Generator) -> Tensor:
    if not part.is_floating_point():
        return part
    return scale * torch.randn(part.shape, generator=generator, dtype=torch.float64)


def _with_accuracy(made: Objective, loss: Loss, outputs: Any, targets: Any) -> Objective:
    """The objective with the accuracy of its labels, if the loss treats the targets as labels."""
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.is_floating_point()):
        return made
    for axis in class_axes(outputs, targets):
        ignored = _find_ignored_labels(loss, outputs, targets, axis)
        if ignored is not None:
            score = partial(class_score, axis=axis, ignored=ignored)
            return replace(made, labels="classes", score=score, classes=outputs.shape[axis], ignored=ignored)
    threshold = _threshold(loss, outputs, targets)
    if threshold is None:
        return made
    score = binary_score if threshold == 0 else partial(binary_score, threshold=threshold)
    return replace(made, labels="binary", score=score, classes=2)


def class_axes(outputs: Tensor, targets: Tensor) -> list[int]:
    """The possible axes of class scores for these targets: PyTorch's own, 1, before the last."""
    if targets.is_floating_point() or outputs.dim() != targets.dim() + 1:
        return []
    return [
        axis
        for axis in dict.fromkeys((1, outputs.dim() - 1))
        if outputs.shape[:axis] + outputs.shape[axis + 1 :] == targets.shape and outputs.shape[axis] >= _FEWEST_CLASSES
    ]


def _find_ignored_labels(loss: Loss, outputs: Tensor, targets: Tensor, axis: int) -> tuple[int, ...] | None:
    """Labels without influence on the loss; None unless, for all others, raising the label's score reduces it most."""
    noise = 0.01 * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1), dtype=outputs.dtype)
    slope = _slope(loss, noise, targets)
    if slope is None:
        return None
    slope = slope.movedim(axis, -1).flatten(0, -2)
    labels, moved = targets.flatten().long(), (slope != 0).any(-1)
    if not moved.any() or not (slope.argmin(-1) == labels)[moved].all():
        return None
    still = set(labels[~moved].tolist()) - set(labels[moved].tolist())
    named = getattr(loss, "ignore_index", None)
    return tuple(sorted(label for label in {*still, named} if isinstance(label, int) and label >= 0))


def _threshold(loss: Loss, outputs: Tensor, targets: Tensor) -> float | None:
    """The output between predictions of 0 and 1, if the targets are only these and the loss separates them there."""
    if outputs.numel() != targets.numel() or set(targets.unique().tolist()) != {0, 1}:
        return None
    if targets.dim() > 1 and targets.shape[1] > 1 and bool((targets.sum(1) == 1).all()):
        return None  # class shares, which are scored relative to each other
    wanted = torch.where(targets.reshape(outputs.shape) > 0.5, 1.0, -1.0).to(outputs)

    def separates(at: float) -> bool:
        slope = _slope(loss, torch.full_like(outputs, at), targets)
        return slope is not None and bool((slope.sign() == -wanted).all())

    # A loss of logits decreases with distance from the threshold; a loss of probabilities ends at 0 and 1.
    far, near = (_value(loss, size * wanted, targets) for size in (6.0, 3.0))
    if separates(0.0) and far <= near:
        return 0.0
    return 0.5 if separates(0.5) else None


def _value(loss: Loss, outputs: Tensor, targets: Any) -> float:
    """The loss; NaN if it rejects the outputs."""
    try:
        return float(_of_batch(partial(_fresh_value, loss), outputs, targets))
    except Exception:
        return float("nan")


def _slope(loss: Loss, outputs: Tensor, targets: Any) -> Tensor | None:
    """Gradient of the loss in the outputs; None if there is none."""
    point = outputs.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(_of_batch(partial(_fresh_value, loss), point, targets), point)
    except Exception:
        return None
    return slope if bool(slope.isfinite().all()) else None


def of_logits(made: Objective) -> Objective:
    """The objective of outputs with logits, from that of the logits; the model's own loss takes the whole outputs."""
    score = partial(_score_of_logits, made.score)
    if made.name == MODEL:
        return replace(made, score=score)
    losses = partial(_loss_of_logits, made.losses) if made.losses else None
    return replace(made, batch=partial(_loss_of_logits, made.batch), losses=losses, score=score, takes_logits=True)


def own_objective(logits: Any, targets: Any) -> Objective:
    """The objective of a model that returns its loss as ``outputs.loss``; accuracy for one label per sample.

    Args:
        logits: The logits in the model's outputs for n samples.
        targets: Their targets.
    """
    made = Objective(name=MODEL, batch=_loss_of, losses=None, labels="none", score=no_score)
    if not (isinstance(logits, Tensor) and isinstance(targets, Tensor)) or targets.dim() != 1:
        return made
    if not class_axes(logits, targets) or int(targets.max()) >= logits.shape[1]:
        return made
    return replace(made, labels="classes", score=class_score, classes=logits.shape[1])


def _loss_of(outputs: Any, _targets: Any) -> Tensor:
    value = outputs["loss"] if isinstance(outputs, Mapping) else outputs.loss
    return value.mean() if value.dim() else value


def _loss_of_logits(loss: Loss, outputs: Any, targets: Any) -> Tensor:
    return loss(logits_of(outputs), targets)


def _score_of_logits(score: Score, outputs: Any, targets: Any, shares: Tensor) -> tuple[Tensor, Tensor]:
    return score(logits_of(outputs), targets, shares)

"""The growth of the epochs to convergence towards the convergence threshold: a power law with intervals."""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import special

from lratlas.analysis.estimates import Floats, student
from lratlas.tables import SCHEMAS, empty

FEWEST_POINTS = 4
FEWEST_POINTS_FOR_INTERVALS = 5
FEWEST_SEEDS_FOR_BOOTSTRAP = 3
# A threshold further above the last PLR than this many times the range of PLRs is a guess: the fit looks like an
# exponential.
FURTHEST = 10.0
# Closer than this share of the last step, the law is flat with a jump at the last PLR.
NEAREST = 1e-4
RESAMPLES = 1000
SCAN = 200
# Share of the resamples that must have a threshold for a meaningful interval.
IDENTIFIED = 0.9
_LARGEST_LOG = 100.0  # ensures a finite end of a very wide interval


@dataclass(frozen=True, kw_only=True)
class Law:
    """epochs = scale * (threshold - PLR) ** -exponent."""

    threshold: float
    exponent: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """The best laws for given thresholds: straight lines of log epochs over the log distance to each threshold."""

    exponent: Floats
    log_scale: Floats
    squares: Floats  # sum of the squared residuals


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Epochs per PLR and seed: infinite if a run never converged, NaN if there is no run."""

    plrs: Floats  # [PLRs], sorted
    epochs: Floats  # [PLRs, seeds]

    def rising(self) -> tuple[Floats, Floats]:
        """PLRs and median epochs from the last minimum of the epochs to the first infinite value."""
        measured = ~np.isnan(self.epochs).all(1)
        plrs, epochs = self.plrs[measured], np.nanmedian(self.epochs[measured], axis=1)
        if not np.isfinite(epochs).any():
            return plrs[:0], epochs[:0]
        first = int(np.flatnonzero(epochs == epochs.min())[-1])
        stops = np.flatnonzero(np.isinf(epochs[first:]))
        last = first + int(stops[0]) if stops.size else plrs.size
        return plrs[first:last], epochs[first:last]


def power_law(convergence: pl.DataFrame) -> pl.DataFrame:
    """Fit epochs = scale * (threshold - PLR)^(-exponent) to the epochs to convergence (Fig. 11 of the paper).

    The fit is least squares on the log epochs of `rising`. With three seeds or more, intervals are percentiles of a
    bootstrap over seeds, wider for few seeds (Hesterberg's expanded percentiles). Otherwise they follow from
    the Jacobian and Student's t, on the logs of the distance from the last PLR to the threshold, of the exponent and
    of the scale. Resampling three seeds underestimates their spread: such an interval contains the truth about four
    times in five; from five seeds on the coverage is as stated.

    Args:
        convergence: A study's ``convergence`` table.

    Returns:
        Three rows with the schema of ``power_law``: threshold, exponent and scale, each with its 95% interval, null
        if there are too few points for one or a tenth of the resamples has no threshold. No rows if fewer than
        four PLRs are on the rising part or the data do not determine a threshold.
    """
    table = _by_seed(convergence)
    plrs, epochs = table.rising()
    law = _fit(plrs, epochs)
    if law is None:
        return empty("power_law")
    few = table.epochs.shape[1] < FEWEST_SEEDS_FOR_BOOTSTRAP
    ends = _from_jacobian(law, plrs, epochs) if few else _from_bootstrap(table)
    rows = [
        {
            "parameter": name,
            "value": value,
            "low": min(value, getattr(ends[0], name)) if ends else None,
            "high": max(value, getattr(ends[1], name)) if ends else None,
        }
        for name, value in (("threshold", law.threshold), ("exponent", law.exponent), ("scale", law.scale))
    ]
    return pl.DataFrame(rows, schema=SCHEMAS["power_law"])


def rising(convergence: pl.DataFrame) -> pl.DataFrame:
    """The part over which the epochs to convergence rise with the PLR.

    The part starts at the PLR with the fewest epochs (below it epochs fall with the PLR, because steps are small) and
    ends before the first PLR at which at least half of the seeds never converged.

    Args:
        convergence: A study's ``convergence`` table.

    Returns:
        One row per PLR in order: ``plr``, ``epochs`` (the median over seeds; a seed that never converged counts as
        infinite).
    """
    plrs, epochs = _by_seed(convergence).rising()
    return pl.DataFrame({"plr": plrs, "epochs": epochs}, schema={"plr": pl.Float64, "epochs": pl.Float64})


def _by_seed(convergence: pl.DataFrame) -> _Table:
    if convergence.is_empty():
        return _Table(plrs=np.empty(0), epochs=np.empty((0, 1)))
    wide = (
        convergence.with_columns(pl.col("epochs").cast(pl.Float64).fill_null(math.inf))
        .pivot("seed", index="plr", values="epochs", aggregate_function="min")
        .sort("plr")
    )
    return _Table(plrs=wide["plr"].to_numpy(), epochs=wide.drop("plr").to_numpy())


def _fit(plrs: Floats, epochs: Floats) -> Law | None:
    """The least-squares law in log epochs; None if the data do not determine its threshold."""
    if plrs.size < FEWEST_POINTS:
        return None
    logs = np.log(epochs)
    scan = np.log(np.geomspace(NEAREST * (plrs[-1] - plrs[-2]), FURTHEST * (plrs[-1] - plrs[0]), SCAN))
    best = int(np.argmin(_lines(plrs, logs, scan).squares))
    if best in {0, SCAN - 1}:
        return None

    def squares(log_distance: float) -> float:
        return float(_lines(plrs, logs, np.array([log_distance])).squares[0])

    from scipy import optimize  # slow to import, and rarely needed

    found = optimize.minimize_scalar(
        squares, bounds=(scan[best - 1], scan[best + 1]), method="bounded", options={"xatol": 1e-9}
    )
    line = _lines(plrs, logs, np.array([found.x]))
    if line.exponent[0] <= 0:
        return None
    return Law(
        threshold=float(plrs[-1] + math.exp(found.x)),
        exponent=float(line.exponent[0]),
        scale=math.exp(line.log_scale[0]),
    )


def _lines(plrs: Floats, logs: Floats, log_distances: Floats) -> _Lines:
    """For each log of the distance from the last PLR to the threshold, the line through the log epochs."""
    x = np.log(plrs[-1] - plrs + np.exp(log_distances)[:, None])
    centred = x - x.mean(1, keepdims=True)
    slope = centred @ logs / (centred**2).sum(1)
    residuals = logs - logs.mean() - slope[:, None] * centred
    return _Lines(exponent=-slope, log_scale=logs.mean() - slope * x.mean(1), squares=(residuals**2).sum(1))


def _from_jacobian(law: Law, plrs: Floats, epochs: Floats) -> tuple[Law, Law] | None:
    """The lower and the upper ends of the intervals by linear theory at the fit."""
    freedom = plrs.size - 3
    if plrs.size < FEWEST_POINTS_FOR_INTERVALS:
        return None
    distances, gap = law.threshold - plrs, law.threshold - plrs[-1]
    fitted = math.log(law.scale) - law.exponent * np.log(distances)
    # The Jacobian of the fitted log epochs, by the logs of the gap, of the exponent and of the scale.
    jacobian = np.column_stack([-law.exponent * gap / distances, -law.exponent * np.log(distances), np.ones(plrs.size)])
    variance = ((np.log(epochs) - fitted) ** 2).sum() / freedom
    errors = np.sqrt(variance * np.diag(np.linalg.pinv(jacobian.T @ jacobian)))
    reach = student(freedom + 1) * errors

    def end(sign: int) -> Law:
        factors = np.exp(sign * np.minimum(reach, _LARGEST_LOG))
        return Law(
            threshold=float(plrs[-1] + gap * factors[0]),
            exponent=float(law.exponent * factors[1]),
            scale=float(law.scale * factors[2]),
        )

    return end(-1), end(1)


def _from_bootstrap(table: _Table) -> tuple[Law, Law] | None:
    """The lower and the upper ends of the intervals over resampled seeds."""
    seeds = table.epochs.shape[1]
    draws = np.random.default_rng(0).integers(seeds, size=(RESAMPLES, seeds))
    # Few seeds give few distinct draws: each is fitted once.
    chosen, counts = np.unique(np.sort(draws, axis=1), axis=0, return_counts=True)
    laws = [_fit(*_Table(plrs=table.plrs, epochs=table.epochs[:, columns]).rising()) for columns in chosen]
    found = [(law, count) for law, count in zip(laws, counts.tolist(), strict=True) if law]
    if sum(count for _, count in found) < IDENTIFIED * RESAMPLES:
        return None
    values = np.repeat(
        np.array([[law.threshold, law.exponent, law.scale] for law, _ in found]), [count for _, count in found], axis=0
    )
    t = student(seeds)
    tail = float(special.ndtr(-t * math.sqrt(seeds / (seeds - 1))))
    low, high = (np.quantile(values, share, axis=0).tolist() for share in (tail, 1 - tail))
    return (
        Law(threshold=low[0], exponent=low[1], scale=low[2]),
        Law(threshold=high[0], exponent=high[1], scale=high[2]),
    )

"""The built-in measurements."""

from lratlas.measure.bands import BANDS
from lratlas.measure.base import Measurement
from lratlas.measure.features import FEATURES
from lratlas.measure.geometry import GEOMETRY
from lratlas.measure.norms import NORMS
from lratlas.measure.sharpness import SHARPNESS

MEASUREMENTS: tuple[Measurement, ...] = (FEATURES, BANDS, GEOMETRY, NORMS, SHARPNESS)
"""In planning order; epochs to convergence are recorded in training."""

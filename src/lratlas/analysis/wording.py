"""How sentences write numbers."""

import math
from collections.abc import Collection


def format_lr(value: float, *, digits: int = 2) -> str:
    """An LR in short scientific notation, to two digits unless told otherwise.

    Example:
        >>> format_lr(0.0075), format_lr(0.1), format_lr(3.942e-4, digits=3)
        ('7.5e-3', '1e-1', '3.94e-4')
    """
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def told_apart(values: Collection[float]) -> int:
    """How many digits LRs need, two at least, so that different ones read differently.

    Example:
        >>> told_apart([7.46e-3, 7.52e-3]), told_apart([1e-3, 1e-3])
        (3, 2)
    """
    different = len({*values})
    return next((n for n in range(2, 7) if len({format_lr(value, digits=n) for value in values}) == different), 7)


def signed_interval(low: float, high: float) -> str:
    """The two ends of an interval, written as `plain` does.

    Example:
        >>> signed_interval(-0.512, 9.23)
        '−0.51 to 9.2'
    """
    return f"{plain(low)} to {plain(high)}"


def plain(value: float) -> str:
    """A number to two digits, or to a whole one, without an exponent and with a true minus sign.

    Example:
        >>> plain(-0.512), plain(0.00042), plain(375.9), plain(1698)
        ('−0.51', '0.00042', '376', '1,698')
    """
    digits = 0 if abs(value) >= 10 or value == 0 else 1 - math.floor(math.log10(abs(value)))
    text = f"{value:,.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")

"""How sentences write numbers."""

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
    """The two ends of an interval of differences, to two digits, with a true minus sign.

    Example:
        >>> signed_interval(-0.512, 9.23)
        '−0.51 to 9.2'
    """
    return f"{low:.2g} to {high:.2g}".replace("-", "−")

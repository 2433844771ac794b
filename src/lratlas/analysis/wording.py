"""How sentences write numbers."""


def format_lr(value: float, *, digits: int = 2) -> str:
    """An LR in short scientific notation, to two digits unless told otherwise.

    Example:
        >>> format_lr(0.0075), format_lr(0.1), format_lr(3.942e-4, digits=3)
        ('7.5e-3', '1e-1', '3.94e-4')
    """
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def signed_interval(low: float, high: float) -> str:
    """The two ends of an interval of differences, to two digits, with a true minus sign.

    Example:
        >>> signed_interval(-0.512, 9.23)
        '−0.51 to 9.2'
    """
    return f"{low:.2g} to {high:.2g}".replace("-", "−")

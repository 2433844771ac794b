"""The font of figures: Arimo, with the metrics of Helvetica, so that pages and figures are laid out alike."""

import base64
from functools import cache
from pathlib import Path

import vl_convert

FAMILY = "Arimo"
_FOLDER = Path(__file__).with_name("fonts")
_WEIGHTS = {"normal": "Arimo-Regular.ttf", "bold": "Arimo-Bold.ttf"}


@cache
def register() -> None:
    """Let vl-convert draw with the font; once is enough for a process."""
    vl_convert.register_font_directory(str(_FOLDER))


def with_font(svg: str) -> str:
    """The picture with the font inside, so that it needs none of the reader's.

    Args:
        svg: The picture, as vl-convert draws it.

    Returns:
        The same with a style of one ``@font-face`` for each weight that it uses.
    """
    used = [weight for weight in _WEIGHTS if weight == "normal" or f'font-weight="{weight}"' in svg]
    head, end, rest = svg.partition(">")
    return f"{head}{end}<style>{''.join(_face(weight) for weight in used)}</style>{rest}"


@cache
def _face(weight: str) -> str:
    font = base64.b64encode((_FOLDER / _WEIGHTS[weight]).read_bytes()).decode()
    return (
        f"@font-face{{font-family:{FAMILY};font-weight:{weight};"
        f"src:url(data:font/ttf;base64,{font}) format('truetype')}}"
    )

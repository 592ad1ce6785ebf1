"""Figures as code in the text of a problem: Asymptote and TikZ. Pure."""

from __future__ import annotations

import re

_TAG = re.compile(r"[<\[](?P<close>/)?asy[>\]]|\\(?P<edge>begin|end)\{(?P<name>asy|tikzpicture)\}")


def replace_figures(text: str, by: str) -> str:
    """Replace each complete figure, such as `[asy] ... [/asy]`, by a text. Takes time linear in the text."""
    kept: list[str] = []
    done, opened = 0, None
    for tag in _TAG.finditer(text):
        name, closes = tag["name"] or "tag", bool(tag["close"]) or tag["edge"] == "end"
        if opened is None and not closes:
            opened = (name, tag.start())
        elif opened is not None and closes and opened[0] == name:
            kept += [text[done : opened[1]], by]
            done, opened = tag.end(), None
    return "".join([*kept, text[done:]])

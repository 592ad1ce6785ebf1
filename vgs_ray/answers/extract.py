"""The answer of a response: the last complete box after the end of the thought. Pure, linear time."""

from __future__ import annotations

import re

MAX_SOLUTION_CHARS = 100_000  # text after the thought that is searched for a box; the end of it when there is more

END_OF_THOUGHT = re.compile(r"</think>|<\|end_of_thought\|>")
# A box, an escaped character, or a brace. The number of backslashes is bounded so that a long run of them stays linear.
_BRACES = re.compile(r"(?P<box>\\{1,4}(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)


def boxes(text: str) -> list[str]:
    r"""Contents of all complete outermost boxes (`\boxed{}`, `\fbox{}`), in order of their start.

    A box without its closing brace is passed over, and complete boxes inside it count. Takes time linear in the text.
    """
    found: list[tuple[int, str]] = []
    open_braces: list[tuple[int, int] | None] = []  # (start, content start) of a box; None for any other brace
    for token in _BRACES.finditer(text):
        if token["box"]:
            open_braces.append((token.start(), token.end()))
        elif token[0] == "{":
            open_braces.append(None)
        elif token[0] == "}" and open_braces and (box := open_braces.pop()):
            while found and found[-1][0] > box[0]:
                found.pop()  # it lies inside this one
            found.append((box[0], text[box[1] : token.start()].strip()))
    return [content for _, content in found]


def extract_answer(text: str) -> str | None:
    """The last complete box after the thought has ended.

    The prompt usually opens the thought already, so a response without `</think>` (or `<|end_of_thought|>`) is an
    unfinished thought and has no answer. The first closing tag ends the thought: a later stray one takes nothing away.
    Only the last `MAX_SOLUTION_CHARS` characters after the thought are searched.

    Returns:
        The content of the box; None without a finished thought, without a complete box, or when the last one is empty.
    """
    end = END_OF_THOUGHT.search(text)
    if end is None:
        return None
    found = boxes(text[max(end.end(), len(text) - MAX_SOLUTION_CHARS) :])
    return (found[-1] or None) if found else None

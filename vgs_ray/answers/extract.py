"""The answer of a response: the last complete box after the end of the thought. Pure, linear time."""

from __future__ import annotations

import re

MAX_SOLUTION_CHARS = (
    100_000  # only this many characters at the end of the text after the thought are searched for a box
)

END_OF_THOUGHT = re.compile(r"</think>|<\|end_of_thought\|>")
# A box, an escaped character, or a brace. The limit on the number of backslashes keeps the time linear for long runs of them.
_BRACES = re.compile(r"(?P<box>\\{1,4}(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)


def boxes(text: str) -> list[str]:
    r"""Contents of all complete outermost boxes (`\boxed{}`, `\fbox{}`), in the order of their start.

    A box without a closing brace is ignored, but complete boxes inside it count. Takes time linear in the text.
    """
    complete: list[tuple[int, str]] = []  # (start, content)
    open_braces: list[tuple[int, int] | None] = []  # (start, content start) of a box; None for any other brace
    for token in _BRACES.finditer(text):
        if token["box"]:
            open_braces.append((token.start(), token.end()))
        elif token[0] == "{":
            open_braces.append(None)
        elif token[0] == "}" and open_braces and (box := open_braces.pop()):
            while complete and complete[-1][0] > box[0]:
                complete.pop()  # it lies inside this box
            complete.append((box[0], text[box[1] : token.start()].strip()))
    return [content for _, content in complete]


def extract_answer(text: str) -> str | None:
    r"""The last complete box after the end of the thought: `... </think> It is \boxed{7}.` gives `7`.

    The prompt usually opens the thought, so a response without `</think>` (or `<|end_of_thought|>`) is an unfinished thought
    and has no answer. The first closing tag ends the thought; later ones are ignored. Only the last `MAX_SOLUTION_CHARS`
    characters after the thought are searched.

    Returns:
        The content of the box. None if the thought is unfinished, if no box is complete, or if the last box is empty.
    """
    end = END_OF_THOUGHT.search(text)
    if end is None:
        return None
    contents = boxes(text[max(end.end(), len(text) - MAX_SOLUTION_CHARS) :])
    return (contents[-1] or None) if contents else None

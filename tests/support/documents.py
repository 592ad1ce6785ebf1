"""Reads README.md, CONTRIBUTING.md and docs/*.md: blocks of code, commands and inline code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"([A-Z_]+=\S+ )*(python|make|jobs/\w+\.sh|ray|serve|hf|pip|curl|source|export) \S")
"""Inline code that starts like this is a command."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.M)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


class Snippet(NamedTuple):
    """Code in a document; `kind` is `shell` for an indented block, the language for a fence, `inline` otherwise."""

    file: str
    kind: str
    text: str


def snippets() -> Iterator[Snippet]:
    for path in DOCUMENTS:
        name, text = str(path.relative_to(ROOT)), path.read_text()
        yield from (Snippet(name, language, code) for language, code in FENCE.findall(text))
        text = FENCE.sub("", text)
        yield from (Snippet(name, "shell", re.sub("^ {4}", "", block, flags=re.M)) for block in INDENTED.findall(text))
        for code in INLINE.findall(INDENTED.sub("", text)):
            yield Snippet(name, "inline", " ".join(code.split()))


def commands() -> dict[str, str]:
    """Each shell command with the document where it occurs first."""
    found: dict[str, str] = {}
    for file, kind, text in snippets():
        lines = shell_lines(text) if kind == "shell" else [text] if kind == "inline" and COMMAND.match(text) else []
        for line in lines:
            found.setdefault(line, file)
    return found


def shell_lines(block: str) -> list[str]:
    """The commands of a block, without comments; a quoted string may span lines."""
    lines, line = [], ""
    for part in block.splitlines():
        line = f"{line}\n{part}" if line else part
        if line.count("'") % 2 == 0:
            lines += [command.strip() for command in re.sub(r"\s+# .*", "", line).split(" && ")]
            line = ""
    return [line for line in lines if line]

"""The tree of a search as lines of text: the newest block of each group while it runs, and all blocks at its end.

In: the events of the blocks. Out: `rich` texts that fit the width of a terminal. Each line has the group, a mark, the value and
the block's text. Blocks indent only where several paths go on. Blocks with the same parent and text that end there are one line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.text import Text

Block = dict[str, Any]
"""The data of an event `vgs_ray.node`."""
ROOT = "0"
COLOURS = ("red", "dark_orange", "yellow", "green_yellow", "green")
"""Colours of the values from 0 to 1."""
MARKS = {"kept": "→", "pruned": "×", "finished": "●", "length": "…"}
LEGEND = "→ kept   × pruned   ● finished   … cut off"
HEAD = "group    value  text of the block"
INDENT = 2
MIN_TEXT = 24
"""Columns of a block's text below which deeper blocks are not indented further."""


class Line(NamedTuple):
    """Equal blocks that end, or one block; `depth` is the number of branches above it."""

    blocks: Sequence[Block]
    depth: int


class TreeText:
    """Collects the blocks of one search."""

    def __init__(self) -> None:
        self.blocks, self.tokens = 0, 0
        self._newest: dict[int, Block] = {}
        self._children: dict[tuple[int, str], list[Block]] = defaultdict(list)

    def add(self, block: Block) -> None:
        """Add the block of an event."""
        self.blocks += 1
        self.tokens += block["tokens"]
        self._children[block["group"], block["parent"]].append(block)
        newest = self._newest.get(block["group"])
        if newest is None or block["state"] != "pruned" or newest["state"] == "pruned":
            self._newest[block["group"]] = block

    def newest(self, width: int, height: int) -> Text:
        """The newest block of each group that was not pruned, in at most `height` lines, and the numbers of blocks and tokens."""
        rows = [_text(group, [block], 0, width) for group, block in sorted(self._newest.items())]
        hidden = len(rows) - (height - 2)
        if hidden > 0:
            rows = rows[: height - 3]
            rows.append(Text(f"  ...    {hidden + 1} more groups", style="dim"))
        total = Text(f"{self.blocks:,} blocks, {self.tokens:,} tokens", style="dim")
        return Text("\n").join([_cut(Text(HEAD, style="dim"), width), *rows, _cut(total, width)])

    def lines(self, width: int, chosen: str = "") -> Iterator[Text]:
        """All blocks, group by group.

        Args:
            width: columns of each line at most.
            chosen: id of the block at the end of the chosen answer.
        """
        yield _cut(Text(LEGEND, style="dim"), width)
        yield _cut(Text(HEAD, style="dim"), width)
        for group in sorted(self._newest):
            for index, line in enumerate(self._lines(group)):
                is_chosen = any(block["id"] == chosen for block in line.blocks)
                yield _text(group if not index else None, line.blocks, line.depth, width, is_chosen)

    def _lines(self, group: int) -> Iterator[Line]:
        """The blocks of a group in the order of their paths; of each round, those that end come first."""
        waiting: list[Line | str] = [ROOT]
        depth = 0
        while waiting:
            at = waiting.pop()
            if isinstance(at, Line):
                yield at
                depth, at = at.depth, at.blocks[0]["id"]
            ends, inner = self._split(group, at)
            depth += len(inner) > 1
            yield from (Line(blocks, depth) for blocks in ends)
            waiting.extend(Line([block], depth) for block in reversed(inner))

    def _split(self, group: int, parent: str) -> tuple[list[list[Block]], list[Block]]:
        """The children that end, equal ones together, and those that go on."""
        ends: dict[tuple[str, str], list[Block]] = defaultdict(list)
        inner = []
        for block in self._children.get((group, parent), ()):
            if (group, block["id"]) in self._children:
                inner.append(block)
            else:
                ends[block["state"], block["text"]].append(block)
        return sorted(ends.values(), key=lambda blocks: blocks[0]["state"] != "pruned"), inner


def printable(text: str) -> str:
    """Text in one line, without characters that control a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _text(group: int | None, blocks: Sequence[Block], depth: int, width: int, chosen: bool = False) -> Text:
    values = [block["value"] for block in blocks if block["value"] is not None]
    value, state = max(values, default=None), blocks[0]["state"]
    colour = "" if value is None else COLOURS[min(int(value * 5), 4)]
    line = Text().append("     " if group is None else f"{group:>5}", "dim")
    line.append(
        f"  {MARKS[state]} {'  -  ' if value is None else f'{value:.3f}'}", "dim" if state == "pruned" else colour
    )
    indent = min(INDENT * depth, max(width - len(line) - MIN_TEXT, 0))
    count = f" ({len(blocks)} equal)" if len(blocks) > 1 else ""
    end = f"{count}{' <- the answer' if chosen else ''}"
    text = printable(blocks[0]["text"])
    room = max(width - len(line) - indent - 2 - len(end), 1)
    if state == "finished" and cell_len(text) > room:  # its answer is at the end
        text = f"…{text[len(text) - room + 1 :]}"
    style = "bold" if chosen else "dim" if state == "pruned" else ""
    return line.append(f"  {' ' * indent}").append(f"{_cut(Text(text), room)}{end}", style)


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text

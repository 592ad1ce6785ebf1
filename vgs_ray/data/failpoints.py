"""Named points at which tests kill or stop a process, to show what a crash there costs.

The environment variable `VGS_FAILPOINTS` arms points, as in `part.before=kill@3,manifest.after=stop`: the process gets SIGKILL
when it passes `part.before` for the third time, and SIGSTOP when it first passes `manifest.after`. `any` stands for every
point. A point that is not armed does nothing.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "VGS_FAILPOINTS"
ANY = "any"
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}

passed: Counter[str] = Counter()
"""How often this process has passed each point since `arm`."""
_armed: dict[str, tuple[signal.Signals, int]] = {}


def arm(text: str) -> None:
    """Arm the points that a text in the form of `VGS_FAILPOINTS` names, and no others.

    Raises:
        ValueError: the text has another form.
    """
    _armed.clear()
    passed.clear()
    for item in filter(None, text.split(",")):
        name, _, action = item.partition("=")
        kind, _, count = action.partition("@")
        if kind not in SIGNALS or not (count or "1").isdigit():
            raise ValueError(f"{VARIABLE} has {item!r}; a point is armed as NAME=kill@3 or NAME=stop@1: correct it")
        _armed[name] = SIGNALS[kind], int(count or 1)


def failpoint(name: str) -> None:
    """Pass a point of the commit path."""
    if not _armed:
        return
    for each in (name, ANY):
        passed[each] += 1
        action, count = _armed.get(each, (None, 0))
        if action and passed[each] == count:
            os.kill(os.getpid(), action)


arm(os.environ.get(VARIABLE, ""))

"""One line for each error that the user can correct: our own errors and those of storage, also from Ray's workers."""

from __future__ import annotations

import errno
import re

from vgs_ray.data.probe import is_of_store, reason
from vgs_ray.errors import UserError

DISK = {
    errno.ENOSPC: "no space left on the disk of {place}: free some space, then run the same command",
    errno.EDQUOT: "the disk quota of {place} is used up: free some space, then run the same command",
    errno.EROFS: "{place} is on a read-only file system, but a run must write: mount it writable or pass another --root",
    errno.EACCES: "{place} can't be used (permission denied): change its permissions or use another path",
    errno.EPERM: "{place} can't be used (operation not permitted): change its permissions or use another path",
    errno.EFBIG: "{place} would exceed the maximum file size: raise the limit (ulimit -f) or pass another --root",
}


def causes(error: BaseException) -> list[BaseException]:
    """An error and its causes, outermost first. Ray stores a worker's error in the attribute `cause` of its own error."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        inner = getattr(following, "cause", None)
        following = inner if isinstance(inner, BaseException) else following.__cause__
    return chain


def line_of(error: BaseException) -> str:
    """The message of an error that the user can correct, as one line; empty for other errors, which need a traceback."""
    chain = causes(error)
    for cause in chain:
        if _is_from_ray(cause):
            continue
        if isinstance(cause, UserError):
            return str(cause).partition("\nFailed to apply UDF")[0]  # Ray Data appends lines about retries
        if is_of_store(cause):
            return f"the object store can't be used ({reason(cause)}): no committed row is lost; run the same command to continue"
        if isinstance(cause, OSError) and cause.errno in DISK:
            place = str(cause.filename or "")  # Ray Data may have replaced it by a sentence
            return DISK[cause.errno].format(place=place if place.startswith("/") and "\n" not in place else "the run")
    return next(filter(None, (_line_in(str(cause)) for cause in chain if _is_from_ray(cause))), "")


def _is_from_ray(error: BaseException) -> bool:
    """Whether Ray defines its class. Ray's class may also inherit from the class of the worker's error."""
    return any(kind.__module__.startswith("ray.") for kind in type(error).__mro__)


def _line_in(text: str) -> str:
    """The same from the text of a Ray error, which may contain a worker's error as a printed traceback only."""
    if messages := re.findall(r"^[\w.]*\bUserError: (.+)$", text, re.MULTILINE):
        return str(messages[-1])
    for number, message in re.findall(r"^\w*Error: \[Errno (\d+)\] (.*)$", text, re.MULTILINE):
        if int(number) in DISK:
            place = re.search(r"'([^']+)'$", message)
            return DISK[int(number)].format(place=place[1] if place else "the run")
    if "OutOfDiskError" in text:
        return (
            "no space left for Ray's object store: free some space on the disk of RAY_TMPDIR (default /tmp), then run the "
            "same command"
        )
    return ""

"""What a person can mend, as one line: our own errors, and those of disks and sources wherever they came up."""

from __future__ import annotations

import errno
import re

from vgs_ray.data.source_names import SourceError
from vgs_ray.errors import UserError
from vgs_ray.models.packaged import NotInstalled

DISK = {
    errno.ENOSPC: "no space left on the disk of {place}: free some, then run the same command",
    errno.EDQUOT: "the disk quota of {place} is used up: free some space, then run the same command",
    errno.EROFS: "{place} is on a file system that is read-only; a run must write: mount it writable or pass another --root",
    errno.EACCES: "{place} can't be used (permission denied): change its permissions, or name another place",
    errno.EPERM: "{place} can't be used (not permitted): change its permissions, or name another place",
    errno.EFBIG: "{place} would be larger than a file may be here: raise the limit (ulimit -f) or pass another --root",
}


def causes(error: BaseException) -> list[BaseException]:
    """An error and what it was raised from, outermost first. Ray hands on a worker's error as the cause of its own."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        inner = getattr(following, "cause", None)
        following = inner if isinstance(inner, BaseException) else following.__cause__
    return found


def line_of(error: BaseException) -> str:
    """One line for an error that a person can mend; empty for any other, which deserves its traceback."""
    found = causes(error)
    for cause in found:
        if _of_ray(cause):
            continue
        if isinstance(cause, UserError | SourceError | NotInstalled):
            return str(cause).partition("\nFailed to apply UDF")[0]  # Ray Data adds lines about retries
        if isinstance(cause, OSError) and cause.errno in DISK:
            place = str(cause.filename or "")  # Ray Data may have put a sentence of its own there
            return DISK[cause.errno].format(place=place if place.startswith("/") and "\n" not in place else "the run")
    return next(filter(None, (_line_in(str(cause)) for cause in found if _of_ray(cause))), "")


def _of_ray(error: BaseException) -> bool:
    """Whether it is Ray's; such an error may also be of the class that it hands on, without being that error."""
    return any(kind.__module__.startswith("ray.") for kind in type(error).__mro__)


def _line_in(text: str) -> str:
    """The same from the text of an error of Ray: what an actor raises comes back as a traceback in words, at times."""
    if found := re.findall(r"^[\w.]*\b(?:UserError|SourceError|NotInstalled): (.+)$", text, re.MULTILINE):
        return str(found[-1])
    for number, said in re.findall(r"^\w*Error: \[Errno (\d+)\] (.*)$", text, re.MULTILINE):
        if int(number) in DISK:
            place = re.search(r"'([^']+)'$", said)
            return DISK[int(number)].format(place=place[1] if place else "the run")
    if "OutOfDiskError" in text:
        return (
            "no space left for Ray's object store: free some on the disk of RAY_TMPDIR (default /tmp), then run again"
        )
    return ""

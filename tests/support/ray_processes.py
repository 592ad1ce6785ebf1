"""Processes of Ray below another process, found by their titles."""

from __future__ import annotations

import psutil


def workers(process: int, name: str) -> list[psutil.Process]:
    """Processes below another one whose command line has this text, such as the class of an actor."""
    return [each for each in psutil.Process(process).children(recursive=True) if name in command_line(each)]


def command_line(process: psutil.Process) -> str:
    """The command line of a process, which Ray sets to the actor that runs in it; empty if the process has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""

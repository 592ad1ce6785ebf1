"""Errors that the command line prints as one line, and the options that their remedies name."""

from __future__ import annotations

import re


class UserError(Exception):
    """An error that the user can correct. Its text names the value, the rule and the remedy."""


def option_name(field: str) -> str:
    """The option that sets a field, such as `--train.batch-size`. An item of a list is set with the whole list."""
    return f"--{re.sub(r'[.][0-9]+$', '', field).replace('_', '-')}"

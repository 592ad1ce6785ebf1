"""Errors that the command line prints as one line."""


class UserError(Exception):
    """An error that the user can correct. Its text names the value, the rule and the remedy."""

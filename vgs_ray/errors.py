"""The error that a command shows as one line."""


class UserError(Exception):
    """Something the person who typed the command can mend. The text names the value, the rule and the remedy."""

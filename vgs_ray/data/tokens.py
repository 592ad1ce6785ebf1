"""A sequence of token ids."""

Tokens = tuple[int, ...]

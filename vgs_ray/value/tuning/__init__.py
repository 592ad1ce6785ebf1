"""Training of a policy on preference pairs, together with its value head (SVPO, arXiv 2406.10858), without Ray."""

"""The value model inside vLLM."""


def register() -> None:
    pass

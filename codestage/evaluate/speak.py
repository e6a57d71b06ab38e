"""What a model says: scores of continuations, and texts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scored:
    """Log-likelihood of a continuation after a context."""

    nats: float
    tokens: int
    greedy: bool = False
    """Whether each of its tokens was the most likely one."""
    seconds: float = 0.0
    """Its share of the time its batch took."""
    cut: bool = False
    """Whether the context's beginning was cut off to fit the model's."""


@dataclass(frozen=True)
class Written:
    """A text that a model wrote, without what stopped it."""

    text: str
    tokens: int
    seconds: float = 0.0
    """Its share of the time spent, by tokens."""
    cut: bool = False
    """Whether the prompt's beginning, or the text's end, was cut off to fit the model's context."""

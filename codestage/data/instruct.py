"""The one template that joins an instruction to its response: tuning and evaluation both use it."""

QUESTION = "Question: "
REASONING = "\nReasoning:"
ANSWER = "\nAnswer:"


def prompt(instruction: str, *, cot: bool = False, rationale: str | None = None) -> str:
    """The text before the response: ends where the model is to go on.

    Direct: `Question: …\\nAnswer:`. With `cot` the model is to write its own reasoning first
    (`…\\nReasoning:`); with a `rationale` the reasoning is supplied and the answer asked for.
    """
    if rationale is not None:
        return f"{QUESTION}{instruction}{REASONING} {rationale}{ANSWER}"
    return f"{QUESTION}{instruction}{REASONING if cot else ANSWER}"


def response(answer: str, *, rationale: str | None = None) -> str:
    """The text that the model is to produce after `prompt`; the loss is taken on this alone."""
    return f" {answer}" if rationale is None else f" {rationale}{ANSWER} {answer}"


def split_response(text: str) -> tuple[str | None, str | None]:
    """(reasoning, answer) of what a model wrote after a `cot` prompt; None if it gave no answer."""
    reasoning, marker, answer = text.partition(ANSWER)
    return reasoning.strip() or None, answer.strip() if marker else None

"""How instructions and responses are written as text: tuning and evaluation use the same template.

`PLAIN` is codestage's own; `Chat` is that of a tokenizer which brings one. Either way a response may
hold reasoning and then, after `ANSWER`, the answer.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from codestage.data.place import in_file
from codestage.errors import UserError

QUESTION = "Question: "
REASONING = "\nReasoning:"
ANSWER = "\nAnswer:"
STEP_BY_STEP = f"\nThink step by step, then write the answer after{ANSWER.replace(chr(10), ' ')}"
"""What a chat's user adds to ask for reasoning first."""
PLAIN_JINJA = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ m['content'] }}\n"
    "{% elif m['role'] == 'user' %}{% if loop.index0 > 0 and messages[loop.index0 - 1]['role'] == "
    "'assistant' %}{{ '\n' }}{% endif %}Question: {{ m['content'] }}\nAnswer:"
    "{% else %} {{ m['content'] }}{% endif %}{% endfor %}"
)
"""`PLAIN` as a chat template, for those who load an exported model."""
DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}\n"
"""Put before a chat template that writes today's date: rows and prompts are the same on every day. The newline
belongs to the tag, so that the template still begins at the beginning of a line."""
Exchange = tuple[str, str]
"""A prompt and its response."""
Piece = tuple[str, bool]
"""A stretch of text, and whether the model is to produce it: the loss is taken on that alone."""


class Plain:
    """`Question: …\\nAnswer: …`, with `\\nReasoning: …` between them where there is reasoning."""

    marked = False
    """Whether the text holds special tokens; if not, the begin token stands before it."""

    def prompt(self, instruction: str, *, cot: bool = False, rationale: str | None = None) -> str:
        """The text before the response: ends where the model is to go on.

        Direct: `Question: …\\nAnswer:`. With `cot` the model is to write its own reasoning first
        (`…\\nReasoning:`); with a `rationale` the reasoning is supplied and the answer asked for.
        """
        if rationale is not None:
            return f"{QUESTION}{instruction}{REASONING} {rationale}{ANSWER}"
        return f"{QUESTION}{instruction}{REASONING if cot else ANSWER}"

    def response(self, answer: str, *, rationale: str | None = None) -> str:
        """The text that the model is to produce after `prompt`."""
        return f" {answer}" if rationale is None else f" {rationale}{ANSWER} {answer}"

    def told(
        self, exchanges: Sequence[Exchange], *, system: str | None = None, rationale: str | None = None
    ) -> list[list[Piece]]:
        """The pieces of each exchange; a `rationale` belongs to the first."""
        pieces = []
        before = f"{system}\n" if system else ""
        for asked, answer in exchanges:
            text = before + self.prompt(asked, cot=rationale is not None)
            pieces.append([(text, False), (self.response(answer, rationale=rationale), True)])
            before, rationale = "\n", None
        return pieces


PLAIN = Plain()


class Chat:
    """The chat template of a tokenizer: in a folder, in a .gguf, or of the hub."""

    marked = True

    def __init__(self, place: Path | str) -> None:
        """
        Raises:
            UserError: there is no tokenizer, or it has no chat template.
        """
        from transformers import AutoTokenizer

        where, more = in_file(place) if isinstance(place, Path) else (place, {})
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **more)
        except Exception as error:  # readers of foreign files raise anything
            raise UserError(f"{place}: no tokenizer that Transformers can read: {error}") from None
        if not self._tokenizer.chat_template:
            raise UserError(f"{place}: the tokenizer has no chat template; leave chat_template out")
        self._tokenizer.chat_template = _undated(self._tokenizer.chat_template)
        added = self._tokenizer.added_tokens_decoder.values()
        self.markers = tuple(sorted({str(t.content) for t in added if t.special}))
        """Special tokens as text: in what people wrote they would be taken for the template's own."""
        self._end = str(self._tokenizer.eos_token)

    def prompt(self, instruction: str, *, cot: bool = False, rationale: str | None = None) -> str:
        """The conversation up to where the model is to answer."""
        if rationale is not None:
            instruction = f"{instruction}{REASONING} {rationale}"
        return self._render([_says("user", instruction + (STEP_BY_STEP if cot else ""))], asks=True)

    def response(self, answer: str, *, rationale: str | None = None) -> str:
        return answer if rationale is None else f"{rationale}{ANSWER} {answer}"

    def told(
        self, exchanges: Sequence[Exchange], *, system: str | None = None, rationale: str | None = None
    ) -> list[list[Piece]]:
        """The pieces of each exchange; the loss covers a response and the token that ends it.

        Raises:
            UserError: the template writes what went before differently once more is said.
        """
        messages = [_says("system", system)] if system else []
        done, told = "", []
        for asked, answer in exchanges:
            messages.append(_says("user", asked + (STEP_BY_STEP if rationale is not None else "")))
            question = self._render(messages, asks=True)
            messages.append(_says("assistant", self.response(answer, rationale=rationale)))
            whole = self._render(messages)
            if not question.startswith(done) or not whole.startswith(question):
                raise UserError(
                    "the tokenizer's chat template writes earlier messages differently once later ones "
                    "follow, so responses cannot be told apart; use conversations of one exchange, or "
                    "leave chat_template out"
                )
            told.append(list(self._pieces(question[len(done) :], whole[len(question) :])))
            done, rationale = whole, None
        return told

    def _pieces(self, asked: str, answered: str) -> Iterator[Piece]:
        yield asked, False
        learned, end, rest = answered.rpartition(self._end)
        yield (learned + end, True) if end else (answered + self._end, True)
        if end and rest:
            yield rest, False

    def _render(self, messages: list[dict[str, str]], *, asks: bool = False) -> str:
        try:
            text: Any = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=asks
            )
        except Exception as error:  # a template raises what it likes
            raise UserError(f"the tokenizer's chat template refuses a conversation: {error}") from None
        return str(text)


Template = Plain | Chat


def _undated(template: Any) -> Any:
    """A chat template, or several by name, without today's date."""
    if isinstance(template, dict):
        return {name: _undated(one) for name, one in template.items()}
    return DAY + template if "strftime_now" in template else template


def _says(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def split_response(text: str) -> tuple[str | None, str | None]:
    """(reasoning, answer) of what a model wrote after a `cot` prompt; None if it gave no answer."""
    reasoning, marker, answer = text.partition(ANSWER)
    return reasoning.strip() or None, answer.strip() if marker else None

"""Where documents come from and what is taken out of them: the part of the study file under `sources`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from codestage.study.values import Count, Model

TRANSFORMS = (
    "unchanged",
    "strip-whitespace",
    "rename-variables",
    "replace-keywords",
    "remove-comments",
    "swap-comments",
    "pseudocode",
    "steps",
    "flowchart",
)
LANGUAGES = (
    "python",
    "java",
    "javascript",
    "typescript",
    "php",
    "csharp",
    "c",
    "cpp",
    "go",
    "rust",
)
"""Programming languages that generated corpora are written in, and that can be perturbed."""
RENDERINGS = ("pseudocode", "steps", "flowchart")
"""Transforms that read Python alone."""


class HubModel(Model):
    """A model on the Hugging Face hub."""

    id: str = Field(description="owner/name, or a folder")
    revision: str | None = Field(
        None, description="a commit: without it what is there may change unseen"
    )


class HubSpec(HubModel):
    """A Hugging Face data set: by its id, or a folder of its files."""

    split: str = Field("train", description="which part of the data set")
    config: str | None = Field(None, description="which of its configurations, where it has several")
    files: tuple[str, ...] | None = Field(
        None, description="some of its files, by patterns such as python/*.parquet; default all"
    )


class Procedural(Model):
    """A generated corpus: see docs of `codestage.data.worlds`."""

    form: Literal["prose", "programs", "chat", "code_chat"] = Field(
        description="documents of words or of programs, instructions answered in words or by programs"
    )
    documents: Count = Field(description="how many are made")
    depth: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        (1, 2), description="things to keep track of: the fewest and the most"
    )
    skills: tuple[str, ...] | None = Field(
        None, description="by name; default the twelve of the small world"
    )
    cot: float = Field(0.5, ge=0, le=1, description="share of examples with their reasoning")
    noise: float = Field(
        0.0, ge=0, le=1, description="share of problems with something unrelated in them"
    )
    vocabulary: int | None = Field(
        None, ge=12, le=8000, description="names in it; objects and fruits in proportion"
    )
    seed: int = Field(0, description="another seed makes another corpus of the same kind")
    language: Literal[LANGUAGES] = Field(  # type: ignore[valid-type]
        "python", description="of the programs; the problems are the same in all"
    )

    @model_validator(mode="after")
    def _fewest_before_most(self) -> "Procedural":
        fewest, most = self.depth
        if fewest > most:
            raise ValueError(f"depth [{fewest}, {most}] has the fewest last; write [{most}, {fewest}]")
        return self

    @model_validator(mode="after")
    def _programs_to_write(self) -> "Procedural":
        if self.form in ("prose", "chat") and self.language != "python":
            raise ValueError(
                f"form {self.form} holds no programs that {self.language} could write; drop language, or "
                "take form programs or code_chat"
            )
        return self


class GymSpec(Model):
    """Problems of reasoning-gym's generators, in equal parts."""

    tasks: tuple[str, ...] = Field(min_length=1, description="names of data sets, e.g. leg_counting")
    documents: Count = Field(description="how many problems are made")
    seed: int = Field(0, description="another seed makes other problems")


class CleanSpec(Model):
    """What is taken out of a source; each rule counts what it removed."""

    min_characters: Count | None = Field(None, description="shorter documents are removed")
    max_characters: Count | None = Field(None, description="longer documents are removed")
    quality: bool = Field(False, description="long lines, hardly any letters, repeated lines")
    kinds: tuple[Literal["code", "code-text", "markup", "math", "text"], ...] | None = Field(
        None, description="documents of other kinds are removed"
    )
    classifier: Literal["rule", "magika"] = Field("rule", description="what tells kinds apart")
    subjects: tuple[Literal["coding", "math", "other"], ...] | None = Field(
        None, description="instructions about anything else are removed"
    )
    licences: tuple[str, ...] | None = Field(None, description="SPDX names; unknown is not allowed")
    languages: tuple[str, ...] | None = Field(None, description="ISO 639-1, such as en")
    exact_duplicates: bool = Field(False, description="keep the first of equal documents")
    near_duplicates: float | None = Field(None, gt=0, le=1, description="Jaccard similarity, e.g. 0.8")


class SourceSpec(Model):
    """A named stream of documents of one domain."""

    domain: str = Field(description="text, code, math or any word: what is compared with what")
    format: Literal["document", "instruct"] = Field(
        "document", description="instruct: questions and answers, for tune stages"
    )
    path: str | None = Field(None, description="a file, glob or folder, or an address such as s3://…")
    procedural: Procedural | None = Field(None, description="a corpus that codestage makes")
    stdlib: Literal[True] | None = Field(None, description="the interpreter's own library")
    hub: HubSpec | None = Field(None, description="a Hugging Face data set")
    reasoning_gym: GymSpec | None = Field(None, description="problems of reasoning-gym")
    text_field: str | None = Field(None, description="column of the text, if not text or content")
    prompt_field: str | None = Field(None, description="column of what is asked, if not a usual one")
    response_field: str | None = Field(None, description="column of the answer, given with prompt_field")
    where: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] | None = Field(
        None, description="values that columns must have, e.g. {lang: [java]}; other rows are removed"
    )
    tokenizer: str | None = Field(None, description="folder of the tokenizer of a pre-tokenised source")
    bad_rows: Literal["error", "skip"] = Field("error", description="skip counts them")
    clean: CleanSpec | None = Field(None, description="what is taken out")
    transform: tuple[Literal[TRANSFORMS], ...] = Field(  # type: ignore[valid-type]
        (), description="programs told or written differently, in this order"
    )
    programming_language: Literal[LANGUAGES] | None = Field(  # type: ignore[valid-type]
        None,
        description="whose rules transform follows; python, or what procedural writes, if not given",
    )
    epochs: float = Field(1.0, gt=0, description="most passes over the source in one arm")
    license: str | None = Field(None, description="of the whole source, where files do not say")
    language: str | None = Field(None, description="of its words, such as en")

    @model_validator(mode="after")
    def _one_origin(self) -> "SourceSpec":
        origins = (self.path, self.procedural, self.stdlib, self.hub, self.reasoning_gym)
        if sum(x is not None for x in origins) != 1:
            raise ValueError("give exactly one of path, hub, procedural, reasoning_gym, stdlib")
        if (self.prompt_field is None) != (self.response_field is None):
            raise ValueError("prompt_field and response_field name the two columns together; give both")
        if self.prompt_field and self.format != "instruct":
            raise ValueError(
                "prompt_field and response_field are for instructions; documents have text_field"
            )
        if self.where and self.stdlib:
            raise ValueError("where asks for values of columns, and stdlib has none; drop where")
        if self.clean and self.clean.subjects and self.format != "instruct":
            raise ValueError("subjects tells instructions apart; for documents there is kinds")
        if self.procedural:
            instruct = self.procedural.form in ("chat", "code_chat")
            if instruct != (self.format == "instruct"):
                need = "instruct" if instruct else "document"
                raise ValueError(f"procedural form {self.procedural.form} needs format: {need}")
        return self

    @model_validator(mode="after")
    def _rules_of_one_language(self) -> "SourceSpec":
        if self.programming_language and not self.transform:
            raise ValueError(
                "programming_language says whose rules transform follows; drop it, or add transform"
            )
        if self.programming_language and self.procedural:
            raise ValueError(
                "programming_language of generated programs is procedural's language; drop it"
            )
        told = [name for name in self.transform if name in RENDERINGS]
        if told and self.programs_in != "python":
            raise ValueError(
                f"transform {', '.join(told)} reads Python, and these programs are in {self.programs_in}; drop it"
            )
        return self

    @property
    def programs_in(self) -> str:
        """The programming language whose rules `transform` follows."""
        return str(
            self.procedural.language if self.procedural else self.programming_language or "python"
        )

"""The study's model: its shape, and the step that takes the weights of one that is trained already."""

from functools import cache
from pathlib import Path

from codestage.data.disk import file_digest
from codestage.data.place import files_of
from codestage.data.tokenizer import Marks, existing_tokenizer, marks_of
from codestage.engine.store import Step
from codestage.errors import UserError
from codestage.study.identity import plain
from codestage.study.load import line_of
from codestage.study.models import ModelShape, shape
from codestage.study.schema import ModelSpec, Study, TokenizerSpec


def model_shape(study: Study, study_path: Path) -> ModelShape:
    """The shape of the study's model with its tokenizer's vocabulary.

    Raises:
        UserError: a tokenizer or a model that is to exist cannot be read, or they do not fit each other.
    """
    spec = study.tokenizer
    if spec.vocab_size is not None:
        return shape(study.model, spec.vocab_size)
    size, marks = _existing_tokenizer(spec, study_path)
    ids = (marks.begin, marks.end, marks.pad)
    if not study.model.pretrained:
        return shape(study.model, size, ids)
    return _pretrained(study.model, study_path, size, ids, max(s.seq_len for s in study.stages.values()))


@cache
def _existing_tokenizer(spec: TokenizerSpec, study_path: Path) -> tuple[int, Marks]:
    try:
        found = existing_tokenizer(spec, study_path.parent)
    except UserError as error:
        raise UserError(f"{study_path}:{line_of(study_path, ('tokenizer',))}: {error}") from None
    return len(found), marks_of(found)


@cache
def _pretrained(
    spec: ModelSpec, study_path: Path, vocabulary: int, marks: tuple[int, int, int], seq_len: int
) -> ModelShape:
    from codestage.train.pretrained import pretrained_shape

    try:
        return pretrained_shape(
            spec, study_path.parent, vocabulary=vocabulary, marks=marks, seq_len=seq_len
        )
    except UserError as error:
        raise UserError(f"{study_path}:{line_of(study_path, ('model',))}: {error}") from None


def model_step(study: Study, study_path: Path, size: ModelShape) -> Step | None:
    """The step that takes the weights of a pretrained model; None for one from scratch."""
    if not study.model.pretrained:
        return None
    from codestage.train.pretrained import MODEL_FILES

    files = {f.name: file_digest(f) for f in files_of(study.model, study_path.parent, MODEL_FILES)}
    return Step(
        "model",
        "pretrained model",
        {"shape": plain(size), "hub": study.model.hub, "files": files},
        payload=(study.model, str(study_path), size),
    )


def make_model(step: Step, out: Path) -> None:
    """Fetch the weights and write them as a checkpoint."""
    from codestage.train.pretrained import fetch_pretrained

    spec, path, size = step.payload
    out.rmdir()  # a checkpoint is written whole or not at all, so its folder must not be there
    fetch_pretrained(spec, Path(path).parent, size, out)

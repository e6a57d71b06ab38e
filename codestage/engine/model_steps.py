"""The study's model: its shape, and the step that takes the weights of one that is trained already."""

from dataclasses import replace
from functools import cache
from pathlib import Path

from codestage.data.disk import file_digest
from codestage.data.own_code import Code, admit, came_from_outside, own_code
from codestage.data.place import files_of, place_of
from codestage.data.tokenizer import Marks, existing_tokenizer, marks_of
from codestage.engine.store import Step
from codestage.errors import UserError
from codestage.study.load import line_of, load_study
from codestage.study.models import ModelShape, shape, shape_told
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


def admit_code(study_path: Path) -> Code | None:
    """Run the own code of a study's model, as `--trust-remote-code` says; None where it needs none.

    Raises:
        UserError: the study is wrong, or its model's code cannot be used, or may change unseen.
    """
    study = load_study(study_path)
    if not study.model.pretrained:
        return None
    place = f"{study_path}:{line_of(study_path, ('model',))}"
    try:
        code = own_code(*place_of(study.model, study_path.parent))
        if code is None:
            return None
        if study.model.hub and code.revision is None:
            raise UserError(
                f"{code.place}: code on a hub may change unseen; give the commit that you have read: "
                f"hub: {{id: {code.place}, revision: …}}"
            )
        admit(code)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return code


def model_step(study: Study, study_path: Path, size: ModelShape) -> Step | None:
    """The step that takes the weights of a pretrained model; None for one from scratch.

    Its hash covers what decides: the files' bytes, those of code of the model's own too, or the hub's revision.
    """
    if not study.model.pretrained:
        return None
    from codestage.train.pretrained import MODEL_FILES

    patterns = (*MODEL_FILES, "*.py") if came_from_outside(size.family) else MODEL_FILES
    files = {f.name: file_digest(f) for f in files_of(study.model, study_path.parent, patterns)}
    return Step(
        "model",
        "pretrained model",
        {"shape": shape_told(replace(size, compile=True)), "hub": study.model.hub, "files": files},
        payload=(study.model, str(study_path), size),
    )


def make_model(step: Step, out: Path) -> None:
    """Fetch the weights and write them as a checkpoint."""
    from codestage.train.pretrained import fetch_pretrained

    spec, path, size = step.payload
    out.rmdir()  # a checkpoint is written whole or not at all, so its folder must not be there
    fetch_pretrained(spec, Path(path).parent, size, out)

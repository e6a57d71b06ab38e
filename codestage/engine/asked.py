"""What is asked: tasks known by name, and questions of a study's own, or of a file beside a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from codestage.errors import UserError
from codestage.evaluate.items import Cot
from codestage.evaluate.own import own_task
from codestage.evaluate.tasks import Task, all_tasks, load_tasks, suites, tasks_of
from codestage.study.load import Key, line_of, load_questions
from codestage.study.schema import OwnTaskSpec, Study


def evaluation_tasks(study: Study, study_path: Path) -> list[Task]:
    """All tasks of a study, in their order; UserError with the line for one that is unknown or no task."""
    try:
        named = load_tasks(study.evaluate.suites)
    except UserError as error:
        line = line_of(study_path, ("evaluate", "suites"))
        raise UserError(f"{study_path}:{line}: {error}") from None
    return tasks_of([(t.name, t.version) for t in named], own_tasks(study, study_path))


def modes_after(study: Study, *, last: bool) -> list[Cot]:
    """The modes that are asked after a stage. Reasoning is generated only after the last one: before tuning no
    model knows the form.
    """
    return [mode for mode in study.evaluate.cot if last or mode != "generated"]


def own_tasks(study: Study, study_path: Path) -> Sequence[Task]:
    """The questions of the study's own.

    Raises:
        UserError: with the line; a file cannot be read or is no questions, or the name is taken.
    """
    asked = study.evaluate
    return _own_tasks(asked.tasks, study_path, ("evaluate", "tasks"), asked.suites)


def questions(path: Path, named: Sequence[str]) -> list[Task]:
    """The questions that the YAML file `path` names, beside the tasks and suites `named`.

    Raises:
        UserError: with the line; the file is none of questions, or as `own_tasks`.
    """
    return list(_own_tasks(load_questions(path), path, (), named))


def _own_tasks(
    specs: Mapping[str, OwnTaskSpec], path: Path, under: Key, named: Sequence[str]
) -> Sequence[Task]:
    """The tasks that `path` describes under the key `under`; their own files lie beside it."""
    taken = {task.name for task in all_tasks()} | suites().keys() | set(named)
    found = []
    for name, spec in specs.items():
        if name in taken:
            raise UserError(
                f"{path}:{line_of(path, (*under, name))}: {name!r} is a task or suite that exists; take another name"
            )
        try:
            found.append(own_task(name, spec, path.parent))
        except UserError as error:
            raise UserError(f"{path}:{line_of(path, (*under, name))}: {error}") from None
    return tuple(found)

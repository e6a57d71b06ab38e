"""What a study asks its models: tasks known by name, and questions of its own."""

from collections.abc import Sequence
from pathlib import Path

from codestage.errors import UserError
from codestage.evaluate.own import own_task
from codestage.evaluate.tasks import Task, all_tasks, load_tasks, suites, tasks_of
from codestage.study.load import line_of
from codestage.study.schema import Study


def evaluation_tasks(study: Study, study_path: Path) -> list[Task]:
    """All tasks of a study, in their order; UserError with the line for one that is unknown or no task."""
    try:
        named = load_tasks(study.evaluate.suites)
    except UserError as error:
        line = line_of(study_path, ("evaluate", "suites"))
        raise UserError(f"{study_path}:{line}: {error}") from None
    return tasks_of([(t.name, t.version) for t in named], own_tasks(study, study_path))


def own_tasks(study: Study, study_path: Path) -> Sequence[Task]:
    """The questions of the study's own.

    Raises:
        UserError: with the line; a file cannot be read or is no questions, or the name is taken.
    """
    taken = {task.name for task in all_tasks()} | suites().keys() | set(study.evaluate.suites)
    found = []
    for name, spec in study.evaluate.tasks.items():
        line = line_of(study_path, ("evaluate", "tasks", name))
        if name in taken:
            raise UserError(
                f"{study_path}:{line}: {name!r} is a task or suite that exists; take another name"
            )
        try:
            found.append(own_task(name, spec, study_path.parent))
        except UserError as error:
            raise UserError(f"{study_path}:{line}: {error}") from None
    return tuple(found)

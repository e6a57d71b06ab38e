"""Reading a study file: every complaint names file, line, value and the mend."""

import difflib
import re
import runpy
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from codestage.errors import UserError
from codestage.study.schema import KINDS, EvaluateSpec, OwnTaskSpec, Study
from codestage.study.values import shown

_CParser: Any = None
with suppress(ImportError):  # PyYAML may lack libyaml
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    _CParser = CParser

Key = tuple[str | int, ...]
MOST_LINES = 200_000
"""Keys and entries of a study file: aliases of aliases can be more than any machine holds."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which only true and false are booleans: `cot: [off]` stays a word."""


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile("^(true|false)$"), ["t", "f"])


def _parsed(text: str) -> tuple[_Loader, yaml.Node | None]:
    """A loader and what it parsed. libyaml splits the text, five times as fast, where it is at hand; Python puts it
    together, which bears any depth. What libyaml refuses is read again, for words that people know.
    """
    if _CParser:
        fast, found = _CParser(text), _Loader("")
        found.check_event = fast.check_event  # type: ignore[method-assign]
        found.peek_event = fast.peek_event  # type: ignore[method-assign]
        found.get_event = fast.get_event  # type: ignore[method-assign]
        with suppress(yaml.YAMLError):
            return found, found.get_single_node()
    slow = _Loader(text)
    return slow, slow.get_single_node()


def load_study(path: Path) -> Study:
    """The study in the YAML file `path`.

    Raises:
        UserError: one line a mistake, each with file:line, the value and what to write instead.
    """
    data, lines = _read(path)
    stages = data.get("stages")
    if isinstance(stages, dict):
        for name, stage in stages.items():
            if isinstance(stage, dict) and name in KINDS:
                stages[name] = {"kind": name, **stage}  # a copy: of an alias it is the same mapping
        _call_functions(stages, path, lines)
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        found = [_explain(e, path, lines) for e in error.errors()]
        raise UserError("\n".join(dict.fromkeys(found))) from None
    if problems := [f"{path}:{_line(lines, key)}: {text}" for key, text in _cross_check(study)]:
        raise UserError("\n".join(problems))
    return study


def load_questions(path: Path) -> dict[str, OwnTaskSpec]:
    """What a YAML file says of questions of one's own: name -> the same as under a study's `evaluate: tasks`.

    Raises:
        UserError: as `load_study`.
    """
    under: Key = ("evaluate", "tasks")
    write = "write NAME: {domain: …, path: …}"
    data, lines = _read(path, "a file of questions", write)
    if not data:
        raise UserError(f"{path}:1: holds no questions; {write}")
    if "evaluate" in data:
        line = _line(lines, ("evaluate",))
        raise UserError(
            f"{path}:{line}: this is a study; write what stands under its evaluate: tasks into a file of its own"
        )
    try:
        return EvaluateSpec.model_validate({"tasks": data}).tasks
    except ValidationError as error:
        there = {(*under, *key): line for key, line in lines.items()}
        found = [_explain({**e, "loc": (*under[:1], *e["loc"])}, path, there) for e in error.errors()]
        raise UserError("\n".join(dict.fromkeys(found)).replace("evaluate.tasks.", "")) from None


def line_of(path: Path, key: Key) -> int:
    """The line on which `key` (or its nearest parent) stands, for complaints of later parts."""
    return _line(_read(path)[1], key)


def _read(
    path: Path, of: str = "a study", see: str = "see `codestage init`"
) -> tuple[dict[str, Any], dict[Key, int]]:
    """A YAML file and the line of each key; what is no mapping is refused as not being `of` that kind."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the name") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    lines: dict[Key, int] = {}
    try:
        loader, node = _parsed(text)
        if node is not None:
            _index(node, (), lines, path)
        data = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        before = text[: getattr(error, "position", 0)]  # of a character that YAML does not have
        line = mark.line + 1 if mark else before.count("\n") + 1
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}:{line}: not valid YAML: {what}; mend that line") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}:1: not {of}: {error}; {see}") from None
    if not isinstance(data, dict):
        got = "empty" if data is None else f"a {type(data).__name__}"
        raise UserError(f"{path}:1: {of} is a mapping, this is {got}; {see}")
    return data, lines


def _index(node: yaml.Node, key: Key, lines: dict[Key, int], path: Path) -> None:
    """Record the line of every key; refuse keys written twice and anchors that hold themselves.

    Numbers among the keys are told as text, as they stand in the file.
    """
    if len(lines) > MOST_LINES:
        raise UserError(
            f"{path}:1: more than {MOST_LINES:,} keys and entries, aliases counted; write fewer"
        )
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            word = str(name.value)
            if word in seen:
                raise UserError(
                    f"{path}:{line}: {word!r} stands already on line {seen[word]}; keep one of them"
                )
            seen[word] = line
            lines[(*key, word)] = line
            _index(value, (*key, word), lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[(*key, str(i))] = value.start_mark.line + 1
            _index(value, (*key, str(i)), lines, path)


def _line(lines: dict[Key, int], key: Key) -> int:
    """Line of the longest known beginning of `key`."""
    key = tuple(map(str, key))
    for end in range(len(key), -1, -1):
        if key[:end] in lines:
            return lines[key[:end]]
    return 1


def _explain(error: Any, path: Path, lines: dict[Key, int]) -> str:
    """One Pydantic error as a sentence for a person."""
    key = tuple(part for part in error["loc"] if part != "[key]")
    place = f"{path}:{_line(lines, key)}"
    name = ".".join(str(part) for part in key) or "study"
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key {name!r}; {_suggest(str(key[-1]), _known(key[:-1]))}"
    if error["type"] == "missing":
        hint = f" (one of {', '.join(KINDS)})" if key[-1] == "kind" else ""
        return f"{place}: {name!r} is missing; add it{hint}"
    text = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    given = "" if isinstance(value, dict | list) else f" = {shown(value)}"
    if error["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        text = _suggest(str(value), allowed)
    return f"{place}: {name}{given}: {text}"


def _known(parent: Key) -> list[str]:
    """Keys that may stand under `parent`, read from the models themselves."""
    from codestage.study.values import Model

    model: Any = Study
    for part in parent:
        fields = getattr(model, "model_fields", {})
        annotation = fields[part].annotation if part in fields else model
        model = next((m for m in _models(annotation) if issubclass(m, Model)), model)
    return list(getattr(model, "model_fields", {}))


def _models(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    inner = [m for arg in getattr(annotation, "__args__", ()) for m in _models(arg)]
    return [m for m in inner if hasattr(m, "model_fields")]


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}? (known: {', '.join(known)})"
    return f"write one of {', '.join(known)}"


def _call_functions(stages: dict[Any, Any], path: Path, lines: dict[Key, int]) -> None:
    """Put the weights that curves of the user's own give into their options."""
    for stage_name, stage in stages.items():
        options = stage.get("options") if isinstance(stage, dict) else None
        for name, option in (options if isinstance(options, dict) else {}).items():
            curve = option.get("curve") if isinstance(option, dict) else None
            if isinstance(curve, str) and ".py:" in curve:
                steps = option.get("steps", 20)
                place = f"{path}:{_line(lines, ('stages', stage_name, 'options', name))}"
                if isinstance(steps, int) and 2 <= steps <= 10_000:
                    option["weights"] = _weights(path.parent, curve, steps, place)


def _weights(folder: Path, curve: str, steps: int, place: str) -> list[str]:
    """Weights in [0, 1] at the middles of `steps` phases, from FILE.py:FUNCTION."""
    file, _, function = curve.rpartition(":")
    if not (folder / file).resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{place}: curve {curve!r}: {file} stands outside the study's folder; put it beside the study, so that "
            "a study file by itself can run nothing"
        )
    try:
        defined = runpy.run_path(str(folder / file))
        if function not in defined:
            raise UserError(f"{place}: curve {curve!r}: {file} defines no {function!r}")
        found = [float(defined[function]((2 * i + 1) / (2 * steps))) for i in range(steps)]
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{place}: curve {curve!r}: {type(error).__name__}: {error}") from None
    for i, value in enumerate(found):
        if not 0 <= value <= 1:
            at = (2 * i + 1) / (2 * steps)
            raise UserError(f"{place}: curve {curve!r} is {value:g} at {at:g}; keep it from 0 to 1")
    return [f"{value:.9f}" for value in found]


def _cross_check(study: Study) -> list[tuple[Key, str]]:
    """What one field alone cannot know: sources named, kinds that fit, equal totals of siblings."""
    problems: list[tuple[Key, str]] = []
    if study.model.pretrained and study.tokenizer.train:
        problems.append(
            (("tokenizer",), "a pretrained model has its own tokenizer: give its path or hub")
        )
    for stage_name, stage in study.stages.items():
        wanted = "instruct" if stage.kind == "tune" else "document"
        for option_name, option in stage.options.items():
            key: Key = ("stages", stage_name, "options", option_name)
            for source in dict.fromkeys(s for mix in option.mixes for s in mix):
                if source not in study.sources:
                    hint = _suggest(source, list(study.sources))
                    problems.append((key, f"unknown source {source!r}; {hint}"))
                elif study.sources[source].format != wanted:
                    problems.append(
                        (key, f"source {source!r} is not of format {wanted}, which the stage needs")
                    )
    return problems + ([] if problems else _unequal_totals(study))


def _unequal_totals(study: Study) -> list[tuple[Key, str]]:
    """A schedule (more than one phase) stands beside others over the same sources: one must have its totals."""
    from codestage.study.schedule import shares

    problems: list[tuple[Key, str]] = []
    for stage_name, stage in study.stages.items():
        totals = {name: shares(option.pieces(stage.lr)) for name, option in stage.options.items()}
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, total in totals.items():
            alike.setdefault(tuple(total), []).append(name)
        for name, option in stage.options.items():
            others = [o for o in alike[tuple(totals[name])] if o != name]
            if option.mix is not None or not others:
                continue
            if any(totals[other] == totals[name] for other in others):
                continue
            mine = ", ".join(f"{s} {x}" for s, x in totals[name].items())
            its = ", ".join(f"{s} {x}" for s, x in totals[others[0]].items())
            key: Key = ("stages", stage_name, "options", name)
            text = (
                f"schedule {name!r} holds {mine} of the stage in all but its sibling "
                f"{others[0]!r} {its}; order can only be compared at equal totals: "
                "change the phases until they agree, or add an option with these totals"
            )
            problems.append((key, text))
    return problems

"""A study whose data are really prepared and whose training and evaluation are only said to be finished."""

import shutil

from conftest import TINY

from codestage.engine.mix import inspect
from codestage.engine.store import Store
from codestage.engine.wanted import wanted

OWN = "path: prose*.jsonl"
UNIFORM = "      uniform: {mix: {chat: 5, code_chat: 3}}\n"
MIXED = "      mixed:   {mix: {chat: 3, code_chat: 1}}\n"
FORMS = {
    "procedural: {form: prose, documents: 300, depth: [1, 1]}": OWN,
    "form: code_chat, documents: 200": "form: code_chat, documents: 600",
    "form: chat, documents: 400, depth: [1, 1]": "form: chat, documents: 800",
    "seeds: 2": "seeds: 1",
    UNIFORM: UNIFORM + MIXED,
}


def own_text(text=TINY):
    """The small study with text of its own."""
    for old, new in FORMS.items():
        assert old in text
        text = text.replace(old, new)
    return text


def write_prose(folder, name="prose.jsonl", first=0):
    lines = (
        f'{{"text": "The cat of house {i} sleeps all day, dreams of fish and wakes at {i % 12}."}}'
        for i in range(first, first + 900)
    )
    (folder / name).write_text("\n".join(lines))


def finish(study):
    """Do the data steps of `study`, and put folders with nothing of weight where its other steps would be."""
    out = study.with_suffix("")
    inspect(study, out=out)
    store = Store(out)
    for step in wanted(study, store).steps.values():
        if not store.has(step):
            made = store.work(step) / "made"
            made.mkdir(exist_ok=True)
            (made / "model.safetensors").write_bytes(step.label.encode() * 20)
            store.commit(step, made, 1.5)
    return store


def finished_study(folder):
    """The path of a finished study in `folder`, and its store."""
    write_prose(folder)
    (folder / "own.yaml").write_text(own_text())
    return folder / "own.yaml", finish(folder / "own.yaml")


def copy(folder, to):
    shutil.copytree(folder, to / "copy")
    return to / "copy" / "own.yaml", Store(to / "copy" / "own")

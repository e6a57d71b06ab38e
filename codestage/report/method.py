"""What was done, stated exactly, and what it does not allow to say."""

from collections.abc import Mapping
from typing import Any

from codestage.report.document import Section, Table
from codestage.report.records import Records
from codestage.report.text import capital, count, listed, plural


def method(records: Records) -> Section:
    """Design, training, evaluation and statistics as paragraphs fit for a paper, then the caveats."""
    paragraphs = [_design(records), _training(records), _evaluation(records), _statistics(records)]
    return Section(
        "method",
        "Method and caveats",
        [p for p in paragraphs if p],
        points=[*_caveats(records), *records.notes],
        tables=[_versions(records)],
    )


def _design(records: Records) -> str:
    study = records.study
    options = [
        f"{stage} ({listed([str(o) for o in _few(study['options'].get(stage, []))], 'or')})"
        for stage in records.stages
    ]
    grid, controls = records.arms("grid"), records.arms("control")
    arms = f"{plural(len(grid), 'arm')} of the grid"
    if controls:
        kinds = dict.fromkeys(str(a["control"]) for a in controls)
        arms += f" and {plural(len(controls), 'control')} ({listed(list(kinds))})"
    if ladder := records.arms("ladder"):
        arms += f" and {plural(len(ladder), 'arm')} of shorter budgets"
    seeds = len(study["seeds"])
    each = (
        f"with up to {plural(seeds, 'seed')} (seeds were added until the questions were settled)"
        if study.get("until")
        else f"with {plural(seeds, 'seed')} each"
    )
    return (
        f"The study {study['name']} trained {arms} {each}, through "
        f"{plural(len(records.stages), 'stage')}: {listed(options)}. The first option named is the base. "
        "Arms that differ in one stage share everything else: tokenizer, initialisation, the order "
        "of documents within each source, and the items they are judged by; a seed sets initialisation, order and "
        "sampling anew."
    )


def _few(options: list[Any], most: int = 12) -> list[Any]:
    return [*options[:most], f"{len(options) - most:,} more"] if len(options) > most else options


def _training(records: Records) -> str:
    """Model, and of each stage tokens, rows, batches, optimizer and learning rate; what is not known is not told."""
    model: Mapping[str, Any] = records.study.get("model") or {}
    stages: Mapping[str, Mapping[str, Any]] = records.study.get("training") or {}
    said = []
    if model.get("parameters"):
        kind = (
            f"pretrained {model['pretrained']}"
            if model.get("pretrained")
            else f"a {model['family']} model"
        )
        known = {
            "layers": "layers",
            "hidden_size": "hidden units",
            "heads": "heads",
            "vocab_size": "tokens in the vocabulary",
        }
        shape = [
            f"{model[key]:,} {word}" for key, word in known.items() if isinstance(model.get(key), int)
        ]
        begun = "Training began with" if model.get("pretrained") else "Every run trained"
        said.append(
            f"{begun} {kind} of {count(model['parameters'])} parameters ({listed(shape)}), computed in {model.get('precision')}."
        )
    for name, s in stages.items():
        optimizer, lr = s.get("optimizer") or {}, s.get("lr") or {}
        rate = f"peak learning rate {optimizer.get('lr'):g}" if optimizer.get("lr") is not None else ""
        warm = (
            f"after a warm-up of {count(lr['warmup_tokens'])} tokens" if lr.get("warmup_tokens") else ""
        )
        course = f"{lr.get('schedule')} schedule" if lr.get("schedule") else ""
        how = ", ".join(part for part in (str(optimizer.get("name", "")), rate, course, warm) if part)
        said.append(
            f"Stage {name}: {count(s.get('tokens'))} tokens in rows of {s.get('seq_len')} and batches of "
            f"{count(s.get('batch_tokens'))} tokens; {how}."
        )
    return " ".join(said)


def _evaluation(records: Records) -> str:
    chosen = any(t.get("output_type") == "multiple_choice" for t in records.tasks)
    written = any(t.get("output_type") == "generate_until" for t in records.tasks)
    how = []
    if chosen:
        how.append("In tasks with choices the answer is the choice of the highest log-likelihood.")
    if written:
        how.append("Written answers are greedy, and read by the rules of their kind.")
    return (
        f"All were judged after {records.stages[-1]}, on {_tasks(records)}. {' '.join(how)} "
        "Beside accuracy stand the probability of the right choice and the bits a byte of the right answer costs."
    )


def _statistics(records: Records) -> str:
    seeds = len(records.study["seeds"])
    own = (
        "variance components of seeds and items (Student's t of both, weighted by their variances; seeds' variances of "
        "like contrasts drawn towards their common size)"
        if seeds > 1
        else "how items vary, since there is one seed"
    )
    return (
        "An effect is a weighted difference of arms, computed on the same items and seeds on both "
        f"sides; a domain counts its tasks alike, and so do all tasks together. Its {records.confidence} interval comes from {own}. "
        "A hierarchical bootstrap (2,048 draws) and a linear mixed model stand beside it. Tests are corrected by Holm's method "
        "within each family of questions, level and metric; q is Benjamini and Hochberg's. "
        f"“Practically none” is the result of two one-sided tests of equivalence{_margin(records)}, and “no harm” that of "
        "one such test, both corrected too, not of a test that failed; "
        "“not resolved” means that neither a difference nor its absence could be shown."
    )


def _margin(records: Records) -> str:
    """` (within 2 points or 0.05 bits per byte)`, or nothing where it is not known."""
    points = [f"{v:g} points" for k, v in records.margins.items() if k != "bpb"]
    bits = [f"{v:g} bits per byte" for k, v in records.margins.items() if k == "bpb"]
    told = list(dict.fromkeys([*points, *bits]))
    return f" (within {listed(told, 'or')})" if told else ""


def _tasks(records: Records) -> str:
    items = [t.get("items") for t in records.tasks]
    known = [i for i in items if isinstance(i, int)]
    named = f"{plural(len(records.tasks), 'task')} in {plural(len(records.domains), 'domain')}"
    return f"{named} with {plural(sum(known), 'item')}" if len(known) == len(items) and known else named


def _caveats(records: Records) -> list[str]:
    """Limits that follow from the facts of the study."""
    points = []
    tokens = [
        sum(d for d in stage["tokens_realised"].values())
        for run in records.runs
        for stage in run["stages"]
    ]
    model = records.study.get("model") or {}
    size_word = model.get("parameters") if isinstance(model, dict) else None
    if tokens and max(tokens) < 1e9:
        who = (
            f"A model of {count(size_word)} parameters"
            if isinstance(size_word, int | float)
            else "A model"
        )
        points.append(
            f"{who} trained on at most {count(max(tokens))} tokens a stage is small. What holds here need not hold for larger models or real corpora."
        )
    if len(records.study["seeds"]) < 5:
        points.append(
            f"{capital(plural(len(records.study['seeds']), 'seed'))} tell little about how much trainings differ; the intervals allow for it, which makes them wide."
            if len(records.study["seeds"]) > 1
            else "One seed tells nothing about how much trainings differ."
        )
    suites = sorted({str(t["suite"]) for t in records.tasks if t.get("suite")})
    if suites:
        points.append(f"Reasoning means here what the tasks of {listed(suites)} ask for, nothing wider.")
    return points


def _versions(records: Records) -> Table:
    versions: Mapping[str, Any] = records.study.get("versions") or {}
    rows = [[str(k), str(v)] for k, v in versions.items()]
    return Table("versions", "Versions", ["package", "version"], rows, rows, 2)

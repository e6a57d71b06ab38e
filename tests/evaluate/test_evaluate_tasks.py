"""Task files, their names and their items."""

from collections import Counter

import pytest
import yaml
from codestage.evaluate.items import items, prompt_hash

from codestage.errors import UserError
from codestage.evaluate.tasks import COT, DOMAINS, FOLDER, all_tasks, load_tasks, read_task, render

GOOD = yaml.safe_load(next(iter(sorted(FOLDER.glob("*.yaml")))).read_text())


def written(tmp_path, content):
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_quickstart_suite_covers_what_it_must():
    tasks = load_tasks(["quickstart"])
    assert len(tasks) >= 10
    assert {task.domain for task in tasks} == set(DOMAINS)
    kinds = Counter(task.output_type for task in tasks)
    assert kinds["multiple_choice"] >= 4
    assert kinds["generate_until"] >= 3
    assert {mode for task in tasks for mode in task.cot} == set(COT)
    assert all("bpb" in task.metrics for task in tasks)  # a continuous score everywhere
    assert len({task.name for task in tasks}) == len(tasks)


def test_a_task_is_found_by_name_and_by_suite_once():
    name = all_tasks()[0].name
    assert [task.name for task in load_tasks([name, name])] == [name]
    assert len(load_tasks([name, "quickstart"])) == len(load_tasks(["quickstart"]))


def test_a_name_that_is_nothing_gets_the_nearest_and_the_advice_works():
    with pytest.raises(UserError, match=r"'quikstart'; did you mean (\w+)") as error:
        load_tasks(["quikstart"])
    assert load_tasks([str(error.value).split("did you mean ")[1].split("?")[0].split(" or ")[0]])


def test_file_names_are_task_names():
    for path in FOLDER.glob("*.yaml"):
        assert read_task(path).name == path.stem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"doc_to_txt": "x"}, "doc_to_txt.*did you mean doc_to_text"),
        ({"output_type": "perplexity"}, "multiple_choice, generate_until"),
        ({"metric_list": [{"metric": "bleu"}]}, "bleu"),
        ({"metric_list": [{"metric": "bpb"}]}, "first metric"),
        ({"doc_to_text": "{{ story "}, "cannot be read"),
        ({"metadata": {**GOOD["metadata"], "chance": 1.5}}, "chance 1.5"),
        ({"metadata": {**GOOD["metadata"], "items": 0}}, "items 0"),
        ({"metadata": {**GOOD["metadata"], "cot": [False]}}, "off in quotes"),
        (
            {"metadata": {k: v for k, v in GOOD["metadata"].items() if k != "domain"}},
            "lacks 'domain'",
        ),
        ({"metadata": 3}, "must be keys"),
    ],
)
def test_a_wrong_task_file_is_refused_with_its_name(tmp_path, change, message):
    read_task(written(tmp_path, GOOD))
    with pytest.raises(UserError, match=message) as error:
        read_task(written(tmp_path, {**GOOD, **change}))
    assert "task.yaml" in str(error.value)


def test_a_template_cannot_reach_the_program():
    with pytest.raises(Exception, match="unsafe"):
        render("{{ x.__class__.__mro__ }}", {"x": "text"})


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_items_depend_on_the_seed_alone_and_are_well_formed(task):
    found = items(task, 0, 40)
    items.cache_clear()
    assert items(task, 0, 40) == found
    assert items(task, 1, 40) != found
    assert items(task, 0, 20) == found[:20]  # fewer items are the first of more
    assert len({item.id for item in found}) == 40
    assert len({item.instruction for item in found}) > 35
    for item in found:
        if item.choices:
            assert item.choices[item.gold] == item.answer
        else:
            assert item.gold is None
        prompts = {mode: item.prompt(mode) for mode in task.cot}
        assert len(set(map(prompt_hash, prompts.values()))) == len(prompts)
        for prompt in prompts.values():
            assert item.instruction in prompt
        if "supplied" in prompts:
            assert prompts["supplied"].startswith(item.prompt("generated"))
            assert len(item.rationale) > 5


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_chance_is_one_choice_picked_blindly_or_the_commonest_answer(task):
    found = items(task, 0, 200)
    if task.output_type == "multiple_choice":
        chance = sum(1 / len(item.choices) for item in found) / len(found)
        assert task.chance == pytest.approx(chance, abs=0.002)
    else:
        commonest = Counter(item.answer for item in found).most_common(1)[0][1] / len(found)
        assert task.chance == pytest.approx(commonest, abs=0.05)

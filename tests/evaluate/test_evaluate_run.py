"""From a checkpoint folder to records, against a plain reading of the same model item by item."""

import pytest
import torch
from codestage.evaluate.answers import Answer, Ask, rows
from codestage.evaluate.items import items
from transformers import LlamaConfig, LlamaForCausalLM

from codestage.data import instruct
from codestage.data.tokenizer import train
from codestage.data.worlds import episodes
from codestage.errors import RunError, UserError
from codestage.evaluate import records, scoring
from codestage.evaluate.run import evaluate_checkpoint
from codestage.evaluate.tasks import load_tasks

N = 6


@pytest.fixture(scope="module")
def tokenizer():
    stream = episodes("coin_flip", split="train", seed=0, depth=(1, 2))
    texts = [instruct.prompt(next(stream).instruction) for _ in range(50)]
    return train({"prose": texts}, vocab_size=400, characters=20_000)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(checkpoint, tokenizer):
    tasks = load_tasks(["coin_flip", "last_letters", "family"])
    modes = ["off", "supplied", "generated"]
    return evaluate_checkpoint(checkpoint, tokenizer, tasks, cot=modes, seed=3, n_items=N)


def select(table, **wanted):
    return [row for row in table.to_pylist() if all(row[k] == v for k, v in wanted.items())]


def test_the_records_are_complete(table):
    assert table.schema.equals(records.SCHEMA)
    for task in load_tasks(["coin_flip", "last_letters", "family"]):
        for cot in ("off", "supplied", "generated"):
            for metric in task.metrics:
                found = select(table, task=task.name, cot=cot, metric=metric)
                asked = cot in task.cot and not (
                    metric == "format" and cot != "generated" and task.output_type != "generate_until"
                )
                assert len(found) == (N if asked else 0), (task.name, cot, metric)
    assert {row["status"] for row in table.to_pylist()} <= set(records.STATUSES)
    for name in records.ENGINE_COLUMNS:
        assert table[name].null_count == len(table)
    assert all(row["seconds"] > 0 and row["prompt_tokens"] > 5 for row in table.to_pylist())


@pytest.mark.parametrize("cot", ["off", "supplied"])
def test_choices_are_rated_as_a_plain_forward_pass_rates_them(table, model, tokenizer, cot):
    (task,) = load_tasks(["coin_flip"])
    for item in items(task, 3, N):
        nats = []
        for choice in item.choices:
            context = [0, *tokenizer.encode(item.prompt(cot))]
            answer = tokenizer.encode(instruct.response(choice))
            with torch.no_grad():
                logprobs = model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
            nats.append(sum(logprobs[len(context) - 1 + k, t].item() for k, t in enumerate(answer)))
        found = {row["metric"]: row for row in select(table, item=item.id, cot=cot)}
        assert found["acc"]["choice_scores"] == pytest.approx(nats, abs=1e-4)
        assert found["acc"]["value"] == scoring.acc(nats, item.gold)
        assert found["acc"]["output"] == item.choices[nats.index(max(nats))]
        assert found["prob"]["value"] == pytest.approx(scoring.prob(nats, item.gold), abs=1e-4)
        assert found["bpb"]["value"] == pytest.approx(
            scoring.bpb(nats[item.gold], item.answer), abs=1e-4
        )


def test_text_is_written_as_transformers_writes_it(table, model, tokenizer):
    (task,) = load_tasks(["last_letters"])
    for item in items(task, 3, N):
        (row,) = select(table, item=item.id, cot="off", metric="exact_match")
        context = torch.tensor([[0, *tokenizer.encode(item.prompt("off"))]])
        ids = model.generate(
            context, attention_mask=torch.ones_like(context), do_sample=False, max_new_tokens=10
        )[0, context.shape[1] :].tolist()  # fmt: skip
        text = tokenizer.decode([i for i in ids if i != 0])
        assert row["output"] == text.partition("\n")[0]
        assert row["gold"] == item.answer


def test_the_same_items_whatever_else_is_asked_and_the_same_answers_again(table, checkpoint, tokenizer):
    again = evaluate_checkpoint(
        checkpoint, tokenizer, load_tasks(["coin_flip"]), cot=["off"], seed=3, n_items=N
    )
    before = select(table, task="coin_flip", cot="off")
    for row, other in zip(before, again.to_pylist(), strict=True):
        assert row["value"] == pytest.approx(other["value"], abs=1e-5)
        assert [row[k] for k in ("item", "gold", "prompt_hash", "output")] == [
            other[k] for k in ("item", "gold", "prompt_hash", "output")
        ]


def test_progress_is_told_to_the_last_item(checkpoint, tokenizer):
    told = []
    evaluate_checkpoint(
        checkpoint, tokenizer, load_tasks(["coin_flip"]), cot=["off"], seed=0, n_items=3,
        on_item=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told[-1] == (3, 3)
    assert told == sorted(told)


def test_bad_input_is_refused_in_words(checkpoint, tokenizer, tmp_path):
    tasks = load_tasks(["coin_flip"])
    with pytest.raises(UserError, match=r"'always'.*off, supplied, generated"):
        evaluate_checkpoint(checkpoint, tokenizer, tasks, cot=["always"], seed=0)
    with pytest.raises(UserError, match=r"config\.json and model\.safetensors"):
        evaluate_checkpoint(tmp_path, tokenizer, tasks, cot=["off"], seed=0, n_items=2)


def test_a_prompt_beyond_the_models_positions_is_refused_in_words(model, tokenizer):
    from codestage.evaluate.backend import Backend

    backend = Backend(model, tokenizer)
    with pytest.raises(UserError, match=r"513 tokens .* positions for 512"):
        backend.loglikelihoods([([0] * 513, [5])])
    with pytest.raises(UserError, match=r"513 tokens .* positions for 512"):
        backend.generate([[0] * 513], max_new_tokens=2)


@pytest.mark.parametrize(
    ("output", "nats", "expected"),
    [  # (value, status) of exact_match, format, bpb
        (" A k.\nAnswer: k", -1.0, [(1.0, "ok"), (1.0, "ok"), ("some", "ok")]),
        (" A k.\nAnswer: q", -1.0, [(0.0, "ok"), (1.0, "ok"), ("some", "ok")]),
        (" A k.", None, [(0.0, "unparsed"), (0.0, "unparsed"), (None, "unparsed")]),
        ("", None, [(0.0, "empty"), (0.0, "empty"), (None, "empty")]),
        (" A k.\nAnswer: k", None, [(1.0, "ok"), (1.0, "ok"), (None, "missing")]),
    ],
)
def test_wrong_unparsed_empty_and_missing_are_four_things(output, nats, expected):
    (task,) = load_tasks(["last_letters"])
    item = items(task, 0, 1)[0]
    output = output.replace("k", item.answer)
    ask = Ask(task, item, "generated")
    found = {row["metric"]: row for row in rows(ask, Answer(gold_nats=nats, output=output))}
    for metric, (value, status) in zip(("exact_match", "format", "bpb"), expected, strict=True):
        row = found[metric]
        assert row["status"] == status
        assert (row["value"] is not None) if value == "some" else row["value"] == value


def test_records_survive_the_disk_and_take_the_engines_columns(table, tmp_path):
    filled = records.fill(table, run="text#0", arm="text", seed=0, stage="tune", tokens=5)
    records.write(filled, tmp_path / "items.parquet")
    assert records.read(tmp_path / "items.parquet").equals(filled)
    assert set(filled["run"].to_pylist()) == {"text#0"}
    assert filled.schema.equals(records.SCHEMA)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RunError, match=r"broken\.parquet"):
        records.read(tmp_path / "broken.parquet")
    with pytest.raises(RunError, match="cannot write"):
        records.write(filled, tmp_path / "none" / "items.parquet")
    assert list(tmp_path.glob("*.partial")) == []

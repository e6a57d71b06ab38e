"""Where memory does not do: what is said, and going on with less at once."""

import pytest
import torch
from train_fixture import ROWS, SEQ_LEN, content, stage, train

from codestage.errors import RunError
from codestage.train.loop import Interrupted
from codestage.train.model import ModelPool
from codestage.train.optim import Optimizers


class Narrow(ModelPool):
    """Memory for so many rows at once and no more."""

    def __init__(self, rows, fail=None):
        super().__init__(compiled=False)
        self.rows, self.seen = rows, []
        self.fail = fail or (lambda: torch.empty(1 << 60, dtype=torch.uint8))  # PyTorch's own failure

    def get(self, *arguments):
        model, forward = super().get(*arguments)

        def narrow(tokens, *more):
            self.seen.append(len(tokens))
            if len(tokens) > self.rows:
                self.fail()
            return forward(tokens, *more)

        return model, narrow


AUTO = {"lower_micro_batch": True}


def test_on_request_it_goes_on_with_what_fits_and_that_is_the_smaller_micro_batch(tmp_path):
    told, pool = [], Narrow(1)
    train(tmp_path / "auto", plan=stage(**AUTO), pool=pool, report=told.append)
    train(tmp_path / "small", plan=stage(micro_batch_tokens=SEQ_LEN))
    auto, small = (content(tmp_path / x / "checkpoint") for x in ("auto", "small"))
    for name in ("model.safetensors", "optimizer.safetensors", "curve.parquet"):
        assert auto[name] == small[name]
    assert pool.seen[:4] == [ROWS, ROWS // 2, 1, 1]
    assert 2 not in pool.seen[3:]  # it does not try again with every batch
    assert told == [
        f"stage 'pretrain', batch 0: out of memory; going on with micro_batch_tokens {n * SEQ_LEN}"
        for n in (2, 1)
    ]


def test_after_a_stop_it_remembers_what_fitted(tmp_path):
    left = iter(range(100))
    with pytest.raises(Interrupted):
        train(tmp_path, plan=stage(**AUTO), pool=Narrow(1), should_stop=lambda: next(left) == 2)
    again = Narrow(1)
    train(tmp_path, plan=stage(**AUTO), pool=again)
    assert set(again.seen) == {1}


def cuda_failure():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("fail", [None, cuda_failure])
@pytest.mark.parametrize("auto", [False, True])
def test_without_being_asked_or_with_no_less_to_try_it_says_what_to_lower(tmp_path, auto, fail):
    plan = stage(lower_micro_batch=auto)
    with pytest.raises(
        RunError, match=r"'pretrain', batch 0: out of memory .* set micro_batch_tokens below"
    ):
        train(tmp_path, plan=plan, pool=Narrow(0, fail))


def test_other_failures_are_not_taken_for_a_lack_of_memory(tmp_path):
    def broken():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(tmp_path, plan=stage(**AUTO), pool=Narrow(0, broken))


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "Triton Error [CUDA]: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_a_lack_of_memory_in_the_optimizer_is_told_too(tmp_path, monkeypatch, said):
    """Its state is first made there, and no micro-batch makes it smaller."""

    def full(self, rate):
        raise RuntimeError(said + "\nand a page of advice")

    monkeypatch.setattr(Optimizers, "step", full)
    with pytest.raises(RunError) as told:
        train(tmp_path, plan=stage())
    assert "stage 'pretrain': out of memory outside a micro-batch" in str(told.value)
    assert said in str(told.value)
    assert "advice" not in str(told.value)

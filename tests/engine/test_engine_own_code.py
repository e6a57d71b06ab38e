"""`--trust-remote-code`: a model's own code runs where the command says so, in every process that needs it, and
nowhere else.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers.dynamic_module_utils
from conftest import TINY
from tokenizer_fixture import foreign
from transformers import LlamaConfig, LlamaForCausalLM

import codestage.pangu
from codestage.data.own_code import Code, admit, own_code
from codestage.engine.evaluate_one import Asked, evaluate_model
from codestage.engine.model_steps import admit_code, model_shape, model_step
from codestage.engine.plan import plan
from codestage.errors import UserError
from codestage.study.load import load_study
from codestage.study.schema import ModelSpec
from codestage.train.pretrained import fetch_pretrained

CONFIG_CODE = """\
from transformers import LlamaConfig
open({mark!r}, "w").close()
class OwnConfig(LlamaConfig):
    model_type = {kind!r}
"""
MODEL_CODE = """\
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
BLIND = """\
    def __init__(self, config):
        super().__init__(config)
        inner = self.model.forward
        self.model.forward = lambda *a, attention_mask=None, **how: inner(*a, **how)
"""
HEAD, TAIL = TINY.split("  pretrain:\n")
STUDY = (
    (HEAD + "  tune:\n" + TAIL.split("  tune:\n")[1])
    .replace("controls: [token-matched, additive]\n", "")
    .replace("family: llama, hidden_size: 32, layers: 1, heads: 2", "path: model")
    .replace("{train: bpe, vocab_size: 384}", "{path: model}")
    .replace("seeds: 2", "seeds: 1")
    .replace("seq_len: 64", "seq_len: 256")
    .replace("      uniform: {mix: {chat: 5, code_chat: 3}}\n", "")
    .replace("suites: [quickstart]", "suites: [coin_flip]")
)


@pytest.fixture(autouse=True, scope="module")
def modules(tmp_path_factory):
    """Where Transformers copies code before it runs it: one place for a process."""
    with pytest.MonkeyPatch.context() as patch:
        place = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", place)
        yield


@pytest.fixture
def own(tmp_path, request):
    """A study on a model whose own code leaves a mark when it runs; a kind of model for each test, since
    what is admitted stays known to Transformers in this process.
    """
    kind = request.node.name.replace("_", "-")
    tokenizer = foreign(tmp_path)
    size = LlamaConfig(vocab_size=384, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(size).save_pretrained(tmp_path / "model")
    for file in tokenizer.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    change(tmp_path, model_type=kind, auto_map=AUTO_MAP)
    code = CONFIG_CODE.format(mark=str(tmp_path / "it-ran"), kind=kind)
    (tmp_path / "model" / "configuration_own.py").write_text(code)
    (tmp_path / "model" / "modeling_own.py").write_text(MODEL_CODE)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


AUTO_MAP = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
}


def change(folder, **settings):
    path = folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_without_the_switch_it_does_not_run_and_the_words_name_it(own):
    with pytest.raises(
        UserError, match=r"study.yaml:2: model: brings code of its own.*--trust-remote-code"
    ):
        plan(own / "study.yaml")
    with pytest.raises(UserError, match=r"code of its own.*--trust-remote-code"):
        evaluate_model(own / "model", Asked(["coin_flip"], items=2), out=None)
    assert not (own / "it-ran").exists()


def test_a_study_file_cannot_ask_for_it(own):
    for place in ("path: model, trust_remote_code: true", "path: model, trust_code: true"):
        (own / "study.yaml").write_text(STUDY.replace("path: model, precision", f"{place}, precision"))
        with pytest.raises(UserError, match="unknown key"):
            load_study(own / "study.yaml")


def test_with_the_switch_the_model_is_read_and_its_code_is_in_the_hash(own):
    path = own / "study.yaml"
    assert admit_code(path) is not None
    assert (own / "it-ran").exists()
    assert plan(path)["runs"] == 1
    study = load_study(path)
    shape = model_shape(study, path)
    step = model_step(study, path, shape)
    assert {"configuration_own.py", "modeling_own.py"} <= step.config["files"].keys()
    fetch_pretrained(study.model, own, shape, own / "begun")
    held = json.loads((own / "begun" / "config.json").read_text())
    assert held["model_type"] == shape.family
    code = own / "model" / "modeling_own.py"
    code.write_text(code.read_text() + "# changed\n")
    assert model_step(study, path, shape).hash != step.hash


def test_eval_runs_it_where_asked(own):
    (row,) = evaluate_model(own / "model", Asked(["coin_flip"], items=4, trust_code=True), out=None)
    assert row["items"] == 4
    assert (own / "it-ran").exists()


def test_code_that_may_change_unseen_is_refused(own):
    path = own / "study.yaml"
    path.write_text(STUDY.replace("path: model, precision", f"hub: {{id: '{own}/model'}}, precision"))
    with pytest.raises(UserError, match=r"study.yaml:2: .*may change unseen; give the commit"):
        admit_code(path)
    change(own, auto_map={"AutoConfig": "someone/else--configuration_own.OwnConfig"})
    with pytest.raises(UserError, match="another repository"):
        own_code(str(own / "model"), {})
    assert not (own / "it-ran").exists()


def test_code_that_lets_documents_see_each_other_is_refused(own):
    code = own / "model" / "modeling_own.py"
    code.write_text(MODEL_CODE + BLIND)
    path = own / "study.yaml"
    admit_code(path)
    shape = model_shape(load_study(path), path)
    with pytest.raises(UserError, match="documents in one row would see each other"):
        fetch_pretrained(ModelSpec(path="model"), own, shape, own / "begun")


def test_code_that_fails_is_told_as_such(own):
    (own / "model" / "modeling_own.py").write_text("raise OSError('no such thing')\n")
    with pytest.raises(UserError, match=r"its own code cannot be used: OSError: no such thing"):
        admit(Code(str(own / "model")))


def test_models_that_are_known_here_need_no_code(own):
    """An export of PanGu carries code for others; codestage has it itself."""
    change(own, model_type="pangu_alpha", auto_map=codestage.pangu.AUTO_MAP)
    assert own_code(str(own / "model"), {}) is None
    change(own, model_type="llama", auto_map=AUTO_MAP)
    assert own_code(str(own / "model"), {}) is None


@pytest.mark.slow
def test_a_run_with_the_switch_trains_and_evaluates_in_its_workers(own):
    command = [sys.executable, "-m", "codestage.cli", "run", str(own / "study.yaml"), "--workers", "1"]
    env = os.environ | {"HF_MODULES_CACHE": str(own / "cache")}
    refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert refused.returncode == 2
    assert not (own / "it-ran").exists()
    done = subprocess.run(
        [*command, "--trust-remote-code"],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (begun,) = (own / "study" / "store" / "model").glob("*")
    held = json.loads((begun / "step.json").read_text())["config"]["files"]
    assert "modeling_own.py" in held
    assert (own / "study" / "results" / "report.html").exists()

"""Claim: study files, models, data and unfinished work from strangers are data. Reading them runs nothing of theirs.

Each file here would leave a mark beside it if it were run, or leave its folder.
"""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from conftest import TINY
from jinja2.exceptions import SecurityError
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from codestage.data.shards import Shard
from codestage.data.sources import read_source
from codestage.data.tokenizer import existing_tokenizer
from codestage.engine.store import Store
from codestage.errors import RunError, UserError
from codestage.evaluate.backend import Backend
from codestage.evaluate.documents import _render
from codestage.study.load import load_study
from codestage.study.models import shape
from codestage.study.schema import ModelSpec, SourceSpec, TokenizerSpec
from codestage.train.partials import read_shards, shapes
from codestage.train.pretrained import fetch_pretrained, pretrained_shape


class Marks:
    """Pickled: an order to write a file."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (exec, (f"open({self.mark!r}, 'w').close()",))


@pytest.fixture
def mark(tmp_path):
    """A file that must not be there at the end."""
    path = tmp_path / "it-ran"
    yield path
    assert not path.exists()


def test_the_mark_is_made_by_who_unpickles(tmp_path):
    """Otherwise nothing here would show anything."""
    pickle.loads(pickle.dumps(Marks(tmp_path / "it-ran")))
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch {mark}']",
        "!!python/object/apply:builtins.open ['{mark}', 'w']",
        "!!python/name:os.system",
        "!!python/object/new:pathlib.Path ['{mark}']",
        "!function evil.run",
    ],
)
@pytest.mark.parametrize("place", ["name: tiny", "seeds: 2"])
def test_yaml_makes_no_objects(tmp_path, mark, value, place):
    key = place.partition(":")[0]
    text = TINY.replace(place, f"{key}: {value.format(mark=mark)}")
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(UserError, match=r"study\.yaml:\d+: not valid YAML"):
        load_study(tmp_path / "study.yaml")


def test_a_study_file_names_no_code_outside_its_folder(tmp_path, mark):
    """A curve FILE.py:FUNCTION beside the study is its writer's own program; a file elsewhere is not run."""
    inside = tmp_path / "study"
    inside.mkdir()
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\ndef f(t):\n    return t\n")
    (inside / "link.py").symlink_to(tmp_path / "evil.py")
    for place in ("../evil.py", str(tmp_path / "evil.py"), "link.py"):
        option = f"{{curve: '{place}:f', from: {{prose: 1}}, to: {{programs: 1}}}}"
        (inside / "study.yaml").write_text(TINY.replace("{mix: {prose: 2, programs: 1}}", option))
        with pytest.raises(UserError, match="outside the study's folder"):
            load_study(inside / "study.yaml")
    (inside / "own.py").write_text("def f(t):\n    return t\n")
    (inside / "study.yaml").write_text((inside / "study.yaml").read_text().replace("link.py", "own.py"))
    assert load_study(inside / "study.yaml").stages["pretrain"].options["text+code"].weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def copy(model, to, *, without=()):
    to.mkdir()
    for file in model.iterdir():
        if file.name not in without:
            (to / file.name).write_bytes(file.read_bytes())
    return to


def test_pickled_weights_are_refused(tmp_path, mark, model):
    folder = copy(model, tmp_path / "model", without=["model.safetensors"])
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Marks(mark)))
    with pytest.raises(UserError, match="no model that Transformers can read"):
        Backend.load(folder)
    spec, tiny = ModelSpec(path="model"), shape(load_tiny(tmp_path).model, 64)
    with pytest.raises(UserError, match="no model that Transformers can read"):
        fetch_pretrained(spec, tmp_path, tiny, tmp_path / "out")


def load_tiny(folder):
    (folder / "tiny.yaml").write_text(TINY)
    return load_study(folder / "tiny.yaml")


def test_a_models_own_code_is_not_run(tmp_path, mark, model):
    folder = copy(model, tmp_path / "model")
    names = {
        "AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    }  # fmt: skip
    for file in ("config.json", "tokenizer_config.json"):
        held = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        held |= {"auto_map": names, "model_type": "evil", "tokenizer_class": "Evil"}
        (folder / file).write_text(json.dumps(held))
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(UserError):
        Backend.load(folder)
    with pytest.raises(UserError):
        pretrained_shape(ModelSpec(path="model"), tmp_path, vocabulary=64, marks=(0, 0, 0), seq_len=8)
    with pytest.raises(UserError):
        existing_tokenizer(TokenizerSpec(path="model"), tmp_path)


def test_a_shard_holds_no_objects(tmp_path, mark):
    meta = {
        "rows": 1,
        "seq_len": 2,
        "dtype": "uint16",
        "format": "instruct",
        "marks": {"begin": 0, "end": 0, "pad": 1},
    }
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    np.zeros(3, np.uint16).tofile(tmp_path / "rows.tokens")
    np.zeros(3, np.uint8).tofile(tmp_path / "rows.mask")
    np.save(tmp_path / "counts.npy", np.array([Marks(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Shard(tmp_path)


def shards_of(folder):
    tensors = {"a": torch.ones(3), "b": torch.ones(2, dtype=torch.bfloat16)}
    dcp.save(tensors, checkpoint_id=folder, no_dist=True)
    return tensors


def test_unfinished_work_in_shards_is_tensors_and_nothing_else(tmp_path, mark):
    good = tmp_path / "good"
    shards_of(good)
    assert shapes(good) == {"a": (3,), "b": (2,)}
    index = pickle.loads((good / ".metadata").read_bytes())
    index.planner_data = Marks(mark)
    (good / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(RunError, match=r"its index names builtins\.exec"):
        shapes(good)
    with pytest.raises(RunError, match=r"its index names builtins\.exec"):
        read_shards(good, {"a": torch.zeros(3)}, type("World", (), {"size": 1}))


def test_unfinished_work_that_says_a_tensor_is_an_object_is_refused(tmp_path, mark):
    """torch would unpickle what stands there."""
    dcp.save({"a": Marks(mark)}, checkpoint_id=tmp_path / "bytes", no_dist=True)
    with pytest.raises(RunError, match="remove it"):
        shapes(tmp_path / "bytes")
    with pytest.raises(RunError, match="remove it"):
        read_shards(tmp_path / "bytes", {"a": torch.zeros(3)}, type("World", (), {"size": 1}))


NAMES = [
    "../escaped.py",
    "/tmp/escaped-absolute.py",
    "a/../../escaped.py",
    "inside.py",
    "..\\escaped.py",
]


def archives(folder):
    with zipfile.ZipFile(folder / "code.zip", "w") as made:
        for name in NAMES:
            made.writestr(name, "print('hello from inside')\n")
    with tarfile.open(folder / "code.tar.gz", "w:gz") as made:
        for name in NAMES:
            held = b"print('hello from inside')\n"
            info = tarfile.TarInfo(name)
            info.size = len(held)
            made.addfile(info, io.BytesIO(held))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo("link.py")
            info.type, info.linkname = kind, "/etc/passwd"
            made.addfile(info)
        device = tarfile.TarInfo("fifo.py")
        device.type = tarfile.FIFOTYPE
        made.addfile(device)


@pytest.mark.parametrize("name", ["code.zip", "code.tar.gz"])
def test_members_of_archives_leave_no_folder_since_none_is_unpacked(tmp_path, monkeypatch, name):
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    archives(inside)
    before = set(tmp_path.rglob("*"))
    documents = list(read_source(SourceSpec(domain="code", path=name), inside))
    assert {d.text for d in documents} == {"print('hello from inside')\n"}  # nothing of a link's target
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/tmp/escaped-absolute.py").exists()


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
        "{{ question.__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'].popen('touch MARK').read() }}",
    ],
)
def test_texts_of_tasks_are_filled_in_without_reaching_python(mark, text):
    with pytest.raises(SecurityError, match="unsafe"):
        _render(text.replace("MARK", str(mark)), {"question": "Who?"})


def test_a_steps_record_is_data(tmp_path, mark):
    folder = tmp_path / "store" / "items" / ("0" * 32)
    folder.mkdir(parents=True)
    (folder / "step.json").write_bytes(pickle.dumps(Marks(mark)))
    with pytest.raises(RunError, match="not readable"):
        Store(tmp_path).read("items", "0" * 32)


def test_checkpoints_hold_no_pickle(tmp_path):
    """What a study writes can be handed on: weights and optimizer are safetensors."""
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    text = (Path(__file__).parents[2] / "codestage" / "train" / "checkpoint.py").read_text()
    assert "torch.save" not in text
    assert "pickle" not in text


def test_code_from_a_hub_runs_at_one_place_and_by_one_switch():
    """Nothing says trust_remote_code=True; what lets code run is `own_code.admit`, which the switch leads to
    (tests/engine/test_engine_own_code.py), and no part of the study file can name it.
    """
    package = Path(__file__).parents[2] / "codestage"
    said = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    assert not [name for name, text in said.items() if "trust_remote_code=True" in text]
    assert [n for n, text in said.items() if "get_class_from_dynamic_module" in text] == [
        "data/own_code.py"
    ]
    assert not [n for n, text in said.items() if n.startswith("study/") and "trust" in text]
    for command, offered in {
        "run": True,
        "plan": True,
        "eval": True,
        "init": False,
        "export": False,
    }.items():
        listed = subprocess.run(
            [sys.executable, "-m", "codestage.cli", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"COLUMNS": "200"},
        )
        assert ("--trust-remote-code" in listed.stdout) == offered, command

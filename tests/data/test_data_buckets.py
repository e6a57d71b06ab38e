"""Sources in buckets: a real S3 client and a real GCS client against servers on this machine."""

import gzip
import json
import os
import socket
from contextlib import contextmanager

import fsspec
import pytest

from codestage.data.files import find
from codestage.data.sources import read_source
from codestage.errors import UserError
from codestage.study.schema import SourceSpec

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # a service that only Google has
TEXTS = [[f"Tale {f} of {i}. The cat sleeps." for i in range(5)] for f in range(3)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def fresh_clients():
    """No client of an earlier test, with its address, is taken again."""
    for protocol in ("s3", "gcs"):
        fsspec.get_filesystem_class(protocol).clear_instance_cache()
    yield


@pytest.fixture
def s3(monkeypatch):
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0
    )
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
    with fresh_clients():
        fsspec.filesystem("s3").makedirs("corpora", exist_ok=True)
        yield "s3://corpora"
    server.stop()


@pytest.fixture
def gs(monkeypatch):
    pytest.importorskip("gcsfs")
    module = pytest.importorskip(
        "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
    )
    port = free_port()
    server = module.create_server("127.0.0.1", port, in_memory=True, default_bucket="corpora")
    server.start()
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "test"}
    monkeypatch.setitem(fsspec.config.conf, "gs", options)
    monkeypatch.setitem(fsspec.config.conf, "gcs", options)
    with fresh_clients():
        yield "gs://corpora"
    server.stop()


def fill(bucket):
    fs, root = fsspec.core.url_to_fs(bucket)
    for f, texts in enumerate(TEXTS):
        lines = "\n".join(json.dumps({"text": text}) for text in texts)
        fs.pipe(f"{root}/part-{f}.jsonl.gz", gzip.compress(lines.encode()))
    fs.pipe(f"{root}/notes.bin-unknown", b"x")
    return fs, root


@pytest.mark.parametrize("kind", ["s3", "gs"])
@pytest.mark.parametrize("path", ["part-*.jsonl.gz", ""])
def test_documents_come_from_a_bucket_by_pattern_and_by_folder(kind, path, request, tmp_path):
    bucket = request.getfixturevalue(kind)
    fill(bucket)
    spec = SourceSpec(domain="text", path=f"{bucket}/{path}".rstrip("/"))
    assert [d.text for d in read_source(spec, tmp_path)] == [t for texts in TEXTS for t in texts]


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_file_that_changes_in_its_bucket_is_another_one(kind, request, tmp_path):
    bucket = request.getfixturevalue(kind)
    fs, root = fill(bucket)

    def identities():
        fs.invalidate_cache()
        return [f.identity() for f in find(f"{bucket}/part-*.jsonl.gz", tmp_path)]

    before = identities()
    assert identities() == before
    fs.pipe(f"{root}/part-1.jsonl.gz", gzip.compress(b'{"text": "Another tale."}'))
    after = identities()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_bucket_that_is_not_there_is_one_message(kind, request, tmp_path):
    bucket = request.getfixturevalue(kind).replace("corpora", "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        find(f"{bucket}/part-*.jsonl", tmp_path)


def test_a_server_that_does_not_answer_is_one_message(monkeypatch, tmp_path):
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    options = {
        "endpoint_url": f"http://127.0.0.1:{free_port()}",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    with fresh_clients(), pytest.raises(UserError, match="cannot be reached"):
        find("s3://corpora/part-*.jsonl", tmp_path)

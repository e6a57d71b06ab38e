"""Sources in buckets: a real S3 client and a real GCS client against servers on this machine."""

import gzip
import json

import fsspec
import pytest
from buckets_fixture import free_port, gs_server, s3_server

from codestage.data.files import find
from codestage.data.sources import read_source
from codestage.errors import UserError
from codestage.study.schema import SourceSpec

TEXTS = [[f"Tale {f} of {i}. The cat sleeps." for i in range(5)] for f in range(3)]


@pytest.fixture
def s3():
    with s3_server("corpora") as bucket:
        yield bucket


@pytest.fixture
def gs():
    with gs_server("corpora") as bucket:
        yield bucket


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
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(UserError, match="cannot be reached"):
        find("s3://corpora/part-*.jsonl", tmp_path)

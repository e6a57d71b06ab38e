"""Real clients of S3 and of Google's storage against servers on this machine."""

import os
import socket
from contextlib import contextmanager

import fsspec
import pytest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server(bucket):
    """Serves an empty bucket for as long as the context lasts; gives its address."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        fsspec.filesystem("s3").makedirs(bucket, exist_ok=True)
        yield f"s3://{bucket}"
    server.stop()


@contextmanager
def gs_server(bucket):
    """The same with Google's client."""
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # a service that only Google has
    pytest.importorskip("gcsfs")
    module = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is missing")
    port = free_port()
    server = module.create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket)
    server.start()
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "test"}
    with pytest.MonkeyPatch.context() as patch:
        for protocol in ("gs", "gcs"):
            patch.setitem(fsspec.config.conf, protocol, options)
        fsspec.get_filesystem_class("gcs").clear_instance_cache()
        yield f"gs://{bucket}"
    server.stop()

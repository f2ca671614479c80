"""An S3 server on loopback, for tests that need a bucket."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

BUCKET = "bucket"


@contextmanager
def s3_server() -> Iterator[str]:
    """A server with an empty bucket, named in the environment of this process and its children."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": address,
    }
    try:
        with mock.patch.dict(os.environ, environment):
            boto3.client("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
            yield address
    finally:
        server.stop()

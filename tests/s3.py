"""A server that speaks S3 on loopback, with one bucket, that can go away in the middle."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.dvc_samples import commit, dvc

_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
    # Whatever the person who runs the tests has set.
    "AWS_CONFIG_FILE": "nowhere/aws",
    "AWS_SHARED_CREDENTIALS_FILE": "nowhere/aws",
}


class S3:
    """What is in the bucket, and how many more requests for objects are answered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bucket = f"bank-{uuid.uuid4().hex}"  # the servers of one process share what they keep
        self._left: int | None = None
        self._lock = threading.Lock()

    def use(self, root: Path) -> None:
        """Make the bucket a bank's default remote, by a commit."""
        dvc(root, "remote", "add", "--force", "--default", "store", f"s3://{self.bucket}/banks")
        dvc(root, "remote", "modify", "store", "endpointurl", self.url)
        commit(root)

    def keys(self) -> list[str]:
        """Names of all objects."""
        listed = self._client().list_objects_v2(Bucket=self.bucket)
        return [item["Key"] for item in listed.get("Contents", ())]

    def replace(self, md5: str, data: bytes) -> bytes:
        """Put other bytes in the place of an object and return those that were there."""
        (key,) = (key for key in self.keys() if key.endswith(f"{md5[:2]}/{md5[2:]}"))
        old: bytes = self._client().get_object(Bucket=self.bucket, Key=key)["Body"].read()
        self._client().put_object(Bucket=self.bucket, Key=key, Body=data)
        return old

    def go_away_after(self, requests: int) -> None:
        """Answer so many requests that read or write an object, then nothing at all."""
        self._left = requests

    def come_back(self) -> None:
        """Answer everything again."""
        self._left = None

    def must_answer(self, method: str, path: str) -> bool:
        """Whether a request is answered; counts those that read or write an object."""
        with self._lock:
            if self._left is None:
                return True
            if method in {"GET", "PUT"} and "/files/md5/" in path:
                self._left -= 1
            if self._left < 0:
                self._left = 0
                return False
            return self._left > 0 or method in {"GET", "PUT"}

    def _client(self) -> Any:  # noqa: ANN401  # boto3 makes its types when it runs
        return boto3.client("s3", endpoint_url=self.url)


@contextmanager
def serve() -> Iterator[S3]:
    """Run the server in threads of this process, and point this process and its children at it."""
    application = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if not s3.must_answer(environ["REQUEST_METHOD"], environ["PATH_INFO"]):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        body: Iterable[bytes] = application(environ, start)
        return body

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    s3 = S3(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _SETTINGS.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        try:
            boto3.client("s3", endpoint_url=s3.url).create_bucket(Bucket=s3.bucket)
            yield s3
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

"""A real MLflow server on loopback: SQLite behind it, artifacts in a folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from adapterbank.integrations.environment import DEFAULTS

_PATIENCE_S = 90.0


class MlflowServer:
    """The server of one folder; it can be stopped and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts = folder / "artifacts"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What ``MLFLOW_TRACKING_URI`` has to be."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        environment |= {
            **DEFAULTS,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # or a gigabyte of idle processes
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "mlflow", "server",
                    "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1",
                    "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
                    "--artifacts-destination", str(self.artifacts),
                ],
                cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait()
        return self

    def stop(self) -> None:
        """End it at once, with everything it has started."""
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not self._answers():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5.0) as answer:  # noqa: S310  # http
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

"""The example client as a user runs it, against a server that speaks Triton's HTTP protocol.

The server stands in for Triton: it answers from the repository that was written, by what its
``config.pbtxt`` declares (parsed by Triton's own definitions), and computes with ONNX Runtime. The
client library is the real one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import json_format, text_format
from PIL import Image

from qmdd.exporter.triton.serve import serve_bundles
from qmdd.exporter.triton.settings import Asked
from qmdd.runtime import Detector

NAME = "resnet23-w2a2"
_SIZE = "Inference-Header-Content-Length"


class Refused(Exception):
    """What Triton answers with an error."""


class Server(ThreadingHTTPServer):
    """Triton's stand-in over one repository; ``batches`` holds how many images each request had."""

    def __init__(self, repository: Path, definitions: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.batches: list[int] = []
        self.configs = {}
        for path in repository.glob("*/config.pbtxt"):
            text = path.read_text(encoding="utf-8")
            parsed = text_format.Parse(text, definitions.ModelConfig())
            assert parsed.name == path.parent.name
            self.configs[parsed.name] = json_format.MessageToDict(
                parsed, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        self.sessions = {
            name: ort.InferenceSession(str(repository / name / "1" / "model.onnx"))
            for name in self.configs
        }

    def infer(self, name: str, body: bytes, size: int) -> bytes:
        config, request = self.configs[name], json.loads(body[:size])
        (given,) = request["inputs"]
        shape, declared = given["shape"], [int(dim) for dim in config["input"][0]["dims"]]
        fits = len(shape) == 4 and all(
            d in (-1, s) for d, s in zip(declared, shape[1:], strict=True)
        )
        if given["name"] != config["input"][0]["name"] or given["datatype"] != "UINT8" or not fits:
            raise Refused(f"unexpected shape for input '{given['name']}'")
        if shape[0] > config["max_batch_size"]:
            raise Refused(f"batch-size must be <= {config['max_batch_size']}")
        assert given["parameters"]["binary_data_size"] == len(body) - size
        images = np.frombuffer(body[size:], np.uint8).reshape(shape)
        self.batches.append(len(images))
        (logits,) = self.sessions[name].run(["logit"], {"image": images})
        assert config["output"][0]["reshape"] == {"shape": []}
        data = logits.reshape(-1, 1).astype("<f4").tobytes()
        output = {
            "name": "logit",
            "datatype": "FP32",
            "shape": [len(images), 1],
            "parameters": {"binary_data_size": len(data)},
        }
        head = json.dumps({"model_name": name, "model_version": "1", "outputs": [output]})
        return head.encode() + b"|" + data


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        _, _, _, name, what = self.path.split("/")
        assert what == "config"
        if name in self.server.configs:
            self._answer(200, json.dumps(self.server.configs[name]).encode())
        else:
            self._refuse(f"Request for unknown model: '{name}' is not found")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/v2/repository/index":
            models = [{"name": n, "version": "1", "state": "READY"} for n in self.server.configs]
            self._answer(200, json.dumps(models).encode())
            return
        name = self.path.split("/")[3]
        try:
            head, _, data = self.server.infer(name, body, int(self.headers[_SIZE])).partition(b"|")
        except Refused as error:
            self._refuse(str(error))
        else:
            self._answer(200, head + data, len(head))

    def _refuse(self, text: str) -> None:
        self._answer(400, json.dumps({"error": text}).encode())

    def _answer(self, code: int, body: bytes, head: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        if head is not None:
            self.send_header(_SIZE, str(head))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def serve(tmp_path: Path, triton_config: Any) -> Iterator[Callable[[], Server]]:
    started: list[Server] = []

    def start() -> Server:
        server = Server(tmp_path / "models", triton_config)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def _client(tmp_path: Path, port: int, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tmp_path / "models" / "client.py"), f"--url=127.0.0.1:{port}"]
    return subprocess.run(
        [*command, *map(str, args)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def photos(tmp_path: Path, pictures: list[Path]) -> list[Path]:
    """Files of three sizes, one after the other: odd sides, one longer than the model takes."""
    rng = np.random.default_rng(1)
    big = tmp_path / "big.png"
    Image.fromarray(rng.integers(0, 256, (33, 600, 3), dtype=np.uint8)).save(big)
    return [pictures[0], pictures[0], pictures[0], pictures[1], big]


def test_it_says_what_detect_says(
    proven_bundle: Path, tmp_path: Path, photos: list[Path], serve: Callable[[], Server]
) -> None:
    serve_bundles([proven_bundle], tmp_path / "models", asked=Asked(max_batch=2))
    server = serve()
    done = _client(tmp_path, server.server_port, *photos)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = Detector.open(proven_bundle, threads=1).detect(photos)
    assert done.stdout.splitlines() == [f"{v.score:.4f}  {v.verdict}  {v.path}" for v in wanted]
    assert server.batches == [2, 1, 1, 1]  # of equal size together, at most two


def test_what_goes_wrong(
    proven_bundle: Path, tmp_path: Path, pictures: list[Path], serve: Callable[[], Server]
) -> None:
    """Each in a line that says what; what can be scored is scored."""
    serve_bundles([proven_bundle], tmp_path / "models")
    serve_bundles([proven_bundle], tmp_path / "models", name="other")
    server = serve()
    port = server.server_port
    done = _client(tmp_path, port, pictures[0])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"client: name one with --model: other, {NAME}\n"
    done = _client(tmp_path, port, "--model=absent", pictures[0])
    assert done.returncode == 1
    assert "'absent' is not found" in done.stderr

    text = tmp_path / "text.png"
    text.write_text("no image")
    small = tmp_path / "small.png"
    Image.new("RGB", (8, 8)).save(small)
    done = _client(tmp_path, port, f"--model={NAME}", text, tmp_path / "gone.png", small, *pictures)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        str(text),
        str(tmp_path / "gone.png"),
        str(small),
    ]

    server.configs[NAME]["input"][0]["dims"] = ["3", "64", "64"]
    done = _client(tmp_path, port, f"--model={NAME}", pictures[0])
    assert done.returncode == 1
    assert done.stderr == "client: the server refuses: unexpected shape for input 'image'\n"
    server.configs["other"]["parameters"] = {}
    done = _client(tmp_path, port, "--model=other", pictures[0])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no model of qmdd" in done.stderr

    server.shutdown()
    server.server_close()
    done = _client(tmp_path, port, pictures[0])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"no Triton server at 127.0.0.1:{port}" in done.stderr

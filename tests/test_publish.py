"""Uploading, against a hub of our own on the loopback interface."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from finetune.config.card import CardSection
from finetune.publish import publish


class RefusingHub(BaseHTTPRequestHandler):
    """Answers everything with 401, as a hub does without a token."""

    def do_POST(self) -> None:
        body = json.dumps({"error": "Invalid credentials"}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 - the name that http.server calls

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def refusing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), RefusingHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_token")
    yield
    server.shutdown()
    server.server_close()


def test_without_a_name_nothing_is_uploaded(tmp_path: Path) -> None:
    said: list[str] = []
    publish(CardSection(), tmp_path, said.append)

    assert said == []


@pytest.mark.usefixtures("refusing_hub")
def test_a_hub_that_refuses_loses_nothing_and_the_command_to_retry_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "README.md").write_text("card")

    publish(CardSection(hub_model_id="someone/model"), tmp_path, said.append)

    assert len(said) == 1
    assert said[0].startswith("NOT published (")
    assert f"retry: hf upload someone/model {tmp_path} --exclude 'checkpoint-*' --exclude" in said[0]
    assert "hf_not_a_token" not in said[0]
    assert (tmp_path / "README.md").read_text() == "card"


def test_an_offline_machine_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    publish(CardSection(hub_model_id="someone/model"), tmp_path, said.append)

    assert "offline" in said[0].lower()

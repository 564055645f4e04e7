"""A32: a base model that is not there, not whole, or behind a closed door."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from reliability.forks import start
from reliability.record import Row, joined, listed
from reliability.runs import Lab

ANSWERS = {401: "GatedRepo", 403: "GatedRepo", 404: "RepoNotFound", 500: ""}
"""Answers of a hub, and the error that it names in its header."""


def broken_models(lab: Lab) -> Row:
    """A32."""
    failures = [f"{name}: {said}" for name, spoil in SPOILS.items() if (said := _load_spoilt(lab, spoil))]
    tried = len(SPOILS)
    done = lab.case("a32-missing", base_model=str(lab.folder / "no-such-folder")).run()
    failures += [] if done.exit_code == 4 else [f"missing folder: {done.last_words}"]
    done = lab.case("a32-offline", base_model="someone/no-such-model").run()
    failures += [] if done.exit_code == 4 else [f"name on the hub, offline: {done.last_words}"]
    texts = {} if lab.short else _ask_hub(lab, failures)
    tried += 2 + len(texts)
    what_hub = f"; a hub that answers {', '.join(map(str, texts))}: {len(set(texts.values()))} texts" if texts else ""
    return Row(
        "A32",
        "a base model that is missing, cut short, or behind a closed door",
        tried,
        tried - len(failures),
        joined(f"{', '.join(SPOILS)}, missing, offline: exit 4{what_hub}", listed(failures)),
    )


def _load_spoilt(lab: Lab, spoil: Callable[[Path], None]) -> str:
    model = lab.folder / "a32-llama"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(lab.model, model)
    spoil(model)
    done = lab.case("a32", base_model=str(model)).run()
    good = done.exit_code == 4 and "Traceback" not in done.text and model.name in done.text
    return "" if good else done.last_words


def _cut_header(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 64)


def _cut_short(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def _half_downloaded(model: Path) -> None:
    (model / "model.safetensors").unlink()
    index = '{"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}'
    (model / "model.safetensors.index.json").write_text(index)


def _without_tokenizer(model: Path) -> None:
    for file in model.glob("tokenizer*"):
        file.unlink()


def _without_config(model: Path) -> None:
    (model / "config.json").unlink()


SPOILS: dict[str, Callable[[Path], None]] = {
    "damaged header": _cut_header,
    "cut weights": _cut_short,
    "a missing shard": _half_downloaded,
    "no tokenizer": _without_tokenizer,
    "no config.json": _without_config,
}


class Hub(BaseHTTPRequestHandler):
    """Answers ``/404/…`` with 404, and so on."""

    def do_HEAD(self) -> None:
        """Answer."""
        code = int(self.path.split("/")[1])
        self.send_response(code)
        if ANSWERS[code]:
            self.send_header("X-Error-Code", ANSWERS[code])
            self.send_header("X-Error-Message", "no")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 - the names are http.server's

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _ask_hub(lab: Lab, failures: list[str]) -> dict[int, str]:
    """Ask a hub on this machine for a model that it does not give; return what was said to each of its answers."""
    server = HTTPServer(("127.0.0.1", 0), Hub)

    def serve() -> int:
        server.serve_forever()
        return 0

    child = start(serve, lab.folder / "hub.log")
    texts = {}
    for code in ANSWERS:
        case = lab.case(f"a32-{code}", base_model="someone/closed")
        surroundings = {
            **os.environ,
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}/{code}",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(lab.folder / "hub-home"),
        }
        command = [sys.executable, "-m", "finetune", "train", str(case.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
        texts[code] = done.stderr.strip().replace(str(code), "")
        if done.returncode != 4 or "Traceback" in done.stderr:
            failures.append(f"hub answers {code}: exit {done.returncode}: {' '.join(done.stderr.split())[-200:]}")
    child.send(signal.SIGKILL)
    child.wait()
    server.server_close()
    return texts

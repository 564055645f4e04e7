"""``finetune chat`` from the user's side: replies on standard output, everything else on standard error."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.conftest import Finetune

from finetune.cli import app

SHORT = ("--max-new-tokens", "8")


def test_one_prompt_prints_the_reply_alone(finetune: Finetune, instruct_run: Path) -> None:
    done = finetune("chat", instruct_run, "--prompt", "Capital of Norway, 1?", *SHORT)

    assert done.exit_code == 0
    assert done.out.strip() == "Oslo."
    assert "asked in the format of its training (type: a mapping)" in done.err


def test_a_template_that_was_not_trained_is_said_and_not_used(finetune: Finetune, instruct_run: Path) -> None:
    done = finetune("inference", instruct_run.parent / "out", "--prompt", "Capital of Peru, 2?", *SHORT)

    assert done.out.strip() == "Lima."
    assert (
        "the saved chat template is not the format that the model was trained on; the trained one is used" in done.err
    )
    assert "trained on '<s>[INST] Hello [/INST] ', and the template writes '<|im_start|>user\\nHello" in done.err


def test_a_file_of_prompts_gives_a_file_of_replies(finetune: Finetune, instruct_run: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "Capital of Kenya, 3?"}, {"instruction": "Capital of Japan, 4?", "output": "Tokyo."}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    files = ("--prompts-file", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    done = finetune("chat", instruct_run, *files, *SHORT)

    assert done.exit_code == 0
    assert done.err.splitlines()[-1] == f"2 replies: {tmp_path / 'out.jsonl'}"
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["reply"] for line in lines] == ["Nairobi.", "Tokyo."]
    assert lines[1]["reference"] == "Tokyo."


def test_a_conversation_is_led_by_lines(instruct_run: Path) -> None:
    lines = "Capital of France, 5?\n/help\n\n/reset\nCapital of Norway, 6?\n/exit\n"
    done = CliRunner().invoke(app, ["chat", str(instruct_run), *SHORT], input=lines)

    assert done.exit_code == 0, done.output
    assert "Paris." in done.stdout
    assert "Oslo." in done.stdout
    assert done.stderr.count("/reset forgets the conversation, /exit (or Ctrl-D) leaves") == 2
    assert "forgotten" in done.stderr
    assert "each question stands alone: the model was trained on single prompts" in done.stderr


def test_ctrl_c_stops_a_reply_and_twice_leaves(instruct_run: Path) -> None:
    """At a real terminal, with a reply that would take many seconds."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "finetune", "chat", str(instruct_run.parent / "llama"), "--max-new-tokens", "500"]
    with subprocess.Popen([*command, "--temperature", "2"], stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        screen = Screen(ours)
        try:
            screen.wait_for("> ")
            os.write(ours, b"Blue?\n")
            screen.wait_for("Blue?\r\n")
            screen.wait_for("")
            process.send_signal(signal.SIGINT)
            screen.wait_for("(stopped)")
            screen.wait_for("> ")
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:  # readline shows its prompt a moment before it listens
                process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(ours)


class Screen:
    """What a program writes to its terminal."""

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal
        self.unread = ""

    def wait_for(self, text: str) -> None:
        """Read on until ``text`` was written, or for an empty one until anything was."""
        while not self.unread or text not in self.unread:
            assert select.select([self.terminal], [], [], 60)[0], f"no {text!r} in {self.unread!r}"
            self.unread += os.read(self.terminal, 4096).decode(errors="replace")
        self.unread = self.unread.partition(text)[2] if text else ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts-file", "in.jsonl"], "finetune: chat: --prompts-file needs --output FILE, and excludes --prompt"),
        (["--output", "out.jsonl"], "finetune: chat: --output is for --prompts-file; leave it out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    finetune: Finetune, instruct_run: Path, words: list[str], message: str
) -> None:
    done = finetune("chat", instruct_run, *words)

    assert (done.exit_code, done.err.strip()) == (2, message)


def test_an_adapter_that_is_not_there_is_named_before_weights_load(finetune: Finetune, instruct_run: Path) -> None:
    done = finetune("chat", instruct_run, "--adapter", instruct_run.parent / "none", "--prompt", "x")

    assert done.exit_code == 4
    assert "none has no adapter_config.json; train first, or name the adapter's folder with --adapter" in done.err

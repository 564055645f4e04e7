"""Model folders, adapters and templates made to run code, read or write elsewhere, or never end."""

import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.story import LORA, train, write_run
from tests.tiny import save_tiny_llama

from finetune.errors import ConfigError, DataError, FinetuneError, ModelError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    return save_tiny_llama(tmp_path / "llama")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there once code of the folder has run."""
    return tmp_path / "marker"


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def code(marker: Path) -> str:
    return f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Evil: pass\n"


def change(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **values}))


def outcome(config_file: Path, *changes: str) -> FinetuneError | None:
    try:
        train(config_file, *changes, "--max_steps=1", "--eval_strategy=no", "--evals_per_epoch=null")
    except FinetuneError as error:
        return error
    return None


def test_code_beside_the_weights_is_not_run(tmp_path: Path, base: Path, marker: Path) -> None:
    (base / "modeling_evil.py").write_text(code(marker))
    change(
        base / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "modeling_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"},
    )
    error = outcome(write_run(tmp_path, base))

    assert isinstance(error, ModelError)
    assert "this model is Python code that comes with it, which is not run. Once you have read it" in str(error)
    assert not marker.exists()


def test_code_of_a_known_architecture_is_not_run_either(tmp_path: Path, base: Path, marker: Path) -> None:
    (base / "modeling_evil.py").write_text(code(marker))
    names = {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoTokenizer": ["modeling_evil.Evil", None]}
    change(base / "config.json", auto_map=names)
    change(base / "tokenizer_config.json", auto_map=names)
    error = outcome(write_run(tmp_path, base))

    assert error is None or isinstance(error, ModelError)
    assert not marker.exists()


def test_an_attention_named_by_the_folder_loads_no_code(tmp_path: Path, base: Path, marker: Path) -> None:
    """CVE-2026-4372."""
    (base / "attention.py").write_text(code(marker))
    for name in ("_attn_implementation_internal", "_attn_implementation", "attn_implementation"):
        change(base / "config.json", **{name: f"{base}/attention"})
    error = outcome(write_run(tmp_path, base))

    assert error is None or isinstance(error, ModelError)
    assert not marker.exists()


def test_pickled_weights_are_not_read(tmp_path: Path, base: Path, marker: Path) -> None:
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(marker)))
    error = outcome(write_run(tmp_path, base))

    assert "Pickled weights (*.bin) can run code and are not read; convert them to safetensors" in str(error)
    assert not marker.exists()


def test_pickled_weights_beside_others_are_not_read(tmp_path: Path, base: Path, marker: Path) -> None:
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(marker)))

    assert outcome(write_run(tmp_path, base)) is None
    assert not marker.exists()


def test_a_pickle_with_the_name_of_weights_is_damaged(tmp_path: Path, base: Path, marker: Path) -> None:
    (base / "model.safetensors").write_bytes(pickle.dumps(_Bomb(marker)))

    assert isinstance(outcome(write_run(tmp_path, base)), ModelError)
    assert not marker.exists()


def test_a_shard_outside_the_folder_is_not_loaded(tmp_path: Path, base: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    tensors = load_file(base / "model.safetensors")
    save_file(tensors, outside, metadata={"format": "pt"})
    (base / "model.safetensors").rename(base / "model-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "../outside.safetensors")}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    error = outcome(write_run(tmp_path, base))

    assert isinstance(error, ModelError)
    assert "index.json names ../outside.safetensors, which is no file of this folder; it is not loaded" in str(error)


def test_a_vocabulary_outside_the_folder_is_not_published(tmp_path: Path, base: Path) -> None:
    (tmp_path / "private.txt").write_text("swordfish\n")
    change(base / "tokenizer_config.json", vocab_file="../private.txt", tokenizer_file="../private.txt")
    error = outcome(write_run(tmp_path, base))

    assert error is None or isinstance(error, ModelError)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()] if (tmp_path / "out").exists() else []
    assert [path for path in files if b"swordfish" in path.read_bytes()] == []


def test_the_name_of_a_template_leads_nowhere_else(tmp_path: Path, base: Path) -> None:
    """CVE-2026-9856."""
    change(
        base / "tokenizer_config.json",
        chat_template=[
            {"name": "default", "template": "{{ messages }}"},
            {"name": "../../escaped", "template": "swordfish"},
        ],
    )
    error = outcome(write_run(tmp_path, base), "--num_epochs=1")

    assert isinstance(error, ModelError)
    assert "a chat template named '../../escaped', which is no name of a file; rename it" in str(error)
    assert list(tmp_path.rglob("*escaped*")) == []


def test_an_adapter_imports_no_library_that_it_names(
    tmp_path: Path, base: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_library.py").write_text(code(marker))
    monkeypatch.syspath_prepend(str(tmp_path))
    config_file = write_run(tmp_path, base)
    adapter = shutil.copytree(train(config_file, *LORA, "--max_steps=1"), tmp_path / "adapter")
    change(adapter / "adapter_config.json", auto_mapping={"base_model_class": "Evil", "parent_library": "evil_library"})
    second = (f"--output_dir={tmp_path / 'second'}", "--adapter=lora", f"--lora_model_dir={adapter}")

    error = outcome(config_file, *second)
    assert error is None or isinstance(error, ModelError)
    assert not marker.exists()


CHAT = [
    {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Hello"}]} for n in range(9)
]


def chat_run(folder: Path, base: Path, template: str) -> Callable[[], Path]:
    config_file = write_run(folder, base)
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHAT))
    (folder / "chat.jinja").write_text(template)
    entries = json.dumps([{"path": str(folder / "chat.jsonl"), "type": "chat_template"}])
    words = [f"--datasets={entries}", "--chat_template=jinja", f"--chat_template_jinja={folder / 'chat.jinja'}"]
    return lambda: train(config_file, *words, "--max_steps=1", "--val_set_size=0", "--evals_per_epoch=null")


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__.__mro__[1].__subclasses__()",
        "cycler.__init__.__globals__.os.popen('touch MARKER').read()",
        "messages.__class__.__init__.__globals__",
        "raise_exception.__globals__['json'].codecs.open('MARKER', 'w')",
        "self._TemplateReference__context.environment.filters.tojson.__globals__",
        "messages.append(messages)",
    ],
)
def test_a_template_does_not_get_out_of_its_sandbox(tmp_path: Path, base: Path, marker: Path, expression: str) -> None:
    template = (
        "{% for message in messages %}{{ message.content }}"
        f"{{{{ {expression.replace('MARKER', str(marker))} }}}}{{% endfor %}}"
    )
    with pytest.raises(DataError, match="the chat template refuses this conversation"):
        chat_run(tmp_path, base, template)()
    assert not marker.exists()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "the chat template has not come to an end of two short turns after 3 s; is there a loop in it?",
        ),
        (
            "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
            "the chat template has not come to an end of two short turns after 3 s; is there a loop in it?",
        ),
        ("{% for a in range(10 ** 9) %}{% endfor %}", "the chat template refuses this conversation"),
        ("{{ 2 ** 9999999999 }}", "a number of more than 10,000 bits is not for a chat template"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "the chat template refuses this conversation"),
    ],
    ids=["loops", "macros", "range", "power", "recursion"],
)
def test_an_endless_template_is_refused_within_seconds(tmp_path: Path, base: Path, template: str, message: str) -> None:
    run = chat_run(tmp_path, base, template)
    started = time.process_time()
    with pytest.raises((ConfigError, DataError)) as caught:
        run()
    assert message in str(caught.value)
    assert time.process_time() - started < 5


def test_a_template_with_a_credential_in_it_is_refused(tmp_path: Path, base: Path) -> None:
    """It would be published with the tokenizer."""
    token = "hf_" + "a1" * 17
    with pytest.raises(ConfigError, match=r"chat\.jinja looks like a Hugging Face token, and what is in it") as caught:
        chat_run(tmp_path, base, f"{{# {token} #}}{{{{ messages }}}}")()
    assert token not in str(caught.value)


@pytest.mark.parametrize("place", ["/", "home", ".", "..", "repository"])
def test_a_folder_of_other_things_is_no_output_dir(
    tmp_path: Path, base: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_file = write_run(tmp_path, base)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "repository" / ".git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if place == "home":
        place = str(tmp_path / "home")
    with pytest.raises(ConfigError, match="no folder for a run; name one of its own"):
        train(config_file, f"--output_dir={place}", "--max_steps=1", replace=place != "/")

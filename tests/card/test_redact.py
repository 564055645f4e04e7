import time
from pathlib import Path

import pytest

from finetune.card.redact import redact

SEEDS = Path(__file__).parents[3] / "shared" / "seeds"
HEX = "0123456789abcdef0123456789abcdef01234567"

SECRETS = {
    "hugging face": ("hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", "[redacted]"),
    "hugging face organisation": ("api_org_abcdefghijklmnopqrstuvwxyz", "[redacted]"),
    "wandb variable": (f"export WANDB_API_KEY={HEX}", "export WANDB_API_KEY=[redacted]"),
    "wandb login": (f"wandb login {HEX}", "wandb login [redacted]"),
    "wandb in words": (f"# my wandb key is {HEX} today", "# my wandb key is [redacted] today"),
    "wandb v1": ("wandb_v1_abcdefghijklmnop_qrstuvw", "[redacted]"),
    "github": ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[redacted]"),
    "github fine-grained": ("github_pat_11ABCDEFG0abcdefghij_klmnopqrst", "[redacted]"),
    "aws": ("id AKIAIOSFODNN7EXAMPLE.", "id [redacted]."),
    "aws secret": ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPx", "aws_secret_access_key = [redacted]"),
    "openai": ("sk-abcdefghijklmnopqrstuvwx", "[redacted]"),
    "openai project": ("(sk-proj-abc_defghijkl-mnopqrstuvwx)", "([redacted])"),
    "slack": ("xoxb-1234567890-abcdef", "[redacted]"),
    "google": ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "[redacted]"),
    "json web token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "[redacted]"),
    "bearer": ("Authorization: Bearer abcdef0123456789abcdef", "Authorization: Bearer [redacted]"),
    "user and password": ("https://ann:pa55@host.org/x.json", "https://[redacted]@host.org/x.json"),
    "password with an at sign": ("s3://ann:p@55@host/x", "s3://[redacted]@host/x"),
    "token as user": ("https://secrettoken@host.org/x", "https://[redacted]@host.org/x"),
    "amazon signature": (
        "https://h.org/d.json?X-Amz-Date=2025&X-Amz-Signature=ab12&X-Amz-Credential=AB%2F1",
        "https://h.org/d.json?X-Amz-Date=2025&X-Amz-Signature=[redacted]&X-Amz-Credential=[redacted]",
    ),
    "azure signature": ("https://h.org/d?sv=1&sig=aB%3D&se=2", "https://h.org/d?sv=1&sig=[redacted]&se=2"),
    "token in a query": ("https://h.org/d?token=abc", "https://h.org/d?token=[redacted]"),
    "api key in yaml": ("comet_api_key: 'abc def'  # x", "comet_api_key: [redacted]  # x"),
    "password in yaml": ("password: hunter2", "password: [redacted]"),
    "commented token": ("# hub_token: abc", "# hub_token: [redacted]"),
    "json value": ('{"api_key": "abc", "x": 1}', '{"api_key": [redacted], "x": 1}'),
    "private key": (
        "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb",
        "a\n[redacted]\nb",
    ),
    "linux home": ("path: /home/ann/data/x.jsonl", "path: ~/data/x.jsonl"),
    "mac home": ("'/Users/ann/x'", "'~/x'"),
    "root home": ("/root/x and /root", "~/x and ~"),
    "windows home": (r"C:\Users\ann\x", r"~\x"),
    "file url": ("file:///home/ann/x", "file://~/x"),
}


@pytest.mark.parametrize(("text", "expected"), SECRETS.values(), ids=SECRETS.keys())
def test_secrets_and_home_folders_are_replaced(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize("text", [text for text, _ in SECRETS.values()], ids=SECRETS.keys())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "special_tokens:\n  pad_token: <|end_of_text|>\n  eos_token: '</s>'",
        f"model_revision: {HEX}",
        f"tokenizer_revision: {HEX}",
        "hub_token:\npassword: null\nhf_use_auth_token: true",
        "https://huggingface.co/datasets/a/b?split=train",
        "mail ann@example.org",
        "task-assessment-of-something-long",
        "hf_transfer and hf_checkpoint",
        "/workspace/home/data /data/root/x https://h.org/home/x https://home/x",
        "lora_target_modules: [q_proj, k_proj]  # key and token projections",
    ],
    ids=["tokens", "commit", "tokenizer commit", "unset", "url", "mail", "sk", "hf", "folders", "words"],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("name", ["formula_llama_3_1_8b_4bits_r4.yml", "dolphin-2.9.4-llama3.1-8b.yml"])
def test_the_seed_configurations_stay_as_written(name: str) -> None:
    if not (SEEDS / name).exists():
        pytest.skip("the seed files are not beside this checkout")
    text = (SEEDS / name).read_text(encoding="utf-8")
    assert redact(text) == text


@pytest.mark.parametrize("piece", ["a-", "key ", "token=", "eyJ-", "hf_a", "wandb ", "/home/", "-----BEGIN "])
def test_long_texts_take_no_longer_than_their_length(piece: str) -> None:
    start = time.perf_counter()
    redact(piece * 20_000)
    assert time.perf_counter() - start < 2

"""A credential in the file is refused where it stands, without being repeated."""

import pytest
from tests.conftest import WriteConfig

from finetune.card.redact import redact
from finetune.config import load_config
from finetune.config.secrets import find_secret
from finetune.errors import ConfigError

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
SECRETS = {
    "Hugging Face token": f"hf_{LETTERS}",
    "W&B key": f"wandb_v1_{LETTERS}",
    "GitHub token": f"ghp_{LETTERS}",
    "GitLab token": "glpat-abcdefghij_klmnop",
    "AWS key": "AKIAIOSFODNN7EXAMPLE",
    "API key": f"sk-proj-{LETTERS}",
    "Slack token": "xoxb-1234567890-abcdef",
    "private key": "-----BEGIN RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_each_kind_is_refused_by_its_look_and_never_shown(write_config: WriteConfig, kind: str) -> None:
    secret = SECRETS[kind]
    with pytest.raises(
        ConfigError, match=rf"config\.yml:\d+:1: wandb_name: looks like a {kind}, and what is"
    ) as caught:
        load_config(write_config(wandb_project="p", wandb_name=f"x {secret}"))
    assert secret not in str(caught.value)
    assert secret not in redact(f"wandb_name: {secret}"), "what is refused here is redacted there"


def test_the_place_inside_the_file_is_named(write_config: WriteConfig) -> None:
    path = write_config(datasets=[{"path": "a", "type": "alpaca", "revision": SECRETS["Hugging Face token"]}])
    with pytest.raises(ConfigError, match=r"datasets\.0\.revision: looks like .*; set HF_TOKEN in the environment"):
        load_config(path)


def test_a_credential_on_the_command_line_is_refused_too(write_config: WriteConfig) -> None:
    with pytest.raises(ConfigError, match="command line: --hub_model_id: hub_model_id: looks like a GitHub token"):
        load_config(write_config(), [f"--hub_model_id={SECRETS['GitHub token']}"])


@pytest.mark.parametrize("name", ["hub_token", "wandb_api_key", "my_secret", "password", "openai_key"])
def test_keys_for_credentials_are_refused_with_where_they_belong(write_config: WriteConfig, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(**{name: "swordfish"}))
    assert "environment" in str(caught.value)
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize("text", ["hf_models_checkpoints_of_this_very_year", "sk-learn", "AKIAPLACE", "./ghp_data"])
def test_ordinary_words_are_no_credentials(text: str) -> None:
    assert find_secret(text) is None

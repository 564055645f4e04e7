"""Weights & Biases offline, and its failures."""

from pathlib import Path

import pytest

from finetune.config.tracking import TrackingSection
from finetune.training.tracking import open_trackers, tracking_mode


def test_the_mode_is_offline_where_no_key_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    section = TrackingSection(wandb_project="p")

    assert tracking_mode(section) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert tracking_mode(section) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking_mode(section) == "disabled"
    assert tracking_mode(TrackingSection(wandb_project="p", wandb_mode="offline")) == "offline"


def test_a_key_in_netrc_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / ".netrc").chmod(0o600)

    assert tracking_mode(TrackingSection(wandb_project="p")) == "online"


def test_without_a_project_there_is_no_tracker(tmp_path: Path) -> None:
    with open_trackers(TrackingSection(), tmp_path, "", print) as trackers:
        assert trackers == []

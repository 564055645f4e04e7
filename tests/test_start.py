"""What a run settles before its first step."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from tests.story import LORA, write_run
from tests.tiny import save_tiny_llama

from finetune.attempt.attempt import Attempt
from finetune.config import RunConfig, load_config
from finetune.continuation import Continuation
from finetune.errors import ConfigError, DataError
from finetune.narration import Narrator
from finetune.preprocess import preprocess
from finetune.start import check_data, connect, find_start, note_start, open_store, take_output
from finetune.training.engine import Engine

Configure = Callable[..., RunConfig]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    file = write_run(tmp_path, save_tiny_llama(tmp_path / "llama"))
    return lambda *changes: load_config(file, [*LORA, *changes])


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def narrator(told: io.StringIO) -> Narrator:
    return Narrator(Console(file=told, width=500))


def begin(config: RunConfig, engine: Engine, narrator: Narrator, *, replace: bool = False) -> str:
    """Take the folder and let it go again, as a run that ends here does."""
    attempt = Attempt()
    attempt.belong(config.training)
    claim, run_id = take_output(config, fresh(config), engine, narrator, attempt, replace=replace)
    assert claim is not None
    claim.lock.close()
    return run_id


def fresh(config: RunConfig) -> Continuation:
    engine, hardware = connect(config)
    return find_start(config, hardware, engine, ())


def test_a_first_start_knows_its_base_and_goes_on_from_nothing(configure: Configure) -> None:
    start = fresh(configure())
    assert start.checkpoint is None
    assert start.keys == frozenset()
    assert "model.safetensors" in start.surroundings.base
    assert start.surroundings.compute == "float32"


def test_a_run_that_saved_nothing_starts_over_in_its_folder_under_its_id(
    configure: Configure, narrator: Narrator, told: io.StringIO
) -> None:
    config = configure("--auto_resume_from_checkpoints=true")
    output_dir, (engine, _) = Path(config.training.output_dir), connect(config)
    run_id = begin(config, engine, narrator)
    (output_dir / "metrics.jsonl").write_text("{}\n")  # its first steps
    assert begin(config, engine, narrator) == run_id
    assert json.loads((output_dir / "run.json").read_text())["run_id"] == run_id
    assert "ended without a word" in told.getvalue()

    with pytest.raises(ConfigError, match="holds another run"):
        begin(configure(), engine, narrator)
    assert begin(configure(), engine, narrator, replace=True) != run_id
    assert "the run that was there is now in" in told.getvalue()


def test_a_checkpoint_says_of_its_run_what_the_folder_says(configure: Configure, narrator: Narrator) -> None:
    config = configure("--save_total_limit=2")
    engine, _ = connect(config)
    run_id = begin(config, engine, narrator)
    start, report = fresh(config), preprocess(config, narrator.say).data.report
    output_dir = Path(config.training.output_dir)
    note_start(config, report, start, output_dir)
    store = open_store(config, start, run_id, report, engine, narrator)
    assert store.facts.config in (output_dir / "config.resolved.yml").read_text()
    assert store.facts.surroundings == (output_dir / "surroundings.json").read_text()
    assert (store.facts.run, store.facts.data_digest, store.facts.num_samples) == (run_id, report.digest, 32)


def test_data_beyond_a_limit_of_the_configuration_ends_the_run(configure: Configure, narrator: Narrator) -> None:
    config = configure("--min_trained_share=0.99")
    engine, _ = connect(config)
    with pytest.raises(DataError, match="min_trained_share"):
        check_data(config, preprocess(config, narrator.say), engine, narrator)


def test_the_checks_can_be_left_out(configure: Configure, narrator: Narrator, told: io.StringIO) -> None:
    for changes, is_checked in (((), True), (("--skip_checks=true",), False)):
        config = configure(*changes)
        ready, (engine, _) = preprocess(config, narrator.say), connect(config)
        told.truncate(0)
        check_data(config, ready, engine, narrator)
        assert ("check masks" in told.getvalue()) is is_checked

"""The story of an evaluation, top to bottom: :func:`evaluate`.  Every process lives through it."""

import gc
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import Progress

from finetune import __version__
from finetune.card.redact import redact
from finetune.data.store import StoredSamples
from finetune.errors import EvaluationError
from finetune.evaluation.answers import AnswerStore
from finetune.evaluation.comparison import Comparison, PairedMetric, compare_losses
from finetune.evaluation.group import Group
from finetune.evaluation.loss import Sums, ValidationLoss, row_losses
from finetune.evaluation.model import Checked, Loaded, check_subject, load_base, load_subject, model_key
from finetune.evaluation.narration import applies_template, describe, model_facts, tell
from finetune.evaluation.record import EvaluationRecord, TaskRecord, write_record
from finetune.evaluation.subject import Subject
from finetune.evaluation.template_check import check_template
from finetune.exhausted import describe_exhausted, explained_memory
from finetune.model.precision import Precision, choose_precision, measured
from finetune.preprocess import preprocess, trained_tokenizer
from finetune.processes import this_process
from finetune.rerender import refresh_card
from finetune.training.engine import start_engine, stop_engine
from finetune.training.samples import choose_prompts

if TYPE_CHECKING:  # the harness is an extra: whoever asks for tasks has it
    from finetune.evaluation.harness import TaskResults
    from finetune.evaluation.task_run import TaskRun

ANSWERS = ".evaluation"
"""Folder beside the results where answers are kept; what starts with a dot is never published."""
_PACKAGES = ("lm_eval", "transformers", "peft", "torch", "datasets", "tokenizers", "bitsandbytes")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    subject: Subject
    compare: bool = False
    """Measure the base too, on the same samples."""
    remember: bool = True
    """Keep answers to tasks, and use those that were kept."""
    prepare_tasks: "Callable[[bool, int], TaskRun] | None" = None
    """Finds the tasks, told whether the chat template is applied and how many processes there are."""
    chat_template: bool | None = None
    """Whether to apply it; None decides by what the model was trained on."""


def check_template_of(subject: Subject, console: Console) -> None:
    """Compare the saved chat template with training's own path, without any weights.

    Raises:
        EvaluationError: they differ, or there is nothing to compare.
    """
    say = _speaker(console)
    if subject.config is None:
        raise EvaluationError(
            "--check-template compares with training's data, so name the YAML file or the run's folder"
        )
    checked = check_subject(subject)
    found = check_template(subject.config.data, trained_tokenizer(subject.config), checked.tokenizer)
    for note in found.notes:
        say(note)
    say(f"chat template: {found.num_equal} of {found.num_rows} rows give the tokens of training")
    if found.first:
        first = found.first
        raise EvaluationError(
            f"{first.where}: the saved chat template differs from training after {first.position} tokens "
            f"({first.before!r}):\n  training  {first.trained}\n  template  {first.templated}"
        )


@dataclass(frozen=True)
class Session:
    """What is at hand once everything was checked and no weights were loaded."""

    request: Request
    checked: Checked
    precision: Precision
    group: Group
    validation: StoredSamples | None
    tasks: "TaskRun | None"
    console: Console

    @property
    def subject(self) -> Subject:
        """What is evaluated."""
        return self.request.subject


@dataclass(frozen=True)
class Measured:
    """What one model gave."""

    sums: Sums | None
    tasks: "TaskResults | None"


def evaluate(request: Request, console: Console) -> Path | None:
    """Measure what ``request`` asks for, and return the file with the results (None on other than the main process).

    Raises:
        FinetuneError: one of its subclasses, for everything that a user can cause or meet.
    """
    subject, say = request.subject, _speaker(console)
    say(f"evaluating {describe(subject)}")

    # 1. Everything that can be wrong is found before weights are loaded.
    engine = start_engine(this_process(), None)
    group = Group(engine.place.rank, engine.place.world_size)
    precision = choose_precision(measured(subject.training))
    _refuse_missing_base(request)
    checked = check_subject(subject)
    validation = _validation(subject)
    tasks = None
    if request.prepare_tasks:
        tasks = request.prepare_tasks(applies_template(request.chat_template, subject, checked, say), group.world_size)
    if validation is None and tasks is None:
        raise EvaluationError(
            "there is nothing to evaluate on: no validation data (val_set_size or test_datasets of the configuration) "
            "and no --tasks"
        )
    session = Session(request, checked, precision, group, validation, tasks, console)

    # 2. One model, or two.
    with explained_memory(lambda: describe_exhausted("the evaluation", helpful(request))):
        tuned, base = measure(session)
    comparison = _compare(session, base, tuned) if base else None

    # 3. What came out.
    path = None
    if engine.place.is_main:
        created = datetime.now().astimezone()
        path = write_record(_record(session, tuned, base, comparison), subject.folder, created)
        tell(session.console, tuned.sums, tuned.tasks, comparison)
        say(f"\nwritten: {path}")
        refresh_card(subject.folder, say)
    stop_engine(engine)
    return path


def measure(session: Session) -> tuple[Measured, Measured | None]:
    """Measure the subject, and its base where that was asked for."""
    subject = session.subject
    loaded = load_subject(subject, session.checked, session.precision)
    tuned = _measure(session, loaded, "tuned")
    if not session.request.compare:
        return tuned, None
    if subject.adapter_dir:
        with loaded.without_adapter():
            return tuned, _measure(session, loaded, "base")
    tokenizer = loaded.tokenizer
    del loaded  # one model at a time
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return tuned, _measure(session, load_base(subject, tokenizer, session.precision), "base")


def helpful(request: Request) -> list[str]:
    """Return what to change where memory runs out in an evaluation, the cheapest first."""
    subject = request.subject
    size = subject.training.eval_batch_size
    found = [f"eval_batch_size: {size // 2}  (the same losses)"] if size > 1 else []
    if request.prepare_tasks:
        found.append("--batch-size 1  (requests of tasks in one pass)")
    if not subject.model.quantized:
        found.append("load_in_4bit: true  (a quarter of the memory for weights; the losses of the rounded weights)")
    return [*found, "a device with more memory"]


def _measure(session: Session, loaded: Loaded, role: str) -> Measured:
    subject, group = session.subject, session.group
    sums, results = None, None
    if session.validation is not None:
        with Progress(console=session.console, transient=True, disable=not session.console.is_terminal) as progress:
            bar = progress.add_task(f"validation ({role})", total=len(group.share(len(session.validation))))
            size = subject.training.eval_batch_size
            advance = lambda num_rows: progress.advance(bar, num_rows)  # noqa: E731
            sums = row_losses(loaded.network, session.validation, size, session.precision, group, advance)
    if session.tasks:
        key = model_key(subject, session.checked, session.precision, role)
        store = AnswerStore(subject.folder / ANSWERS, key, group.rank, remember=session.request.remember)
        if len(store):
            _speaker(session.console)(f"{role}: {len(store):,} answers are known from before (--no-cache asks anew)")
        results = session.tasks.run(loaded, session.precision, group, store)
    return Measured(sums, results)


def _compare(session: Session, base: Measured, tuned: Measured) -> Comparison:
    seed = session.subject.training.seed
    losses: list[PairedMetric] = []
    if session.validation is not None and base.sums is not None and tuned.sums is not None:
        losses = [compare_losses(base.sums, tuned.sums, lambda row: _row_text(session, row), seed)]
    found = Comparison()
    if session.tasks and base.tasks and tuned.tasks and session.group.rank == 0:
        found = session.tasks.compare(base.tasks, tuned.tasks, seed)
    return replace(found, metrics=(*losses, *found.metrics))


def _row_text(session: Session, row: int) -> tuple[str, str]:
    assert session.validation is not None
    sample = session.validation[row]
    prompts = choose_prompts([(sample["input_ids"].tolist(), sample["labels"].tolist())], session.checked.tokenizer, 1)
    if prompts:
        return prompts[0].text, prompts[0].reference
    return "", session.checked.tokenizer.decode(sample["input_ids"].tolist(), skip_special_tokens=True)


def _refuse_missing_base(request: Request) -> None:
    if request.compare and request.subject.base is None:
        raise EvaluationError(
            f"--compare: {request.subject.name} is a whole model, and nothing says what it was trained from; "
            "name that model with --base"
        )


def _validation(subject: Subject) -> StoredSamples | None:
    """Tokenize the validation data as training did, or find it prepared."""
    if subject.config is None or not subject.config.data.has_validation:
        return None
    return preprocess(subject.config, lambda _: None).data.validation


def _record(
    session: Session, tuned: Measured, base: Measured | None, comparison: Comparison | None
) -> EvaluationRecord:
    subject, tasks = session.subject, session.tasks
    installed = {dist.metadata["Name"].replace("-", "_") for dist in importlib.metadata.distributions()}
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES if name in installed}
    settings: dict[str, Any] = {"num_processes": session.group.world_size, "compare": base is not None}
    seeds = {"bootstrap": subject.training.seed}
    if tasks:
        options = vars(tasks.options)
        settings |= {"tasks": [redact(name) for name in tasks.names], **options}
        seeds |= tasks.seeds
    return EvaluationRecord(
        model=model_facts(session.subject, session.precision),
        settings=settings,
        seeds=seeds,
        versions={"finetune": __version__, **versions},
        validation=ValidationLoss.of(tuned.sums) if tuned.sums is not None else None,
        tasks=_task_record(session, tuned, adapter=True),
        base_tasks=_task_record(session, base, adapter=False) if base else None,
        comparison=comparison,
    )


def _task_record(session: Session, measured: Measured, *, adapter: bool) -> TaskRecord | None:
    if session.tasks is None or measured.tasks is None:
        return None
    facts, found = model_facts(session.subject, session.precision), measured.tasks
    words = [f"pretrained={facts['pretrained'] if adapter else facts['base'] or facts['pretrained']}"]
    words += [f"peft={facts['adapter']}"] if adapter and facts["adapter"] else []
    words += [f"dtype={facts['dtype']}", *([f"load_in_{facts['bits']}bit=True"] if facts["bits"] else [])]
    header = session.tasks.header(",".join(words), on_cpu=not torch.cuda.is_available())
    return TaskRecord(header, found.table, found.groups_table, found.content, found.samples)


def _speaker(console: Console) -> Say:
    return lambda text: console.print(text, highlight=False, markup=False)

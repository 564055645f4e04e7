"""From facts to the text of the model card.  Pure: no clock, no file but the template, no network."""

from collections.abc import Sequence
from functools import cache
from importlib import resources

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment
from markupsafe import Markup

from finetune.card.evaluation import PairedLine
from finetune.card.facts import CardFacts, Hyperparameters, LogRow
from finetune.card.front_matter import HUB_NAME, front_matter, last_part, shown_name
from finetune.card.markdown import code, fenced, inline, listing, number, table
from finetune.card.usage import loading_code, training_command


def render(facts: CardFacts) -> str:
    """Return the card: front matter, configuration, results, hyperparameters, samples, versions.

    Blocks, order and number formats are those of the HF Trainer's card as Axolotl publishes it.  Every text
    of ``facts`` is redacted and escaped, so that a name cannot add front matter, HTML or links.
    """
    return _template().render(
        facts=facts,
        front_matter=Markup(front_matter(facts)),  # noqa: S704 written by yaml.safe_dump
        base_model=_base_model(facts),
        dataset_names=[shown_name(dataset) for dataset in facts.datasets],
        eval_results=[(_metric_name(name), number(value)) for name, value in facts.eval_results.items()],
        hyperparameters=hyperparameter_lines(facts.hyperparameters),
        results_table=Markup(training_results(facts.log_history)),  # noqa: S704 numbers only
        evals=_evals(facts),
        comparison_table=Markup(comparison_table(facts.evaluation.comparison)),  # noqa: S704 names are escaped
        loading_code=loading_code(facts.usage) if facts.usage else "",
        training_command=training_command(facts),
        number=number,
        duration=_duration,
    )


def hyperparameter_lines(values: Hyperparameters) -> list[str]:
    """Return ``name: value`` lines in the order of the HF model card, which leaves out what has no effect."""
    total_train, total_eval = values.total_train_batch_size, values.total_eval_batch_size
    lines: dict[str, object] = {
        "learning_rate": values.learning_rate,
        "train_batch_size": values.train_batch_size,
        "eval_batch_size": values.eval_batch_size,
        "seed": values.seed,
        "distributed_type": values.distributed_type,
        "num_devices": values.num_devices if values.num_devices > 1 else None,
        "gradient_accumulation_steps": _unless(values.gradient_accumulation_steps, 1),
        "total_train_batch_size": _unless(total_train, values.train_batch_size),
        "total_eval_batch_size": _unless(total_eval, values.eval_batch_size),
        "optimizer": values.optimizer,
        "lr_scheduler_type": values.lr_scheduler_type,
        "lr_scheduler_warmup_ratio": values.warmup_ratio or None,
        "lr_scheduler_warmup_steps": values.warmup_steps or None,
        "training_steps": values.max_steps,
        "num_epochs": values.num_epochs if values.max_steps is None else None,
    }
    kept = [f"{name}: {value}" for name, value in lines.items() if value is not None]
    return kept + [f"changed {change}" for change in values.changes]


def training_results(log_history: tuple[LogRow, ...] | list[LogRow]) -> str:
    """Return a table with one row per evaluation, or an empty string where nothing was evaluated.

    The training loss is the last one logged before; ``No log`` until there is one.  A second evaluation at
    the same step, such as that of the best checkpoint after training, adds no row.
    """
    rows: dict[object, list[str]] = {}
    training_loss = "No log"
    for row in log_history:
        if "loss" in row:
            training_loss = number(row["loss"])
        if "eval_loss" in row:
            step = row["step"]
            rows.setdefault(step, [training_loss, number(row["epoch"]), str(step), number(row["eval_loss"])])
    if not rows:
        return ""
    return table(["Training Loss", "Epoch", "Step", "Validation Loss"], list(rows.values()))


def comparison_table(lines: Sequence[PairedLine]) -> str:
    """Return base and tuned side by side, a row for each metric, or an empty string where nothing was compared."""
    header = ["Task", "Metric", "Samples", "Base", "Fine-tuned", "Difference", "95 % interval", "Better", "Worse", "p"]
    rows = [
        [
            inline(line.task),
            f"{inline(line.metric)} {'↑' if line.higher_is_better else '↓'}",
            f"{line.num_samples:,}",
            f"{line.base:.4f}",
            f"{line.tuned:.4f}",
            f"{line.tuned - line.base:+.4f}",
            f"{line.low:+.4f} to {line.high:+.4f}",
            f"{line.gained:,}",
            f"{line.lost:,}",
            "" if line.p_value is None else f"{line.p_value:.3g}",
        ]
        for line in lines
    ]
    return table(header, rows) if rows else ""


def _evals(facts: CardFacts) -> str:
    tasks = facts.evaluation.tasks
    if tasks is None:
        return ""
    tables = [tasks.table, *([tasks.groups_table] if tasks.groups_table else [])]
    return f"{tasks.header}\n" + "\n\n".join(text.strip("\n") for text in tables) + "\n"


def _duration(seconds: float) -> str:
    """Write a time in the two units that say enough: ``1 h 5 min``, ``3 min 20 s``, ``42 s``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _base_model(facts: CardFacts) -> Markup:
    """Link a hub model; show a local one, or a name that no hub would allow, as its last path part."""
    if facts.is_local_base or not HUB_NAME.fullmatch(facts.base_model):
        return code(last_part(facts.base_model))
    return Markup("[{0}](https://huggingface.co/{0})").format(facts.base_model)


def _metric_name(name: str) -> str:
    return " ".join(word.capitalize() for word in name.removeprefix("eval_").split("_"))


def _unless(value: int, plain: int) -> int | None:
    return None if value == plain else value


def _escape(value: object) -> object:
    """Escape whatever the template prints, unless a filter has already made it safe."""
    return value if isinstance(value, Markup) else inline(str(value))


@cache
def _template() -> Template:
    environment = SandboxedEnvironment(
        finalize=_escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "fenced": fenced, "listing": listing}
    text = resources.files("finetune.card").joinpath("card.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)

"""The facts of a finished run: plain values, gathered by the caller, read by :mod:`finetune.card.render`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.card.evaluation import EvaluationFacts

LogRow = Mapping[str, Any]
"""A row of the HF Trainer's ``state.log_history``: ``loss`` or ``eval_loss`` with ``epoch`` and ``step``."""


@dataclass(frozen=True, kw_only=True)
class DatasetName:
    """A data set as the card names it.  Of a local path only the last part is ever shown."""

    name: str
    on_hub: bool


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What the data report counted.  Tokens are those of the kept rows, validation rows included."""

    rows_read: int
    rows_kept: int
    rows_dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason, in words: number of rows."""
    rows_truncated: int = 0
    eval_rows: int = 0
    """Rows of the kept ones that were held out for evaluation."""
    num_tokens: int
    num_trained_tokens: int
    """Tokens whose label is not masked."""
    sequence_len: int


@dataclass(frozen=True, kw_only=True)
class ParameterSummary:
    """Which part of the weights was trained, and how."""

    total: int
    trained: int
    method: str
    """In words, such as ``LoRA adapter (r 4, alpha 16) on 4-bit NF4 weights``."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """The hyperparameters that the card lists; sizes are rows, per device unless named total."""

    learning_rate: float
    train_batch_size: int
    eval_batch_size: int
    seed: int
    optimizer: str
    """The whole line; see :func:`describe_optimizer`."""
    lr_scheduler_type: str
    num_epochs: float
    max_steps: int | None = None
    """Where set it is listed as ``training_steps`` in the place of ``num_epochs``."""
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    gradient_accumulation_steps: int = 1
    distributed_type: str | None = None
    """``multi-GPU``, ``multi-CPU`` …; None for one process."""
    num_devices: int = 1
    changes: tuple[str, ...] = ()
    """What was changed when a resumed run went on, ``after step N: key: old -> new``."""

    @property
    def total_train_batch_size(self) -> int:
        """Rows per optimizer step."""
        return self.train_batch_size * self.num_devices * self.gradient_accumulation_steps

    @property
    def total_eval_batch_size(self) -> int:
        """Rows per evaluation step over all devices."""
        return self.eval_batch_size * self.num_devices


@dataclass(frozen=True, kw_only=True)
class SampleChange:
    """What the model answered to one prompt before and after training."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the run ran on, and what it took."""

    device: str
    """In words, such as ``NVIDIA H100 80GB HBM3``."""
    num_devices: int = 1
    runtime_s: float
    """Seconds from the first step to the last, evaluations and checkpoints included."""
    tokens_per_second: float | None = None
    """Tokens of training samples per second of runtime_s, over all devices."""
    peak_memory_bytes: int | None = None
    """On the first device; of the whole process on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What somebody needs to load the result and to ask it as it was trained."""

    name: str
    """Hub name, or folder."""
    base: str
    """What an adapter is put on."""
    is_adapter: bool
    is_chat: bool
    """Whether it was trained on chats rendered with the tokenizer's chat template."""
    question: str
    """An example: the user's turn of a chat, else a whole prompt in the format of the data."""
    bits: int | None = None
    """4 or 8 where the base was quantized while training."""
    adds_tokens: bool = False


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything that the card says.  Texts are raw: escaping and redaction happen in ``render``."""

    title: str
    base_model: str
    is_local_base: bool
    datasets: tuple[DatasetName, ...]
    library_name: Literal["peft", "transformers"]
    yaml_text: str
    """The user's file, as written."""
    overrides: str = ""
    """The keys changed on the command line, as YAML text."""
    resolved_yaml: str = ""
    """The configuration with every default filled in."""
    finetune_version: str
    hyperparameters: Hyperparameters
    framework_versions: tuple[tuple[str, str], ...]
    """Name and version in the order of the card: PEFT, Transformers, Pytorch, Datasets, Tokenizers."""
    log_history: tuple[LogRow, ...] = ()
    eval_results: Mapping[str, float] = field(default_factory=dict)
    """Name (``loss``) to value, of the model that was saved; empty if nothing was evaluated."""
    license: str | None = None
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("finetune", "generated_from_trainer")
    data: DataSummary | None = None
    parameters: ParameterSummary | None = None
    samples: tuple[SampleChange, ...] = ()
    machine: Machine | None = None
    usage: Usage | None = None
    plot_file: str | None = None
    """Name of the loss plot beside the card."""
    evaluation: EvaluationFacts = field(default_factory=EvaluationFacts)
    """What ``finetune evaluate`` found on the result."""


def describe_optimizer(name: str, betas: tuple[float, float], epsilon: float, arguments: str | None = None) -> str:
    """Return the optimizer line in the words of the HF model card (transformers 4.46 and later).

    ``name`` is the formatted ``TrainingArguments.optim``, such as ``OptimizerNames.ADAMW_TORCH_FUSED``.
    Only Adam's relatives are said to have betas and an epsilon.
    """
    given = arguments or "No additional optimizer arguments"
    if "adam" not in name.lower():
        return f"Use {name} with optimizer_args={given}"
    return f"Use {name} with betas=({betas[0]},{betas[1]}) and epsilon={epsilon} and optimizer_args={given}"

"""How the model is trained: batches, optimizer, precision, and when to log, evaluate and save."""

from typing import Any, Literal

from pydantic import field_validator, model_validator

from finetune.config.batch import AUTO, BatchSplit
from finetune.config.section import Section, key
from finetune.errors import nearest

Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_bnb_8bit",
    "adamw_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "ademamix",
    "ademamix_8bit",
    "lion_32bit",
    "lion_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "adafactor",
    "sgd",
    "adagrad",
    "rmsprop",
]
Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]
ADAM_KEYS = ("adam_beta1", "adam_beta2", "adam_epsilon")
"""Keys of the moments of Adam and its kin."""
_WITHOUT_MOMENTS = ("adafactor", "sgd", "adagrad", "rmsprop")
_CHECKPOINT_ARGUMENTS = ("use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop")
"""Arguments of torch.utils.checkpoint that are not code; a reentrant one takes the first two only."""


class TrainingSection(Section):
    """The optimization, its precision and its cadence."""

    output_dir: str = key("model-out", affects="nothing", min_length=1)
    """Folder for weights, checkpoints, metrics and the card."""
    seed: int = key(42, affects="training", ge=0, le=2**32 - 1)
    """Seed of shuffling, initialisation and dropout."""
    micro_batch_size: BatchSplit = key(affects="training", unit="samples per device and step")
    """Samples (packed: sequences) in one pass; default 1, or the quotient of the next two; auto: as many as fit."""
    gradient_accumulation_steps: BatchSplit = key(affects="training", unit="forward passes")
    """Forward passes per optimizer step; default 1, or batch_size / micro_batch_size."""
    batch_size: int = key(affects="training", unit="samples per device and optimizer step", ge=1)
    """micro_batch_size x gradient_accumulation_steps: give any two; micro_batch_size: auto needs this one alone."""
    eval_batch_size: int = key(affects="nothing", unit="samples per device", ge=1)
    """Samples in one evaluation pass; default micro_batch_size."""
    num_epochs: float = key(1.0, affects="training", unit="epochs", gt=0)
    """Passes over the training data; may be fractional."""
    max_steps: int | None = key(None, affects="training", unit="optimizer steps", ge=1)
    """Stop after this many steps, whatever num_epochs says."""
    group_by_length: bool = key(False, affects="training")
    """Put samples of like length in one batch (padded batches only)."""

    optimizer: Optimizer = key("adamw_torch_fused", affects="training")
    """Optimizer, by the names of transformers."""
    learning_rate: float = key(affects="training", gt=0, le=1)
    """Peak learning rate."""
    lr_scheduler: Scheduler = key("cosine", affects="training")
    """Shape of the learning rate over the run."""
    cosine_min_lr_ratio: float | None = key(None, affects="training", ge=0, lt=1)
    """Let the cosine end at this share of the peak instead of 0."""
    warmup_steps: int | None = key(None, affects="training", unit="optimizer steps", ge=0)
    """Steps of linear warm-up; default 3 % of the run, at most 100 (lr_scheduler: constant has none)."""
    warmup_ratio: float | None = key(None, affects="training", ge=0, le=1)
    """Warm-up as a share of the run; excludes warmup_steps."""
    weight_decay: float = key(0.0, affects="training", ge=0)
    """Decoupled weight decay."""
    adam_beta1: float = key(0.9, affects="training", ge=0, lt=1)
    """Decay of the first moment (Adam, AdEMAMix, Lion)."""
    adam_beta2: float = key(0.999, affects="training", ge=0, lt=1)
    """Decay of the second moment (Adam, AdEMAMix), or of Lion's momentum."""
    adam_epsilon: float = key(1e-8, affects="training", gt=0)
    """Term that keeps the update finite (Adam, AdEMAMix)."""
    max_grad_norm: float = key(1.0, affects="training", ge=0)
    """Clip the gradient's norm to this; 0 does not clip."""
    neftune_noise_alpha: float | None = key(None, affects="training", gt=0)
    """Noise on the input embeddings (NEFTune)."""

    bf16: bool | Literal["auto"] = key("auto", affects="training")
    """bfloat16 mixed precision; auto takes it where the device has the units for it."""
    fp16: bool = key(False, affects="training")
    """float16 mixed precision with loss scaling (CUDA)."""
    tf32: bool = key(False, affects="training")
    """TensorFloat-32 matrix products in float32 code (CUDA)."""
    fp8: bool | Literal["rowwise", "tensorwise"] = key(False, affects="training")
    """8-bit products in the layers (CUDA 8.9 on, finetune[fp8]); true: rowwise, where samples stay isolated."""
    gradient_checkpointing: bool | Literal["auto"] = key(False, affects="nothing")
    """Recompute activations in the backward pass: less memory, a third more work; auto: where they do not fit."""
    gradient_checkpointing_kwargs: dict[str, Any] = key(dict, affects="training")
    """Arguments of torch.utils.checkpoint (all but context_fn); default use_reentrant: false."""
    torch_compile: bool | Literal["auto"] = key(False, affects="training")
    """Compile the decoder's layers (it needs a C++ compiler); auto: for 200 steps or more, on a CPU only in bf16."""

    logging_steps: int | None = key(None, affects="nothing", unit="optimizer steps", ge=1)
    """Steps between two log lines; default 0.5 % of the run, 1 to 10."""
    evals_per_epoch: int | None = key(None, affects="nothing", unit="per epoch", ge=1)
    """Evaluations per epoch, and one after the first step."""
    eval_steps: float | None = key(None, affects="nothing", unit="optimizer steps, or a share of the run below 1", gt=0)
    """Steps between evaluations; default one at each epoch's end."""
    eval_strategy: Literal["no", "steps", "epoch"] | None = key(None, affects="nothing")
    """When to evaluate: no, steps (with eval_steps), or epoch."""
    saves_per_epoch: int | None = key(None, affects="nothing", unit="per epoch", ge=1)
    """Checkpoints per epoch."""
    save_steps: float | None = key(None, affects="nothing", unit="optimizer steps, or a share of the run below 1", gt=0)
    """Steps between checkpoints; default one at each epoch's end."""
    save_strategy: Literal["no", "steps", "epoch", "best"] | None = key(None, affects="nothing")
    """When to save a checkpoint: no, steps (with save_steps), epoch, or best (each new best evaluation)."""
    save_total_limit: int = key(4, affects="nothing", unit="checkpoints", ge=1)
    """Checkpoints kept; older ones are removed."""
    early_stopping_patience: int | None = key(None, affects="training", unit="evaluations", ge=1)
    """Stop after this many evaluations without a new best."""
    load_best_model_at_end: bool = key(False, affects="training")
    """Finish with the weights of the best evaluation instead of the last step; each evaluation is saved for it."""
    metric_for_best_model: str = key("loss", affects="training")
    """Evaluation metric that best means; only loss is measured during training."""
    resume_from_checkpoint: str | None = key(None, affects="nothing")
    """Checkpoint folder to go on from: weights, optimizer, schedule and position in the data."""
    auto_resume_from_checkpoints: bool = key(False, affects="nothing")
    """Go on from the newest whole checkpoint in output_dir, if there is one."""
    eval_table_size: int = key(0, affects="nothing", unit="rows", ge=0)
    """Validation prompts answered before and after training, for samples.md and the card."""
    eval_max_new_tokens: int = key(128, affects="nothing", unit="tokens", ge=1)
    """Longest answer in the table of eval_table_size."""
    debug: bool = key(False, affects="nothing")
    """Show tracebacks and the messages of libraries; the same as --debug."""
    skip_checks: bool = key(False, affects="nothing")
    """Do not prove at the start what the run relies on; the same as --skip-checks."""
    strict: bool = key(False, affects="nothing")
    """Unknown keys are always refused, so both values mean the same."""

    @property
    def micro_batch_size_auto(self) -> bool:
        """Whether micro_batch_size is still to be decided, and gradient_accumulation_steps with it."""
        return self.micro_batch_size == AUTO

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _number_in_quotes(cls, value: object) -> object:
        """Take ``"5e-6"`` in quotes: YAML 1.1 tools forced people to write numbers so, and Axolotl takes it."""
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                return value
        return value

    @field_validator("eval_strategy", "save_strategy", mode="before")
    @classmethod
    def _no_is_a_word_here(cls, value: object) -> object:
        """Take a bare ``no``, which YAML 1.1 reads as false."""
        return "no" if value is False else value

    @field_validator("metric_for_best_model")
    @classmethod
    def _metric_is_known(cls, metric: str) -> str:
        if metric.removeprefix("eval_") != "loss":
            raise ValueError(f"{metric!r} is not measured during training; the metric is loss")
        return metric.removeprefix("eval_")

    @field_validator("gradient_checkpointing_kwargs")
    @classmethod
    def _checkpoint_arguments_exist(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            if name == "context_fn":
                raise ValueError("context_fn is a function, which a configuration cannot hold; take it out")
            if name not in _CHECKPOINT_ARGUMENTS:
                raise ValueError(
                    f"{name} is no argument of torch.utils.checkpoint.{nearest(name, _CHECKPOINT_ARGUMENTS)} "
                    f"Known are {', '.join(_CHECKPOINT_ARGUMENTS)}"
                )
        idle = [name for name in _CHECKPOINT_ARGUMENTS[2:] if name in arguments]
        if idle and arguments.get("use_reentrant"):
            raise ValueError(f"{', '.join(idle)} needs use_reentrant: false")
        return arguments

    @model_validator(mode="after")
    def _optimization_has_an_effect(self) -> "TrainingSection":
        """Refuse keys that the chosen optimizer or schedule does not read."""
        unread = ADAM_KEYS if self.optimizer in _WITHOUT_MOMENTS else ADAM_KEYS[2:] if "lion" in self.optimizer else ()
        idle = [name for name in self.changed_keys() if name in unread]
        if idle:
            raise ValueError(f"{', '.join(idle)}: no effect with optimizer: {self.optimizer}; take this out")
        warmup = "warmup_steps" if self.warmup_steps else "warmup_ratio"
        if self.lr_scheduler == "constant" and (self.warmup_steps or self.warmup_ratio):
            raise ValueError(
                f"{warmup}: no effect with lr_scheduler: constant; write lr_scheduler: constant_with_warmup"
            )
        return self

    @model_validator(mode="after")
    def _keys_agree(self) -> "TrainingSection":
        for first, second in (
            ("warmup_steps", "warmup_ratio"),
            ("evals_per_epoch", "eval_steps"),
            ("saves_per_epoch", "save_steps"),
        ):
            if first in self.model_fields_set and second in self.model_fields_set:
                raise ValueError(f"{first} and {second} exclude each other")
        if self.micro_batch_size_auto != (self.gradient_accumulation_steps == AUTO):
            raise ValueError(
                "gradient_accumulation_steps: micro_batch_size: auto decides it, so that batch_size is reached; leave "
                "it out"
            )
        if not self.micro_batch_size_auto and (
            self.batch_size != self.micro_batch_size * self.gradient_accumulation_steps
        ):
            raise ValueError(
                f"batch_size {self.batch_size} is not micro_batch_size {self.micro_batch_size} x "
                f"gradient_accumulation_steps {self.gradient_accumulation_steps}; leave one of the three out"
            )
        if self.cosine_min_lr_ratio is not None and self.lr_scheduler != "cosine":
            raise ValueError(f"cosine_min_lr_ratio needs lr_scheduler: cosine, not {self.lr_scheduler}")
        if self.lr_scheduler == "cosine_with_min_lr":
            raise ValueError("lr_scheduler: write cosine and cosine_min_lr_ratio instead of cosine_with_min_lr")
        if self.gradient_checkpointing_kwargs and not self.gradient_checkpointing:
            raise ValueError("gradient_checkpointing_kwargs needs gradient_checkpointing: true")
        if "eval_max_new_tokens" in self.changed_keys() and not self.eval_table_size:
            raise ValueError("eval_max_new_tokens: no effect without eval_table_size; set both or neither")
        return self

    @model_validator(mode="after")
    def _formats_agree(self) -> "TrainingSection":
        if self.bf16 is True and self.fp16:
            raise ValueError("bf16 and fp16 exclude each other")
        if self.fp8 and (self.fp16 or self.bf16 is False):
            given = "fp16: true" if self.fp16 else "bf16: false"
            raise ValueError(f"fp8 rounds bfloat16 to 8 bits, and {given} computes in another format; set bf16: true")
        return self

    @model_validator(mode="after")
    def _cadences_agree(self) -> "TrainingSection":
        for strategy, strategy_value, steps, per_epoch, steps_value, per_epoch_value in (
            (
                "eval_strategy",
                self.eval_strategy,
                "eval_steps",
                "evals_per_epoch",
                self.eval_steps,
                self.evals_per_epoch,
            ),
            (
                "save_strategy",
                self.save_strategy,
                "save_steps",
                "saves_per_epoch",
                self.save_steps,
                self.saves_per_epoch,
            ),
        ):
            if strategy_value == "steps" and steps_value is None and per_epoch_value is None:
                raise ValueError(f"{strategy}: steps needs {steps}")
            if strategy_value not in (None, "steps") and (steps_value is not None or per_epoch_value is not None):
                raise ValueError(f"{strategy}: {strategy_value} excludes {steps} and {per_epoch}")
        for name, value in (("eval_steps", self.eval_steps), ("save_steps", self.save_steps)):
            if value is not None and value >= 1 and value != int(value):
                raise ValueError(f"{name}: {value} is neither a whole number of steps nor a share below 1")
        return self

"""``torch_compile``: the layers of the decoder become compiled code, each by itself, for the time of the training.

The layers are alike, so one of them is compiled and the others use its code, which takes a fraction of what a whole
model takes.  Attention stays outside: its boundaries are other ones in each batch.  Checks, evaluations and samples
run uncompiled, for code made for their lengths would be used once.
"""

import importlib
import inspect
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.config.training import TrainingSection
from finetune.data.files import user_cache
from finetune.errors import HardwareError, ModelError
from finetune.model.precision import Precision
from finetune.model.segments import keep_from_compilation
from finetune.training.trainer import CausalTrainer

FEWEST_STEPS = 200
"""Steps below which compilation, which takes half a minute and more, would hardly be earned back."""
CACHE = "TORCHINDUCTOR_CACHE_DIR"


def refuse_compilation(training: TrainingSection, *, deepspeed: bool) -> None:
    """Refuse ``true`` where layers cannot be compiled.

    Raises:
        HardwareError: there is no C++ compiler, or it would not find Python's headers.
        ModelError: DeepSpeed hooks into each layer.
    """
    if training.torch_compile is not True:
        return
    if missing := _missing():
        raise HardwareError(f"torch_compile: true, but {missing}; install it, or use torch_compile: auto")
    if deepspeed:
        raise ModelError("torch_compile: true is not supported with deepspeed; use torch_compile: auto")


def _missing() -> str | None:
    """Name what compiling needs and this machine lacks."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        return f"there is no C++ compiler ({compiler})"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.is_file() else f"there is no {header} (Debian: the package python3-dev)"


@dataclass(frozen=True)
class Compilation:
    """What is compiled in a run, if anything."""

    on: bool
    note: str | None = None
    """What ``auto`` has decided, and why."""

    def callbacks(self, trainer: CausalTrainer, say: Callable[[str], None]) -> list[TrainerCallback]:
        """Return what compiles the layers of a training; it has to come after those that check the model."""
        return [CompileCallback(trainer, say)] if self.on else []

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say what to do where PyTorch cannot compile a layer.

        Raises:
            ModelError: it could not; every other exception goes through as it is.
        """
        try:
            yield
        except RuntimeError as error:
            if not self.on or not _is_from_compiler(error):
                raise
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ModelError(
                f"torch_compile: PyTorch {torch.__version__} cannot compile this model's layers here: {first[:300]}\n"
                "use torch_compile: false; nothing that was trained is lost but the steps since the last checkpoint"
            ) from error


def choose_compilation(
    training: TrainingSection, num_steps: int, precision: Precision, *, deepspeed: bool
) -> Compilation:
    """Decide whether to compile."""
    if training.torch_compile != "auto":
        return Compilation(training.torch_compile)
    plain = not torch.cuda.is_available() and precision.compute_dtype == torch.float32
    reasons = [
        "DeepSpeed hooks into each layer" if deepspeed else None,
        f"{num_steps:,} steps are fewer than {FEWEST_STEPS}" if num_steps < FEWEST_STEPS else None,
        "on a CPU it gains nothing in float32" if plain else None,
        _missing(),
    ]
    reason = next((words for words in reasons if words), None)
    return Compilation(reason is None, f"torch_compile: auto is {f'off: {reason}' if reason else 'on'}")


def _is_from_compiler(error: RuntimeError) -> bool:
    dynamo, inductor = (importlib.import_module(f"torch.{name}.exc") for name in ("_dynamo", "_inductor"))
    return isinstance(error, dynamo.TorchDynamoException | inductor.CppCompileError)


class CompileCallback(TrainerCallback):  # type: ignore[misc]
    """Compiles the layers when training begins, after all checks, and gives them back as they were at its end.

    Only ``forward`` of each layer is another for that time: names in checkpoints and results stay.
    """

    def __init__(self, trainer: CausalTrainer, say: Callable[[str], None]) -> None:
        self.trainer = trainer
        self.say = say
        self.layers: Sequence[torch.nn.Module] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        keep_compiled_code()
        keep_from_compilation()
        self.layers = list(decoder_layers(self.trainer.model))
        # packed batches have one length, and code for one length is faster than code for any
        constant = self.trainer.training_collator.collator.pad_to_sequence_len
        for layer in self.layers:
            layer.forward = _compile(layer, dynamic=None if constant else True)
        self.trainer.compiled = True
        self.say(f"torch_compile: {len(self.layers)} layers, while the first step is taken")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for layer in self.layers:
            del layer.forward
        self.layers, self.trainer.compiled = [], False


def _compile(layer: torch.nn.Module, *, dynamic: bool | None) -> Callable[..., Any]:
    """Return the compiled ``forward`` of a layer; where activations are recomputed, that stays around it.

    From transformers 5.20 on the layer's class wraps checkpointing around ``forward`` itself, and the compiler would
    silently leave a checkpoint with uncompiled attention inside as it is.
    """
    own = type(layer).forward
    inner = inspect.unwrap(own, stop=lambda function: "checkpointing" not in function.__code__.co_name)
    compiled: Callable[..., Any] = torch.compile(inner.__get__(layer), dynamic=dynamic)
    if inner is own:
        return compiled

    def forward(*args: Any, **kwargs: Any) -> Any:
        if layer.gradient_checkpointing and layer.training:
            checkpoint: Any = layer._gradient_checkpointing_func
            return checkpoint(partial(compiled, **kwargs), *args)
        return compiled(*args, **kwargs)

    return forward


def decoder_layers(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield the layers that the model's class names as those that must stay in one piece."""
    base = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    names = set(base._no_split_modules or ())
    yield from (module for module in base.modules() if type(module).__name__ in names)


def keep_compiled_code() -> None:
    """Keep compiled code in ``~/.cache/finetune/compiled``, unless TORCHINDUCTOR_CACHE_DIR names another place.

    PyTorch's own place is in the temporary folder, which others can write and a restart empties; importing
    bitsandbytes already sets the variable to it.
    """
    places = importlib.import_module("torch._inductor.runtime.cache_dir_utils")
    if os.environ.get(CACHE) in (None, places.default_cache_dir()):
        os.environ[CACHE] = str(user_cache("compiled"))

"""What to change when a run does not fit: each change tried by the estimator itself, the cheapest first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from finetune.config.adapter import AdapterSection
from finetune.config.model import ModelSection
from finetune.config.training import TrainingSection
from finetune.estimate.memory import Estimate, estimate
from finetune.estimate.setup import Setup

ZERO: dict[int, dict[str, Any]] = {
    2: {"zero_optimization": {"stage": 2, "reduce_bucket_size": 50_000_000, "allgather_bucket_size": 50_000_000}},
    3: {
        "zero_optimization": {
            "stage": 3,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
        }
    },
}
"""The sizes of the shipped files of each stage."""


@dataclass(frozen=True)
class Remedy:
    """A change, and what the run needs with it."""

    change: str
    """Keys as they are written in the YAML."""
    costs: str
    """What it costs, in a few words."""
    setup: Setup
    needed: Estimate

    @property
    def fits(self) -> bool:
        return self.needed.peak <= self.setup.device.usable_bytes


def find_remedies(setup: Setup) -> list[Remedy]:
    """Return the changes that make ``setup`` fit, the cheapest first.

    Changes that are enough by themselves, each an alternative; if there are none, a list to be made one after
    another, of which the last makes it fit, or all that there are.
    """
    alone = [Remedy(change, costs, changed, estimate(changed)) for change, costs, changed in _changes(setup)]
    enough = [remedy for remedy in alone if remedy.fits]
    return enough or _together(setup)


def _together(setup: Setup) -> list[Remedy]:
    """Make changes in turn, each upon those before, and leave out what gains nothing."""
    made: list[Remedy] = []
    peak = estimate(setup).peak
    for step in _STEPS:
        for change, costs, changed in step(setup):
            needed = estimate(changed)
            if needed.peak >= peak:
                continue
            made.append(Remedy(change, costs, changed, needed))
            setup, peak = changed, needed.peak
            if made[-1].fits:
                return made
    return made


Change = tuple[str, str, Setup]


def _changes(setup: Setup) -> Iterator[Change]:
    for step in _STEPS:
        yield from step(setup)


def _chunks(setup: Setup) -> Iterator[Change]:
    if setup.model.chunked_cross_entropy is False:
        model = setup.model.model_copy(update={"chunked_cross_entropy": None})
        yield "chunked_cross_entropy: true", "the same result", replace(setup, model=model)


def _smaller_batches(setup: Setup) -> Iterator[Change]:
    """Half the samples of a pass and twice the passes, as often as it goes; the largest that fits is offered."""
    training = setup.training
    micro, accumulation = training.micro_batch_size, training.gradient_accumulation_steps
    best: Change | None = None
    while micro % 2 == 0:
        micro, accumulation = micro // 2, accumulation * 2
        changed = replace(setup, training=split(training, micro))
        words = f"micro_batch_size: {micro}, gradient_accumulation_steps: {accumulation}"
        best = (words, "more, smaller passes; the same result", changed)
        if estimate(changed).peak <= setup.device.usable_bytes:
            break
    if best:
        yield best


def split(training: TrainingSection, micro: int) -> TrainingSection:
    """Return ``training`` with passes of ``micro`` samples and the same samples in an optimizer step."""
    assert training.batch_size % micro == 0, (training.batch_size, micro)
    return training.model_copy(
        update={"micro_batch_size": micro, "gradient_accumulation_steps": training.batch_size // micro}
    )


def _checkpointing(setup: Setup) -> Iterator[Change]:
    if setup.training.gradient_checkpointing is not True:
        training = setup.training.model_copy(update={"gradient_checkpointing": True})
        yield "gradient_checkpointing: true", "a third more time; the same result", replace(setup, training=training)


def _small_states(setup: Setup) -> Iterator[Change]:
    if setup.training.optimizer in ("adamw_torch", "adamw_torch_fused", "paged_adamw_32bit") and not setup.deepspeed:
        training = setup.training.model_copy(update={"optimizer": "adamw_8bit"})
        yield "optimizer: adamw_8bit", "nearly the same result", replace(setup, training=training)


def _zero(setup: Setup) -> Iterator[Change]:
    if setup.num_processes == 1 or setup.model.quantized:
        return
    stage = (setup.deepspeed or {}).get("zero_optimization", {}).get("stage", 0)
    for better in (2, 3):
        if better > stage:
            costs = "more traffic between the processes; the same result"
            yield f"deepspeed: zero{better}.json", costs, replace(setup, deepspeed=ZERO[better])


def _four_bits(setup: Setup) -> Iterator[Change]:
    if setup.adapter.adapter and not setup.model.load_in_4bit and not setup.deepspeed:
        model = setup.model.model_copy(update={"load_in_4bit": True, "load_in_8bit": False})
        yield "load_in_4bit: true", "a base of less precision: another result", replace(setup, model=model)


def _adapter(setup: Setup) -> Iterator[Change]:
    if setup.adapter.adapter:
        return
    adapter = AdapterSection(adapter="lora", lora_r=16, lora_target_linear=True)
    model: ModelSection = setup.model.model_copy(update={"unfrozen_parameters": []})
    words = "adapter: lora, lora_r: 16, lora_target_linear: true"
    yield words, "trains an adapter: another result", replace(setup, adapter=adapter, model=model)


def _shorter(setup: Setup) -> Iterator[Change]:
    half = setup.data.sequence_len // 2
    if half >= 512:
        data = setup.data.model_copy(update={"sequence_len": half})
        yield f"sequence_len: {half}", "longer samples are cut or dropped", replace(setup, data=data)


_STEPS: tuple[Callable[[Setup], Iterator[Change]], ...] = (
    _chunks,
    _smaller_batches,
    _checkpointing,
    _small_states,
    _zero,
    _four_bits,
    _adapter,
    _four_bits,
    _shorter,
)
"""From what costs least to what changes the result."""

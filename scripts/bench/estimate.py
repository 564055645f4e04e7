"""Compare ``finetune estimate`` with what torch really holds, on small models of every decoder that it knows.

    python scripts/bench/estimate.py [--model FOLDER] [--write]

Three quantities of one training step on the CPU, each against the formula: the bytes of the parameters, the bytes
that autograd saves in the forward pass (counted exactly, through its hooks), and the peak of all tensors over two
steps (from the events of torch's memory profiler).  ``--write`` replaces scripts/bench/ESTIMATE.md.
"""

import argparse
import gc
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

from finetune.config import load_config
from finetune.estimate.architecture import KNOWN
from finetune.estimate.ask import setup_of
from finetune.estimate.devices import Device
from finetune.estimate.memory import Setup, estimate
from finetune.model.attention import choose_attention
from finetune.model.base import find_base
from finetune.model.build import Hardware, TrainableModel, build_model
from finetune.model.precision import choose_precision
from finetune.model.tokenizer import load_tokenizer

HERE = Path(__file__).parent
RESULTS = HERE / "ESTIMATE.md"
CPU = Device("this machine", "cpu", 64 * 2**30)
FULL: dict[str, Any] = {}
LORA = {"adapter": "lora", "lora_target_linear": True, "lora_r": 8}


@dataclass(frozen=True)
class Compared:
    """A measured size and its estimate, in bytes."""

    what: str
    measured: int
    estimated: int

    @property
    def error(self) -> float:
        return self.estimated / self.measured - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a real model beside the small ones")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    rows = []
    for name, keys in cases(options.model):
        rows += [(name, comparison) for comparison in compare(keys)]
        gc.collect()
    text = render(rows)
    sys.stdout.write(text)
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")


def cases(model: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and the keys of each run."""
    with tempfile.TemporaryDirectory() as folder:
        for family in KNOWN:
            base = {"base_model": str(save_small(family, Path(folder) / family)), "sequence_len": 256}
            yield from _variants(family, base)
        if model:
            yield from _variants(model.name, {"base_model": str(model), "sequence_len": 256, "micro_batch_size": 1})


def _variants(name: str, base: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for method, keys in (("full", FULL), ("LoRA", LORA)):
        for bf16 in (False, True):
            for checkpointing in (False, True):
                words = [name, method, "bf16" if bf16 else "fp32", *(["checkpointing"] if checkpointing else [])]
                extra = {"bf16": bf16, "gradient_checkpointing": checkpointing}
                yield ", ".join(words), {"micro_batch_size": 2, **base, **keys, **extra}


def save_small(family: str, folder: Path) -> Path:
    """Save a random decoder of ``family``, four layers of width 256, without its tokenizer's training."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.estimate.models import save_family  # noqa: PLC0415 - the tests know how to make models

    save_family(
        family, folder, hidden_size=256, intermediate_size=640, num_hidden_layers=4, head_dim=64, vocab_size=2048
    )
    return folder


def compare(keys: dict[str, Any]) -> Iterator[Compared]:
    """Build the model of ``keys``, take two steps, and compare."""
    setup, trainable = build(keys)
    expected = estimate(setup)
    model = trainable.model
    batch = make_batch(setup, model)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    names = ("weights", "adapter")
    yield Compared("weights", weights, sum(part.device for part in expected.parts if part.name in names))
    measured = saved_bytes(trainable, batch)
    copies = "16-bit copies of trained weights"
    checkpointing = setup.training.gradient_checkpointing is True
    kept = ("activations",) if checkpointing else ("activations", copies)
    yield Compared("saved for backward", measured, sum(p.device for p in expected.parts if p.name in kept))
    own = setup.device.own_bytes
    yield Compared("peak of a step", peak_bytes(trainable, batch) + weights, expected.peak - own)


def build(keys: dict[str, Any]) -> tuple[Setup, TrainableModel]:
    """Return what the estimator sees of a configuration, and the model that training would have."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yml"
        needed = {"learning_rate": 1e-4, "datasets": [{"path": "rows.jsonl", "type": "alpaca"}]}
        file.write_text(yaml.safe_dump({**needed, **keys}), encoding="utf-8")
        config = load_config(file)
    base = find_base(config.model)
    precision = choose_precision(config.training)
    hardware = Hardware(precision, choose_attention(config.model, precision))
    torch.manual_seed(0)
    loaded = load_tokenizer(config.model, base)
    trainable = build_model(config.model, config.adapter, base, hardware, loaded, lambda _: None)
    if config.training.gradient_checkpointing:
        trainable.model.gradient_checkpointing_enable({"use_reentrant": False})
        trainable.model.enable_input_require_grads() if config.adapter.adapter else None
    return replace(setup_of(config, None, 1), device=CPU), trainable


def make_batch(setup: Setup, model: Any) -> dict[str, Any]:
    """Return a batch of full rows, every token trained."""
    shape = (setup.training.micro_batch_size, setup.data.sequence_len)
    ids = torch.randint(0, setup.base.architecture.vocab_size, shape)
    return {"input_ids": ids, "use_cache": False}


def saved_bytes(trainable: TrainableModel, batch: dict[str, Any]) -> int:
    """Return the bytes that autograd keeps after the layers' forward pass; parameters and the head left out."""
    model = trainable.model
    decoder = model.get_decoder()
    known = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    for parameter in model.parameters():
        state = vars(parameter).get("quant_state")
        known |= {state.absmax.untyped_storage().data_ptr()} if state is not None else set()
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), trainable.hardware.precision.autocast():
        outcome = decoder(**batch)
    total = sum(storage.nbytes() for storage in storages.values())
    del outcome
    return total


def peak_bytes(trainable: TrainableModel, batch: dict[str, Any]) -> int:
    """Return the most that two training steps hold beyond the weights."""
    model = trainable.model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)

    def step() -> None:
        with trainable.hardware.precision.autocast():
            loss = model(**batch, labels=batch["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _profiled_peak(lambda: [step() for _ in range(2)])


def _profiled_peak(work: Callable[[], object]) -> int:
    """Add the allocations and releases of torch's allocator up in time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def render(rows: list[tuple[str, Compared]]) -> str:
    """Return the results as Markdown."""
    quantities = ("weights", "saved for backward", "peak of a step")
    lines = [
        "# `finetune estimate` against what torch holds",
        "",
        f"`python scripts/bench/estimate.py`, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}, CPU. Error = estimate / measured - 1; positive is too much.",
        "",
    ]
    for quantity in quantities:
        errors = [abs(c.error) for _, c in rows if c.what == quantity]
        lines.append(f"- {quantity}: mean error {sum(errors) / len(errors):.2%}, largest {max(errors):.2%}")
    lines += ["", "| run | weights | saved for backward, MB | error | peak of a step, MB | error |"]
    lines.append("|---|---|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in rows):
        found = {c.what: c for other, c in rows if other == name}
        weights, saved, peak = (found[quantity] for quantity in quantities)
        exact = "exact" if weights.measured == weights.estimated else f"{weights.error:+.2%}"
        numbers = f"{saved.measured / 1e6:,.1f} | {saved.error:+.1%} | {peak.measured / 1e6:,.1f} | {peak.error:+.1%}"
        lines.append(f"| {name} | {exact} | {numbers} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

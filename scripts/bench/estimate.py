"""Compare ``finetune estimate`` with what torch really holds, on small models of every decoder that it knows.

    python scripts/bench/estimate.py [--model FOLDER] [--write]

Three quantities of a training step on the CPU as a run takes it (its attention, packed rows of several samples without
padding, the loss made in chunks inside the output layer), each against the formula: the bytes of the parameters, the
bytes that autograd saves in the forward pass (counted exactly, through its hooks), and the peak of all tensors over two
steps (from the events of torch's memory profiler).  ``--model`` takes a real one instead.  ``--write`` puts the table
into scripts/bench/ESTIMATE.md.
"""

import argparse
import gc
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from results import machine, table, write_section

from finetune.config import load_config
from finetune.data.collate import PackedCollator, SupervisedCollator
from finetune.estimate.architecture import KNOWN
from finetune.estimate.ask import setup_of
from finetune.estimate.devices import Device
from finetune.estimate.memory import estimate
from finetune.estimate.setup import Setup
from finetune.model.attention import choose_attention
from finetune.model.base import find_base
from finetune.model.build import Hardware, TrainableModel, build_model
from finetune.model.head import split_batch
from finetune.model.precision import choose_precision
from finetune.model.tokenizer import load_tokenizer

HERE = Path(__file__).parent
RESULTS = HERE / "ESTIMATE.md"
CPU = Device("this machine", "cpu", 64 * 2**30)
REMARKS = """Rows of 1,024 tokens, packed with samples of 512 where nothing else is said: in bfloat16 on a CPU these
take the most, and the estimate, which does not read the data, allows for them. With shorter samples it is too much.
With checkpointing, autograd's hooks do not see the rotary table, which is kept all the same."""
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


@dataclass(frozen=True)
class Case:
    """One configuration, and the samples that its rows are packed with."""

    name: str
    keys: dict[str, Any]
    sample_len: int = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a real model in place of the small ones")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rows, context = [], multiprocessing.get_context("spawn")
    each = 1 if options.model else 8  # a process gives its memory back when it ends, and the profiler not before
    with (
        tempfile.TemporaryDirectory() as folder,
        context.Pool(1 if options.model else 2, maxtasksperchild=each) as pool,
    ):
        cases = list(real_cases(options.model) if options.model else small_cases(Path(folder)))
        for case, found in zip(cases, pool.imap(compare, cases), strict=True):
            rows.append((case.name, found))
            print(case.name, *(f"{c.what} {c.error:+.1%}" for c in found), sep=", ", file=sys.stderr, flush=True)
    text = render(rows)
    sys.stdout.write(text)
    if options.write:
        write_section(options.model.name if options.model else "Small models of every kind", text, RESULTS)


PACKED = {"sequence_len": 1024, "sample_packing": True, "micro_batch_size": 1}


def small_cases(folder: Path) -> Iterator[Case]:
    """Yield runs of every known decoder, saved in ``folder``, and of one of them with other batches."""
    for family in KNOWN:
        base = {"base_model": str(save_small(family, folder / family)), **PACKED}
        yield from _variants(family, base)
        if family == "llama":
            yield from _other_batches(base)


def real_cases(model: Path) -> Iterator[Case]:
    """Yield runs of the model in a folder."""
    yield from _variants(model.name, {"base_model": str(model), **PACKED})


def _variants(name: str, base: dict[str, Any]) -> Iterator[Case]:
    for method, keys in (("full", FULL), ("LoRA", LORA)):
        for bf16 in (False, True):
            for checkpointing in (False, True):
                words = [name, method, "bf16" if bf16 else "fp32", *(["checkpointing"] if checkpointing else [])]
                extra = {"bf16": bf16, "gradient_checkpointing": checkpointing}
                yield Case(", ".join(words), {**base, **keys, **extra})


def _other_batches(base: dict[str, Any]) -> Iterator[Case]:
    """Yield batches of other shapes, and other attention."""
    rows = {"sample_packing": False, "sequence_len": 256, "micro_batch_size": 4}
    for bf16 in (False, True):
        name = f"llama, LoRA, {'bf16' if bf16 else 'fp32'}"
        keys = {**base, **LORA, "bf16": bf16}
        yield Case(f"{name}, 4 rows of 256 not packed", {**keys, **rows}, 256)
        yield Case(f"{name}, one sample of 1,024", {**keys, "sample_packing": False}, 1024)
        yield Case(f"{name}, packs of samples of 128", keys, 128)
        yield Case(f"{name}, sdp_attention", {**keys, "sdp_attention": True})
        yield Case(f"{name}, chunked_cross_entropy: false", {**keys, "chunked_cross_entropy": False})


def save_small(family: str, folder: Path) -> Path:
    """Save a random decoder of ``family``, four layers of width 256, without its tokenizer's training."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.estimate.models import save_family  # noqa: PLC0415 - the tests know how to make models

    save_family(
        family, folder, hidden_size=256, intermediate_size=640, num_hidden_layers=4, head_dim=64, vocab_size=2048
    )
    return folder


def apart(work: Callable[[Case], Any], case: Case) -> Any:
    """Do ``work`` in a new process, which gives all of its memory back."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, case).result()


def compare(case: Case) -> list[Compared]:
    """Build the model, take two steps, and compare."""
    setup, trainable = build(case.keys)
    expected = estimate(setup)
    model = trainable.model
    batch = make_batch(setup, trainable, case.sample_len)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    of_weights = sum(part.device for part in expected.parts if part.name in ("weights", "adapter"))
    kept = ["activations"] if setup.checkpoints else ["activations", "16-bit copies of trained weights"]
    saved = saved_bytes(trainable, batch)
    return [
        Compared("weights", weights, of_weights),
        Compared("saved for backward", saved, sum(p.device for p in expected.parts if p.name in kept)),
        Compared("peak of a step", peak_bytes(trainable, batch) + weights, expected.peak - setup.device.own_bytes),
    ]


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


def make_batch(setup: Setup, trainable: TrainableModel, sample_len: int, trained: float = 1.0) -> dict[str, Any]:
    """Return full rows of samples of ``sample_len`` tokens, as the run's own collator makes them.

    The last ``trained`` share of each is trained.
    """
    length, vocab_size = setup.data.sequence_len, setup.base.architecture.vocab_size
    generator = np.random.default_rng(0)

    def sample(num_tokens: int) -> dict[str, Any]:
        ids = generator.integers(0, vocab_size, num_tokens).astype(np.int32)
        is_prompt = np.arange(num_tokens) < num_tokens - round(trained * num_tokens)
        return {"input_ids": ids, "labels": np.where(is_prompt, -100, ids)}

    sizes = [min(sample_len, length - start) for start in range(0, length, sample_len)]
    bins = [[sample(size) for size in sizes] for _ in range(setup.training.micro_batch_size)]
    flatten = trainable.hardware.attention.flatten
    batch: dict[str, Any] = SupervisedCollator(PackedCollator(0, length, flatten=flatten))(bins)
    return batch


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
    inputs, _ = split_batch(batch)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), trainable.hardware.precision.autocast():
        outcome = decoder(**inputs)
    total = sum(storage.nbytes() for storage in storages.values())
    del outcome
    return total


def peak_bytes(trainable: TrainableModel, batch: dict[str, Any]) -> int:
    """Return the most that two training steps hold beyond the weights."""
    step = make_step(trainable, batch)
    gc.collect()
    return _profiled_peak(lambda: [step() for _ in range(2)])


def make_step(trainable: TrainableModel, batch: dict[str, Any]) -> Callable[[], None]:
    """Return what takes an optimizer step; where the output layer gives no losses, from the model's own logits."""
    model, head = trainable.model, trainable.head
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    num_items = len(batch["trained_targets"])
    own = {name: value for name, value in batch.items() if not name.startswith("trained_")}
    model.train()

    def step() -> None:
        with trainable.hardware.precision.autocast():
            loss = head.loss_sum(model, batch) / num_items if head else model(**own, num_items_in_batch=num_items).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


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


def render(rows: list[tuple[str, list[Compared]]]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"{machine()}; torch {torch.__version__}, transformers {transformers.__version__}. "
        "Error = estimate / measured - 1; positive is too much.",
        "",
    ]
    for index, quantity in enumerate(("weights", "saved for backward", "peak of a step")):
        errors = [abs(found[index].error) for _, found in rows]
        lines.append(f"- {quantity}: mean error {sum(errors) / len(errors):.2%}, largest {max(errors):.2%}")
    header = ["run", "weights", "saved for backward, MB", "error", "peak of a step, MB", "error"]
    body = []
    for name, (weights, *others) in rows:
        exact = "exact" if weights.measured == weights.estimated else f"{weights.error:+.2%}"
        numbers = [text for c in others for text in (f"{c.measured / 1e6:,.1f}", f"{c.error:+.1%}")]
        body.append([name, exact, *numbers])
    return "\n".join([*lines, "", REMARKS, "", table(header, body)]) + "\n"


if __name__ == "__main__":
    main()

"""Defaults that depend on other keys.  The one place where a key's value is computed from another's."""

from pathlib import Path
from typing import Any

from finetune.config.batch import fill_auto
from finetune.config.stream import as_datasets, as_entries


def fill_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` with the dependent keys filled in.

    ======================================  ==========================================================
    micro_batch_size,                       any two give the third; what is missing else is 1
    gradient_accumulation_steps, batch_size
    gradient_accumulation_steps             auto with micro_batch_size: auto
    eval_batch_size                         micro_batch_size; 1 with auto, and then what was decided
    eval_sample_packing                     sample_packing
    pad_to_sequence_len                     sample_packing (packed shapes are constant)
    datasets, with pretraining_dataset      the same texts with type: completion
    sample_packing, with pretraining_dataset  true
    streaming                               true with pretraining_dataset
    folders that begin with ~               the same in the home folder
    ======================================  ==========================================================
    """
    filled = dict(values)
    if filled.get("micro_batch_size") == "auto":
        fill_auto(filled)
    else:
        _fill_batch(filled)
    if "pretraining_dataset" in filled:
        filled["pretraining_dataset"] = as_entries(filled["pretraining_dataset"])
        filled.setdefault("datasets", as_datasets(filled["pretraining_dataset"]))
        filled.setdefault("sample_packing", True)
    filled.setdefault("streaming", "pretraining_dataset" in filled)
    packing = filled.get("sample_packing") is True
    filled.setdefault("eval_sample_packing", packing)
    filled.setdefault("pad_to_sequence_len", packing)
    for name in ("output_dir", "dataset_prepared_path", "lora_model_dir", "resume_from_checkpoint"):
        path = filled.get(name)
        if isinstance(path, str) and path.startswith("~"):
            filled[name] = str(Path(path).expanduser())
    return filled


def _fill_batch(filled: dict[str, Any]) -> None:
    if filled.get("gradient_accumulation_steps") == "auto":
        del filled["gradient_accumulation_steps"]
    micro, accumulation, total = (
        _positive_int(filled.get(name)) for name in ("micro_batch_size", "gradient_accumulation_steps", "batch_size")
    )
    if micro is None:
        micro = max(total // (accumulation or 1), 1) if total else 1
    if accumulation is None:
        accumulation = max(total // micro, 1) if total else 1
    filled.setdefault("micro_batch_size", micro)
    filled.setdefault("gradient_accumulation_steps", accumulation)
    filled.setdefault("batch_size", micro * accumulation)
    filled.setdefault("eval_batch_size", micro)


def _positive_int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

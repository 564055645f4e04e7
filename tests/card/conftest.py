"""The facts of the formula seed's run, with the numbers that its published card shows."""

import pytest

from finetune.card.facts import (
    CardFacts,
    DatasetName,
    DataSummary,
    Hyperparameters,
    ParameterSummary,
    SampleChange,
    describe_optimizer,
)


@pytest.fixture
def formula_facts() -> CardFacts:
    evaluations = [
        (0.05, 1, 3.86591),
        (0.25, 5, 3.63174),
        (0.5, 10, 2.67351),
        (0.75, 15, 1.75702),
        (1.0, 20, 1.61434),
    ]
    return CardFacts(
        title="formula_llama_3_1_8b_4bits_r4",
        base_model="meta-llama/Llama-3.1-8B-Instruct",
        is_local_base=False,
        datasets=(DatasetName(name="/srv/private/train/formula_train.jsonl", on_hub=False),),
        library_name="peft",
        license="llama3.1",
        languages=("en",),
        yaml_text="base_model: meta-llama/Llama-3.1-8B-Instruct\nadapter: lora  # r 4\nlora_r: 4\n",
        overrides="output_dir: formula_llama_3_1_8b_4bits_r4\n",
        finetune_version="0.1.0",
        hyperparameters=Hyperparameters(
            learning_rate=0.0001,
            train_batch_size=4,
            eval_batch_size=4,
            seed=42,
            distributed_type="multi-GPU",
            num_devices=5,
            gradient_accumulation_steps=2,
            optimizer=describe_optimizer("OptimizerNames.ADAMW_TORCH_FUSED", (0.9, 0.999), 1e-8),
            lr_scheduler_type="cosine",
            warmup_steps=10,
            num_epochs=1.0,
        ),
        framework_versions=(
            ("PEFT", "0.15.2"),
            ("Transformers", "4.51.3"),
            ("Pytorch", "2.8.0.dev20250319+cu128"),
            ("Datasets", "3.5.1"),
            ("Tokenizers", "0.21.1"),
        ),
        log_history=(
            *({"eval_loss": loss, "epoch": epoch, "step": step} for epoch, step, loss in evaluations),
            {"train_runtime": 61.5, "train_loss": 2.7, "epoch": 1.0, "step": 20},
        ),
        eval_results={"loss": 1.61434},
        data=DataSummary(
            rows_read=803,
            rows_kept=800,
            rows_dropped={"longer than sequence_len": 2, "empty": 1, "shorter than min_sample_len": 0},
            eval_rows=16,
            num_tokens=91234,
            num_trained_tokens=12345,
            sequence_len=4096,
        ),
        parameters=ParameterSummary(
            total=8_032_620_544, trained=2_359_296, method="LoRA adapter (r 4, alpha 16) on 4-bit NF4 weights"
        ),
        samples=(SampleChange(prompt="What is 2 * 3?", before="I think\nfive.", after="6"),),
        plot_file="loss.png",
    )

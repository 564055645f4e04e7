"""unfrozen_parameters: selection, ranges, and the real list on the real names."""

import pytest
import torch
from tests.conftest import SHARED, needs_shared
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.config import load_config
from finetune.errors import ConfigError, HealthError
from finetune.model.freeze import FrozenRows, cast_frozen, unfreeze
from finetune.model.stored import StoredFormat
from finetune.model.summary import summarize_parameters


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=12, num_attention_heads=2)
    )


def trained(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_patterns_are_searched_and_everything_else_is_frozen(model: LlamaForCausalLM) -> None:
    unfrozen = unfreeze(model, ["model.norm", "layers.1.mlp.up_proj", r"layers\.[23]\.self_attn\.q_proj"])

    assert trained(model) == [
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.2.self_attn.q_proj.weight",
        "model.layers.3.self_attn.q_proj.weight",
        "model.norm.weight",
    ]
    assert [(match.num_tensors, match.num_parameters) for match in unfrozen.matches] == [(1, 8), (1, 64), (2, 128)]


def test_a_dollar_sign_and_a_caret_anchor(model: LlamaForCausalLM) -> None:
    unfreeze(model, ["^lm_head.weight$"])

    assert trained(model) == ["lm_head.weight"]


def test_a_pattern_that_matches_nothing_is_a_warning_with_the_nearest_name(model: LlamaForCausalLM) -> None:
    unfrozen = unfreeze(model, ["model.norm", "mlp.upproj"])

    assert unfrozen.warnings == ("unfrozen_parameters: 'mlp.upproj' matches no parameter. Did you mean 'up_proj'?",)


def test_patterns_that_all_match_nothing_are_an_error(model: LlamaForCausalLM) -> None:
    with pytest.raises(HealthError, match="no pattern matches a parameter, so nothing would be trained"):
        unfreeze(model, ["nothing", "no_thing"])


def step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> None:
    ids = torch.arange(20).unsqueeze(0)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(
    ("suffix", "rows"), [("[:5]", range(5)), ("[5:]", range(5, 20)), ("[3:7]", range(3, 7)), ("[4:5]", range(4, 5))]
)
def test_rows_outside_a_range_stay_bit_identical_under_weight_decay(
    model: LlamaForCausalLM, suffix: str, rows: range
) -> None:
    unfrozen = unfreeze(model, [f"^model.embed_tokens.weight${suffix}"])
    weight = model.get_input_embeddings().weight
    before = weight.detach().clone()
    keeper = FrozenRows(model, unfrozen.ranges)
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.5)

    for _ in range(3):
        step(model, optimizer)
        keeper.restore()

    moved = [row for row in range(20) if not torch.equal(weight[row], before[row])]
    assert moved == list(rows)
    assert unfrozen.matches[0].num_parameters == len(rows) * 8


def test_the_gradient_outside_a_range_is_zero(model: LlamaForCausalLM) -> None:
    unfreeze(model, ["^model.embed_tokens.weight$[3:7]"])
    ids = torch.arange(20).unsqueeze(0)
    model(input_ids=ids, labels=ids).loss.backward()

    gradient = model.get_input_embeddings().weight.grad
    assert gradient is not None
    assert gradient[3:7].abs().min() > 0
    assert gradient[:3].abs().max() == gradient[7:].abs().max() == 0


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["embed_tokens.weight$[30:40]"], r"has rows 0 to 20, and \[30:40\] is not a range of them"),
        (["embed_tokens.weight$[7:3]"], r"\[7:3\] is not a range of them"),
        (["embed_tokens.weight$[:3]", "embed_tokens.weight$[10:]"], r"leave a gap \(3 to 10\); give one range"),
    ],
)
def test_a_range_that_cannot_be_is_refused(model: LlamaForCausalLM, patterns: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        unfreeze(model, patterns)


def test_a_tensor_taken_whole_and_in_part_is_taken_whole(model: LlamaForCausalLM) -> None:
    assert unfreeze(model, ["embed_tokens[:3]", "embed_tokens"]).ranges == ()


def test_frozen_weights_are_held_in_their_stored_format(model: LlamaForCausalLM) -> None:
    unfreeze(model, ["model.norm"])
    names = {name: torch.float32 for name, _ in model.named_parameters() if "layernorm" in name}
    cast_frozen(model, StoredFormat(torch.bfloat16, names))

    wide = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
    assert wide == {"model.norm.weight", *names}


@needs_shared
def test_the_dolphin_list_selects_179_tensors_of_the_8b_architecture() -> None:
    patterns = load_config(SHARED / "seeds" / "dolphin-2.9.4-llama3.1-8b.yml").model.unfrozen_parameters
    with torch.device("meta"):
        llama = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=128256,
                hidden_size=4096,
                intermediate_size=14336,
                num_hidden_layers=32,
                num_attention_heads=32,
                num_key_value_heads=8,
                tie_word_embeddings=False,
            )
        )

    unfrozen = unfreeze(llama, patterns)
    summary = summarize_parameters(llama)

    assert len(patterns) == 118
    assert sum(group.num_tensors for group in summary.groups if group.trained) == 179
    assert (summary.num_trained, summary.num_parameters) == (4_540_600_320, 8_030_261_248)
    assert [match.pattern for match in unfrozen.matches if not match.num_tensors] == ["self_attn.rotary_emb"]

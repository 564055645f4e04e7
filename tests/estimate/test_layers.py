"""What of each layer trains."""

from tests.estimate.test_flops import LLAMA_8B

from finetune.estimate.architecture import read_architecture
from finetune.estimate.holding import Held
from finetune.estimate.layers import plan_layers

SMALL = read_architecture({**LLAMA_8B, "num_hidden_layers": 3}, "small")


def held(name: str, *shape: int) -> Held:
    return Held(name, shape, 4, trained=True)


def test_layers_below_the_lowest_trained_one_are_not_reached() -> None:
    plans = plan_layers(SMALL, [held("model.layers.1.mlp.up_proj.weight", 14336, 4096)], adapter=False)
    assert [plan.reached for plan in plans] == [False, True, True]
    assert [sorted(plan.inputs) for plan in plans] == [[], ["up_proj"], []]
    assert [plan.copied for plan in plans] == [0, 14336 * 4096, 0]


def test_a_trained_embedding_reaches_every_layer() -> None:
    embedding = Held("model.embed_tokens.weight", (128, 4096), 4, trained=True, is_embedding=True)
    assert all(plan.reached for plan in plan_layers(SMALL, [embedding], adapter=False))


def test_a_trained_head_reaches_none() -> None:
    assert not any(plan.reached for plan in plan_layers(SMALL, [held("lm_head.weight", 128, 4096)], adapter=False))


def test_adapters_and_norms_are_told_apart() -> None:
    lora = [held("model.layers.2.self_attn.q_proj.lora_A", 16, 4096)]
    norm = [held("model.layers.2.input_layernorm.weight", 4096)]
    adapted, trained = (plan_layers(SMALL, t, adapter=a)[2] for t, a in ((lora, True), (norm, False)))
    assert (adapted.ranks, adapted.norms) == ((("q_proj", 16),), False)
    assert (trained.ranks, trained.norms) == ((), True)


def test_weights_that_are_in_the_compute_format_are_not_copied() -> None:
    tensors = [held("model.layers.1.mlp.up_proj.weight", 14336, 4096)]
    assert not any(plan.copied for plan in plan_layers(SMALL, tensors, adapter=False, has_copies=False))

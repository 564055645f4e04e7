"""What a saved model does when it generates: where it begins and where it stops."""

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def align_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the model's configuration the tokenizer's begin, end and padding tokens.

    A model that was trained to end with a new token would otherwise never stop at it.  Further end tokens of the
    base, such as those of an instruct model, stay.
    """
    generation = model.generation_config
    base_ends = generation.eos_token_id if generation.eos_token_id is not None else model.config.eos_token_id
    known = base_ends if isinstance(base_ends, list) else [base_ends]
    ends = list(dict.fromkeys([tokenizer.eos_token_id, *(end for end in known if end is not None)]))
    generation.eos_token_id = ends if len(ends) > 1 else ends[0]
    for config in (model.config, generation):
        config.bos_token_id = tokenizer.bos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id

"""Axolotl's formats that are not here, each with what to write instead."""

MAPPING = "a mapping under type: (field_instruction, field_output, format, …) writes the same prompt"
CHAT = "type: chat_template with field_messages, message_property_mappings and roles"
PREFERENCE = "keep the chosen answers and use type: chat_template; preferences are not trained here"

FOREIGN: dict[str, str] = {
    "explainchoice": MAPPING,
    "concisechoice": MAPPING,
    "jeopardy": MAPPING,
    "reflection": MAPPING,
    "context_qa": MAPPING,
    "creative_acr": MAPPING,
    "orcamini": MAPPING,
    "metharme": MAPPING,
    "pygmalion": CHAT,
    "llama2_chat": CHAT,
    "messages": CHAT,
    "sharegpt_simple": "type: sharegpt with conversation: chatml or llama3",
    "pretrain": "type: completion",
    "stepwise_supervised": "reward models are not trained here",
    "bradley_terry": "reward models are not trained here",
    "dpo": PREFERENCE,
    "ipo": PREFERENCE,
    "orpo": PREFERENCE,
    "kto": PREFERENCE,
    "ebft": PREFERENCE,
    "_synthetic": "write the rows to a file and name its format",
}
"""The part of a type before its first '.' or ':', to advice."""

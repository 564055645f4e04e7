"""Weights ready to train: tokenizer, loading, quantization, adapters, freezing, merging."""

"""DeepSpeed's files."""

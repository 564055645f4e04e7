"""``python -m finetune`` is the ``finetune`` command."""

from finetune.cli import command

if __name__ == "__main__":
    command()

"""Fine-tune language models from one YAML file.

The flow, and the package that owns each step::

    config ──▶ data ──▶ model ──▶ training ──▶ card
     YAML      rows      weights    HF Trainer    README.md

``finetune.train.run`` tells the whole story in one function.  Importing this module imports nothing
heavy: torch and transformers load when a command needs them.
"""

__version__ = "0.1.0"

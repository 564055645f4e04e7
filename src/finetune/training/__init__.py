"""The HF Trainer, wrapped thinly: arguments, cadence, callbacks, checkpoints."""

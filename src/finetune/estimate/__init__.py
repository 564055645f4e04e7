"""What a run will need, computed before anything is loaded: memory by part and device, and floating point operations.

Nothing here imports torch.  Sizes come from ``config.json`` and the headers of the weights' files.
"""

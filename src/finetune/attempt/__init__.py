"""One start of a run: the signals that ask it to end, and ``run.json``, which says how it stands.

Nothing heavy is imported here: a signal may come while torch is still being loaded.
"""

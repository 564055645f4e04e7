"""Checkpoints that a kill, a full disk or a flipped bit cannot turn into a lost run.

A checkpoint is written beside its place, sealed, and named by one rename::

    .staging-120-<run>  ──▶  check ──▶ seal (SHA-256, fsync) ──▶ manifest.json ──▶ checkpoint-120
      every process            main        every process              main             main

``manifest`` is the record of what is in a folder, ``publish`` the way of a checkpoint to its name, ``final`` that of
the result, ``find`` the choice of the one to go on from, ``rotation`` the removal of old ones, ``run`` whose folder
it is, ``links`` the names ``latest`` and ``best``, ``space`` the room on the disk, ``shards`` DeepSpeed's files, and
``unpickled`` the guard of everything that is read back.
"""

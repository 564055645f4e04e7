"""The acceptance matrix of ``shared/reference/reliability.md``: one function for each row, which returns what it saw."""

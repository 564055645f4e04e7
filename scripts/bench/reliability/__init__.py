"""The acceptance matrix of ``shared/reference/reliability.md``: one function for each row, returning what it saw."""

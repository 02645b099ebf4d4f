"""Rows and columns of patches."""

Grid = tuple[int, int]

"""Everything that needs a GPU, in one call of a few minutes, in order of worth."""

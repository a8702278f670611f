"""The pages that a run and a search leave."""

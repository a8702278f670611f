"""From images, a model and a recipe to a run folder."""

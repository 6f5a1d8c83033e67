"""From a recipe to a finished run's folder."""

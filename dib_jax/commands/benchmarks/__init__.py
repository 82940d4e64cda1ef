"""What `experiments.benchmark` measures: a module each, and what they share."""

"""Local losses: what a stage is trained on."""

"""What the networks are trained towards.

Each adversarial objective is a file of its own, and an entry in `rnngan.objectives.registry`.
"""

"""Evaluation under attack: recipes, resources, the attack on each row, and records."""

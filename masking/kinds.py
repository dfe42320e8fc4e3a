"""Kinds of score files. Without torch, for what reads records alone."""

# Kinds whose scores are learned hard-concrete gates (log alpha).
GATE_KINDS = ("robust", "no_adversary")

"""Kinds of score files. Does not import torch, so that programs that read records start fast."""

# Kinds whose scores are learned hard-concrete gates (log alpha).
GATE_KINDS = ("robust", "no_adversary")

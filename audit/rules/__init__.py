"""Rules: pure functions of facts, one module per subject."""

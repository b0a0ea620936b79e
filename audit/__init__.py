"""The auditor: from a target to facts, from facts to findings, from findings to a verdict."""

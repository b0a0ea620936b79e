"""An attack path as a graph: facts, the step that they make possible together, and its effect."""

from typing import Any

from stockade.audit.report import Path


def of(path: Path) -> dict[str, Any]:
    """Give the nodes and edges of a path as plain data.

    A node has an id that is unique in the graph, a kind ("target", "fact", "step", "effect") and a text; the fact that
    the fix takes away is marked `breaks`. Facts are a conjunction: each has an edge to the step, and taking one of them
    away takes the step away.
    """
    facts = [
        {"id": f"fact-{number}", "kind": "fact", "text": line, "breaks": line == path.breaks}
        for number, line in enumerate(path.evidence, 1)
    ]
    nodes = [
        {"id": "target", "kind": "target", "text": path.target, "breaks": False},
        *facts,
        {"id": "step", "kind": "step", "text": path.title, "breaks": False},
        {"id": "effect", "kind": "effect", "text": path.effect, "breaks": False},
    ]
    edges = [{"from": "target", "to": fact["id"]} for fact in facts]
    edges += [{"from": fact["id"], "to": "step"} for fact in facts]
    edges.append({"from": "step", "to": "effect"})
    return {"nodes": nodes, "edges": edges}

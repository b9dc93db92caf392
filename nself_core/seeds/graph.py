"""What `seed graph` shows: the order, each edge with its reason, and the same for Mermaid and Graphviz."""

from __future__ import annotations

from nself_core.output import Report, Table

FORMATS = ("text", "mermaid", "dot")


def report(order, warnings, form):
    """The Report of `seed graph`; `order`, an Order; `form`, one of FORMATS."""
    edges = [{"from": edge.before, "to": edge.after, "reason": edge.reason} for edge in order.edges]
    data = {"nodes": sorted(order.files), "edges": edges, "order": list(order.files)}
    warnings = [*warnings, *(f"{edge.after} need not come after {edge.before}: {_why(edge)}" for edge in order.dropped)]
    count = len(order.files)
    summary = f"{count} seed{'' if count == 1 else 's'}, {len(edges)} edge{'' if len(edges) == 1 else 's'}"
    return Report(data, _BLOCKS[form](order), summary if form == "text" else "", warnings)


def _why(edge):
    return f"{edge.reason} would close a circle"


def _as_text(order):
    if not order.files:
        return []
    reasons: dict = {}
    for edge in order.edges:
        reasons.setdefault(edge.after, []).append(f"{edge.before} ({edge.reason})")
    rows = [(number, file, ", ".join(reasons.get(file, ()))) for number, file in enumerate(order.files, 1)]
    return [Table(("order", "seed", "comes after"), rows)]


def _as_mermaid(order):
    names = {file: f"s{number}" for number, file in enumerate(order.files)}
    nodes = [f'    {name}["{_mermaid(file)}"]' for file, name in names.items()]
    edges = [f'    {names[e.before]} -->|"{_mermaid(e.reason)}"| {names[e.after]}' for e in order.edges]
    return ["\n".join(["flowchart TD", *nodes, *edges])]


def _mermaid(text):
    """Inside double quotes Mermaid takes character references for what would end or mark up the text."""
    return "".join(f"#{ord(char)};" if char in '"#<>&`' else char for char in text)


def _as_dot(order):
    nodes = [f"    {_dot(file)};" for file in order.files]
    edges = [f"    {_dot(e.before)} -> {_dot(e.after)} [label={_dot(e.reason)}];" for e in order.edges]
    return ["\n".join(["digraph seeds {", *nodes, *edges, "}"])]


def _dot(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_BLOCKS = {"text": _as_text, "mermaid": _as_mermaid, "dot": _as_dot}

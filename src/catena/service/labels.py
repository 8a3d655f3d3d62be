"""Labels of nodes: given by a person, never by the node; secrets select by them."""

from __future__ import annotations

from catena.audit.entries import NodeLabelled
from catena.errors import UsageError
from catena.service.nodes import find
from catena.service.setting import Setting
from catena.service.views import LabelsRequest, LabelsView

MAX_LABELS = 32


class TooManyLabels(UsageError):
    """More labels than a node may have."""

    code = "too-many-labels"
    remedy = "Remove some with --remove."


class Labels:
    """The verb *label*."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def label(self, name: str, request: LabelsRequest, actor: str) -> LabelsView:
        """Set and remove labels. Raises ``UnknownNode``, ``AmbiguousNode``, ``TooManyLabels``, ``NodeMoved``."""
        setting = self._setting
        with setting.database.snapshot() as rows:
            node_id = find(rows, name).id
        with setting.journal.deciding(node_id):
            with setting.database.snapshot() as rows:
                node = find(rows, node_id)
                before = rows.node_labels.of(node_id)
            labels = _changed(before, request)
            if labels != before:
                setting.journal.record(
                    NodeLabelled(
                        at=setting.now(),
                        actor=actor,
                        node_id=node_id,
                        node_name=node.name,
                        labels=labels,
                    )
                )
                with setting.journal.effect() as rows:
                    rows.nodes.hold(node)
                    rows.node_labels.replace(node_id, labels)
        return LabelsView(node=node_id, name=node.name, labels=labels)


def _changed(before: tuple[str, ...], request: LabelsRequest) -> tuple[str, ...]:
    pairs = dict(label.split("=", 1) for label in before)
    for key in request.remove:
        pairs.pop(key, None)
    pairs |= dict(label.split("=", 1) for label in request.labels)
    if len(pairs) > MAX_LABELS:
        raise TooManyLabels("a node has too many labels", expected=f"at most {MAX_LABELS}")
    return tuple(sorted(f"{key}={value}" for key, value in pairs.items()))

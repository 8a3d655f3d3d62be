"""The admin API about the life of machines: expected, demanded, rejected, replaced, retired."""

from __future__ import annotations

from typing import Final

from catena.server.operation import Operation
from catena.service.demands import NothingToDemand
from catena.service.inventory import EmptyInventory, InventoryConflict, NotListed
from catena.service.nodes import UnknownNode
from catena.service.pages import BadCursor, ExpectedRequest
from catena.service.retirement import AlreadyRetired, NothingToReject, UnfitReplacement
from catena.service.roles import Right
from catena.service.states import NotVouchedFor
from catena.service.views import (
    Demanded,
    DemandRequest,
    ExpectedView,
    Farewell,
    FarewellRequest,
    Imported,
    InventoryRequest,
    Label,
    ReplacementRequest,
)
from catena.store.errors import AmbiguousNode, Conflict

_NODE = (UnknownNode, AmbiguousNode, Conflict)

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "POST",
        "/v1/admin/nodes/{name}/retirement",
        "Take a node off the rolls",
        right=Right.NODES_WRITE,
        takes=FarewellRequest,
        answer=Farewell,
        refuses=(*_NODE, AlreadyRetired),
        verb=lambda at, call: at.service.retirement.retire(call.name, call.body, call.actor),
    ),
    Operation(
        "POST",
        "/v1/admin/nodes/{name}/replacement",
        "Retire a node, and give its name and role to a TPM that waits",
        right=Right.NODES_WRITE,
        takes=ReplacementRequest,
        answer=Farewell,
        refuses=(*_NODE, AlreadyRetired, UnfitReplacement, NotVouchedFor),
        verb=lambda at, call: at.service.retirement.replace(call.name, call.body, call.actor),
    ),
    Operation(
        "POST",
        "/v1/admin/nodes/{name}/rejection",
        "Refuse a machine that waits for approval, or a known machine's other key",
        right=Right.NODES_WRITE,
        takes=FarewellRequest,
        answer=Farewell,
        refuses=(*_NODE, NothingToReject),
        verb=lambda at, call: at.service.retirement.reject(call.name, call.body, call.actor),
    ),
    Operation(
        "POST",
        "/v1/admin/demands",
        "Have a node, a role's nodes, or all attest now",
        right=Right.NODES_WRITE,
        takes=DemandRequest,
        answer=Demanded,
        refuses=(*_NODE, NothingToDemand),
        verb=lambda at, call: at.service.demands.demand(call.body, call.actor),
    ),
    Operation(
        "GET",
        "/v1/admin/inventory",
        "Machines that are expected and have not shown up, or all that are listed",
        right=Right.NODES_READ,
        answer=tuple[ExpectedView, ...],
        query=ExpectedRequest,
        refuses=(BadCursor,),
        verb=lambda at, call: at.service.inventory.page(call.query),
    ),
    Operation(
        "POST",
        "/v1/admin/inventory",
        "Expect machines, all of a list or none",
        right=Right.NODES_WRITE,
        takes=InventoryRequest,
        answer=Imported,
        refuses=(EmptyInventory, InventoryConflict, Conflict),
        verb=lambda at, call: at.service.inventory.expect(call.body, call.actor),
    ),
    Operation(
        "DELETE",
        "/v1/admin/inventory/{name}",
        "Expect a machine no longer; a node that it became stays",
        right=Right.NODES_WRITE,
        name=Label,
        answer=ExpectedView,
        refuses=(NotListed,),
        verb=lambda at, call: at.service.inventory.unlist(call.name, call.actor),
    ),
)

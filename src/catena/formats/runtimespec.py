"""Sections of the OCI runtime specification (1.0 to 1.3) that a launch policy reads little of.

What limits a container (cgroups, scheduling, RDT), its seccomp filter, and the sections of other
platforms. Known members are listed so that an unknown one is an error; their values are typed as
far as the specification types them. ``formats.runtime`` has the rest and the readers.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Uint32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Texts = tuple[str, ...] | None
Map = dict[str, str] | None


class Section(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="camel"
):
    """An object of the specification: strict, immutable. What Go's readers take null for may be null."""


class Rlimit(Section, frozen=True, kw_only=True):
    """``process.rlimits``."""

    type: str
    hard: int
    soft: int


class Box(Section, frozen=True, kw_only=True):
    """``process.consoleSize``."""

    height: int
    width: int


class Scheduler(Section, frozen=True, kw_only=True):
    """``process.scheduler`` (sched_setattr(2))."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: Texts = None
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IoPriority(Section, frozen=True, kw_only=True):
    """``process.ioPriority``."""

    class_: str = msgspec.field(name="class")
    priority: int = 0


class CpuAffinity(Section, frozen=True, kw_only=True):
    """``process.execCPUAffinity``."""

    initial: str = ""
    final: str = ""


class IdMapping(Section, frozen=True, kw_only=True):
    """A range of user or group IDs."""

    container_id: Uint32 = msgspec.field(name="containerID")
    host_id: Uint32 = msgspec.field(name="hostID")
    size: Uint32


IdMappings = tuple[IdMapping, ...] | None


class DeviceRule(Section, frozen=True, kw_only=True):
    """One line of the device cgroup: ``linux.resources.devices``."""

    allow: bool = False
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""

    @property
    def numbers(self) -> str:
        """``c 1:3``; a type or number that is left out or negative is ``*``, as the kernel has it."""
        major, minor = (
            "*" if one is None or one < 0 else str(one) for one in (self.major, self.minor)
        )
        return f"{self.type or 'a'} {major}:{minor}"


class Memory(Section, frozen=True, kw_only=True):
    """``linux.resources.memory``."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = msgspec.field(name="kernelTCP", default=None)
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(name="disableOOMKiller", default=None)
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(Section, frozen=True, kw_only=True):
    """``linux.resources.cpu``."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(Section, frozen=True, kw_only=True):
    """``linux.resources.pids``."""

    limit: int | None = None


class BlockDevice(Section, frozen=True, kw_only=True):
    """A block device with a weight or a rate."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None
    rate: int | None = None


BlockDevices = tuple[BlockDevice, ...] | None


class BlockIo(Section, frozen=True, kw_only=True):
    """``linux.resources.blockIO``."""

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: BlockDevices = None
    throttle_read_bps_device: BlockDevices = None
    throttle_write_bps_device: BlockDevices = None
    throttle_read_iops_device: BlockDevices = msgspec.field(
        name="throttleReadIOPSDevice", default=None
    )
    throttle_write_iops_device: BlockDevices = msgspec.field(
        name="throttleWriteIOPSDevice", default=None
    )


class HugepageLimit(Section, frozen=True, kw_only=True):
    """``linux.resources.hugepageLimits``."""

    page_size: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]*[KMG]B\Z")]
    limit: int


class InterfacePriority(Section, frozen=True, kw_only=True):
    """``linux.resources.network.priorities``."""

    name: str
    priority: Uint32


class Network(Section, frozen=True, kw_only=True):
    """``linux.resources.network``."""

    class_id: Uint32 | None = msgspec.field(name="classID", default=None)
    priorities: tuple[InterfacePriority, ...] | None = None


class Rdma(Section, frozen=True, kw_only=True):
    """``linux.resources.rdma``, by device."""

    hca_handles: Uint32 | None = None
    hca_objects: Uint32 | None = None


class Resources(Section, frozen=True, kw_only=True):
    """``linux.resources``. ``oom_score_adj`` is from before 1.0, and ignored by today's runtimes."""

    devices: tuple[DeviceRule, ...] | None = None
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIo | None = msgspec.field(name="blockIO", default=None)
    hugepage_limits: tuple[HugepageLimit, ...] | None = None
    network: Network | None = None
    rdma: dict[str, Rdma] | None = None
    unified: Map = None
    oom_score_adj: int | None = None


class IntelRdt(Section, frozen=True, kw_only=True):
    """``linux.intelRdt``."""

    clos_id: str = msgspec.field(name="closID", default="")
    schemata: Texts = None
    l3_cache_schema: str = msgspec.field(name="l3CacheSchema", default="")
    mem_bw_schema: str = msgspec.field(name="memBwSchema", default="")
    enable_monitoring: bool = False
    enable_cmt: bool = msgspec.field(name="enableCMT", default=False)
    enable_mbm: bool = msgspec.field(name="enableMBM", default=False)


class Personality(Section, frozen=True, kw_only=True):
    """``linux.personality`` (personality(2))."""

    domain: str
    flags: Texts = None


class TimeOffset(Section, frozen=True, kw_only=True):
    """``linux.timeOffsets``, by clock."""

    secs: int = 0
    nanosecs: Uint32 = 0


class MemoryPolicy(Section, frozen=True, kw_only=True):
    """``linux.memoryPolicy`` (set_mempolicy(2))."""

    mode: str
    nodes: str = ""
    flags: Texts = None


class NetDevice(Section, frozen=True, kw_only=True):
    """``linux.netDevices``: a network interface that moves into the container."""

    name: str = ""


class SeccompArgument(Section, frozen=True, kw_only=True):
    """A condition on a system call's argument."""

    index: int
    value: int
    value_two: int = 0
    op: str


class Syscalls(Section, frozen=True, kw_only=True):
    """System calls with one action."""

    names: Texts = None
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArgument, ...] | None = None


class Seccomp(Section, frozen=True, kw_only=True):
    """``linux.seccomp``."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: Texts = None
    flags: Texts = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[Syscalls, ...] | None = None


Choice = Literal["new", "inherit", "disable"]
Vnet = Literal["new", "inherit"]


class Jail(Section, frozen=True, kw_only=True):
    """``freebsd.jail``."""

    parent: str = ""
    host: Vnet = "inherit"
    ip4: Choice = "inherit"
    ip4_addr: Texts = None
    ip6: Choice = "inherit"
    ip6_addr: Texts = None
    vnet: Vnet = "inherit"
    interface: str = ""
    vnet_interfaces: Texts = None
    sysvmsg: Choice = "disable"
    sysvsem: Choice = "disable"
    sysvshm: Choice = "disable"
    enforce_statfs: int | None = None
    allow: dict[str, object] | None = None


class FreeBsd(Section, frozen=True, kw_only=True):
    """``freebsd``: read so far as the specification's own vectors go."""

    devices: list[object] | None = None
    jail: Jail | None = None

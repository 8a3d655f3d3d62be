"""Every member of a runtime configuration is either judged or known to be free: a new one asks for a decision."""

from __future__ import annotations

import msgspec

from catena.formats import runtime
from catena.formats.runtimespec import Resources, Seccomp

JUDGED = {
    runtime.RuntimeConfig: "process root mounts hooks annotations linux solaris windows vm zos freebsd",
    runtime.Process: "user args command_line env cwd capabilities no_new_privileges",
    runtime.User: "uid gid additional_gids",
    runtime.Capabilities: "bounding effective inheritable permitted ambient",
    runtime.Root: "readonly",
    runtime.Mount: "destination type source options",
    runtime.Hook: "path args env",
    runtime.Hooks: "prestart create_runtime create_container start_container poststart poststop",
    runtime.Namespace: "type path",
    runtime.Device: "path type major minor",
    runtime.Linux: "sysctl resources cgroups_path namespaces devices net_devices seccomp "
    "rootfs_propagation masked_paths readonly_paths intel_rdt personality",
    Resources: "devices unified",
    Seccomp: "default_action default_errno_ret listener_path listener_metadata syscalls",
}
FREE = {
    runtime.RuntimeConfig: "oci_version hostname domainname",
    runtime.Process: "terminal console_size rlimits apparmor_profile oom_score_adj scheduler "
    "selinux_label io_priority exec_cpu_affinity",
    runtime.User: "umask username",
    runtime.Root: "path",  # containers.rootfs tells what is there
    runtime.Mount: "uid_mappings gid_mappings",
    runtime.Hook: "timeout",
    runtime.Device: "file_mode uid gid",
    runtime.Linux: "uid_mappings gid_mappings mount_label memory_policy time_offsets",
    Resources: "memory cpu pids block_io hugepage_limits network rdma oom_score_adj",
    Seccomp: "architectures flags",
}


def test_every_member_is_judged_or_free():
    for kind, judged in JUDGED.items():
        fields = {field.name for field in msgspec.structs.fields(kind)}
        free = set(FREE.get(kind, "").split())
        assert set(judged.split()) | free == fields, kind
        assert not set(judged.split()) & free, kind

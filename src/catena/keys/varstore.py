"""UEFI variable stores with exactly the enterprise's keys, and what firmware measures of them.

With Secure Boot on, firmware extends PCR 7 with (TCG PC Client PFP 1.06, 3.3.4.8)::

    SecureBoot, PK, KEK, db, dbx     each as UEFI_VARIABLE_DATA, absent ones with no data
    separator
    db                               UEFI_VARIABLE_DATA with the one EFI_SIGNATURE_DATA that
                                     the boot code's signature was verified with

The stores are those of OVMF (edk2), read and written by virt-firmware. Same keys and template,
same bytes.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from catena.errors import FormatError, NotFound
from catena.formats.efi import (
    EFI_CERT_X509,
    EFI_GLOBAL_VARIABLE,
    IMAGE_SECURITY_DATABASE,
    SignatureEntry,
    SignatureList,
    VariableData,
    encode_signature_lists,
)
from catena.formats.references import ExpectedEvent, KeySet, PcrTable
from catena.ids import HashAlg
from catena.keys.hierarchy import FIRMWARE_KEYS, KeyFolder, KeyName
from catena.keys.signer import write_new

DEFAULT_TEMPLATE = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
BANKS = (HashAlg.SHA256, HashAlg.SHA384)
MEASURED = ("SecureBoot", "PK", "KEK", "db", "dbx")

_SECURE_BOOT_PCR = 7
_SEPARATOR = bytes(4)
_SWITCHES = {"SecureBootEnable": b"\x01", "CustomMode": b"\x00"}
_WRITTEN = datetime(2020, 1, 1, tzinfo=UTC)
"""The time stamp of the variables; later updates must carry a later one."""
_VARIABLE_SIZE_LIMIT = 64 * 1024 * 1024


class NoTemplate(NotFound):
    """A variable store that does not exist or is not readable."""

    code = "no-varstore"
    remedy = "Install the firmware (apt-get install ovmf), or give its variable store."


class UnusableVarstore(FormatError):
    """A file that is no edk2 variable store."""

    code = "unusable-varstore"
    remedy = "Give a variable store of OVMF, such as OVMF_VARS_4M.fd."


def enroll(folder: KeyFolder, template: Path, output: Path) -> KeySet:
    """Write a variable store with PK, KEK and db of ``folder``, Secure Boot on, and no dbx.

    Every other variable of ``template`` stays, but for keys and hashes it may have. Raises
    ``NoTemplate``, ``UnusableVarstore`` or ``KeyExists``.
    """
    from virt.firmware.efi.efivar import EfiVar  # noqa: PLC0415  only this verb pays for it

    store = _open(template)
    variables = store.get_varlist()
    for name in ("PK", "KEK", "db", "dbx", "dbt", "dbr"):
        variables.pop(name, None)
    certificates = {name: folder.certificate(name) for name in FIRMWARE_KEYS}
    content = {
        name.value: _signature_list(folder.owner, certificate).encode()
        for name, certificate in certificates.items()
    }
    for name, data in (content | _SWITCHES).items():
        variables[name] = EfiVar(name, data=data)
    for name in content:
        variables[name].time = _WRITTEN
    write_new(output, _encode(store, variables), mode=0o644)
    authority = _signature_entry(folder.owner, certificates[KeyName.DB])
    return key_set(content, authority, certificates)


def disable_secure_boot(varstore: Path, output: Path) -> None:
    """A copy of a variable store with Secure Boot switched off, as someone at the machine could."""
    store = _open(varstore)
    variables = store.get_varlist()
    if "SecureBootEnable" not in variables:
        raise UnusableVarstore("variable store has no Secure Boot switch")
    variables["SecureBootEnable"].data = b"\x00"
    write_new(output, _encode(store, variables), mode=0o644)


def revoke(varstore: Path, output: Path, lists: Sequence[SignatureList]) -> None:
    """A copy of a variable store with these lists in dbx, as after an update of it.

    Raises ``NoTemplate`` or ``UnusableVarstore``.
    """
    from virt.firmware.efi.efivar import EfiVar  # noqa: PLC0415  as above

    store = _open(varstore)
    variables = store.get_varlist()
    variables["dbx"] = EfiVar("dbx", data=encode_signature_lists(lists))
    variables["dbx"].time = _WRITTEN
    write_new(output, _encode(store, variables), mode=0o644)


def read_variables(varstore: Path) -> dict[str, bytes]:
    """Content of every variable, by name. Raises ``NoTemplate`` or ``UnusableVarstore``."""
    return {name: bytes(one.data) for name, one in _open(varstore).get_varlist().items()}


def key_set(
    content: Mapping[str, bytes],
    authority: SignatureEntry,
    certificates: Mapping[KeyName, x509.Certificate],
) -> KeySet:
    """What firmware measures of these variables when ``authority`` lets the boot code run."""
    variables = [_variable(name, content.get(name, b"")) for name in MEASURED]
    used = VariableData(IMAGE_SECURITY_DATABASE, "db", authority.encode())
    events = (
        *(_event(one.name, f"Secure Boot variable {one.name}", one) for one in variables),
        _event("authority:db", "certificate that verified the boot code", used),
    )
    digest = hashlib.sha256(b"".join(one.encode() for one in (*variables, used)))
    return KeySet(
        name="secure-boot-keys",
        version=digest.hexdigest()[:16],
        owner=str(authority.owner),
        certificates={
            name.value: (certificate.subject.rfc4514_string(),)
            for name, certificate in certificates.items()
        },
        events=events,
        pcrs=_pcr_values(events),
    )


def _pcr_values(events: Sequence[ExpectedEvent]) -> PcrTable:
    """PCR 7 in each bank: variables, separator, authority."""
    table: PcrTable = {}
    for bank in BANKS:
        digests = [bytes.fromhex(event.digests[bank.value]) for event in events]
        digests.insert(len(MEASURED), bank.digest(_SEPARATOR))
        value = bytes(bank.size)
        for digest in digests:
            value = bank.digest(value + digest)
        table[bank.value] = {str(_SECURE_BOOT_PCR): value.hex()}
    return table


def _variable(name: str, data: bytes) -> VariableData:
    if name == "SecureBoot":
        return VariableData(EFI_GLOBAL_VARIABLE, name, b"\x01")
    guid = IMAGE_SECURITY_DATABASE if name.startswith("db") else EFI_GLOBAL_VARIABLE
    return VariableData(guid, name, data)


def _event(identifier: str, what: str, variable: VariableData) -> ExpectedEvent:
    digests = {bank.value: bank.digest(variable.encode()).hex() for bank in BANKS}
    return ExpectedEvent(id=identifier, pcr=_SECURE_BOOT_PCR, what=what, digests=digests)


def _signature_entry(owner: uuid.UUID, certificate: x509.Certificate) -> SignatureEntry:
    return SignatureEntry(owner, certificate.public_bytes(Encoding.DER))


def _signature_list(owner: uuid.UUID, certificate: x509.Certificate) -> SignatureList:
    return SignatureList(EFI_CERT_X509, (_signature_entry(owner, certificate),))


def _open(path: Path) -> Any:  # noqa: ANN401  virt-firmware has no types
    """The store in ``path``; virt-firmware ends the process for what it cannot read."""
    from virt.firmware.varstore.edk2 import Edk2VarStore  # noqa: PLC0415  as above

    try:
        if path.stat().st_size > _VARIABLE_SIZE_LIMIT:
            raise UnusableVarstore("variable store is too large", got=str(path))
        return Edk2VarStore(str(path))
    except OSError as error:
        raise NoTemplate(
            f"cannot read the variable store: {error.strerror}", got=str(path)
        ) from error
    except (SystemExit, ValueError, LookupError, struct.error) as error:
        raise UnusableVarstore("not an edk2 variable store", got=str(path)) from error


def _encode(store: Any, variables: Any) -> bytes:  # noqa: ANN401  as above
    """The store's bytes; padded here, because virt-firmware takes a second for it."""
    try:
        used: bytes = store.filedata[: store.start] + store.bytes_varlist(variables)
    except SystemExit as error:
        raise UnusableVarstore("variable store has no room for the keys") from error
    rest: bytes = store.filedata[store.end :]
    return used.ljust(store.end, b"\xff") + rest

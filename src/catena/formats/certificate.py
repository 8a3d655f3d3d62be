"""What reading a stranger's X.509 certificate may raise.

``cryptography`` decodes a certificate's parts only when they are first asked for, so a certificate
that loads may still fail where its subject, issuer, extensions or key are read. Whoever reads one
that a stranger sent catches these around both.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning

CERTIFICATE_FAULTS: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    # A serial number below 1 is only warned of, so far; where warnings are errors it is one.
    CryptographyDeprecationWarning,
)

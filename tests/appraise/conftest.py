from __future__ import annotations

import pytest
from forged import CORPUS, Boot, Exchange, corpus_boot, references_of


@pytest.fixture(scope="session")
def boot() -> Boot:
    """Boot B: Secure Boot on with own keys, a UKI, the PCRs that its TPM held."""
    if not (CORPUS / "boots").is_dir():
        pytest.skip("the corpus of real boots is not here")
    return corpus_boot("B_sb_own_uki")


@pytest.fixture(scope="session")
def references(boot):
    return references_of(boot)


@pytest.fixture
def exchange(boot) -> Exchange:
    return Exchange(boot)

"""The only room that opens a TPM device."""

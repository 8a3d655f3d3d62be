"""Pure judgement: endorsement, quote, references, policy, verdict. No clock, no I/O."""

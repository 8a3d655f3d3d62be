"""From logs to meaning: replay, grammar, boot facts, explanation. Pure."""

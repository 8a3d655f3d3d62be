"""The verbs of the trust wing. Each logs before it acts."""

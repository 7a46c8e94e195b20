"""From raw records to columns: positions, line formats, envelopes, and what a document holds."""

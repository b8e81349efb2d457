"""The common language: ids, records, codec, trust, links, membership, replicated store."""

"""What carries every statement between parties: canonical bytes, identity keys, signed envelopes, sealed boxes."""

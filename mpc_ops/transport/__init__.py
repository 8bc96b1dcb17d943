"""Links between parties: TLS 1.3 with both ends pinned, framed messages, reconnection. Payloads are opaque here."""

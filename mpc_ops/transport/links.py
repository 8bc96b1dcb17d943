"""Party links: one listening port, one connection per peer, reconnection.

```
manager = LinkManager(identity, ("127.0.0.1", 0), {"cn-2": PeerEndpoint(...)}, user)
await manager.start()          # listens and begins to dial
await manager.send("cn-2", Kind.SESSION, payload)   # PeerUnavailable if there is no link now
await manager.close()
```

A link never promises delivery: `send` returns when the operating system took the bytes. The layers above journal before
sending, resend on every UP, and treat a repeated message as a no-op.
"""

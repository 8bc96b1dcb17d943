"""Embedded SFTP server of an operator, in its own process: `python -m mpc_ops.server.sftp --config FILE`.

It parses strangers' bytes away from the operator process; the two meet only in a spool folder:

```
<spool>/inbox/<owner>/NAME                 complete files, created once, never changed (the operator ignores `*.part`)
<spool>/inbox/<owner>/NAME.<random>.part   being written; removed when its connection ends and at the server's start
<spool>/outbox/<owner>/keys/...            what the operator publishes to this owner, files complete and read only;
              .../notices/ releases/ receipts/ evidence/        sub-folders of one level, file names as in the inbox
```

Folders are 0770 and files 0640. File names match `[A-Za-z0-9._-]{1,200}` and do not begin with a dot. The operator
reads inbox files in place and removes a file when its filing is superseded, rejected or erased; as long as a name is there,
it counts as delivered, whoever asks. The operator writes an outbox file under a name that begins with a dot (such names are
invisible to owners) and renames it. The owner sees `inbox/` (create only: write `NAME.<random>.part`, rename to
NAME, stat) and `outbox/` (list, stat, read).

Configuration (TOML, unknown keys are refused): see `config.SftpConfig`. After binding, one line of JSON on standard output:
`{"ready": "sftp", "host": "127.0.0.1", "port": 40123, "host_key": "ssh-ed25519 AAAA..."}`. SIGTERM ends it.
"""

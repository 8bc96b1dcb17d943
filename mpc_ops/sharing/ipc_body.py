"""What a record batch of an Arrow stream says of its body, read before Arrow touches it.

Arrow expands a compressed body to whatever size the stream states: 16 KiB of a part can become half a gigabyte before anything
of it is compared with a schema. A body as it is cannot be larger than the bytes that arrived, so parts may not be compressed.

Source: FlatBuffers' layout of tables (a table starts with the distance back to its vtable, which holds the place of each
field); Arrow's `Message.fbs`: `Message { version, header_type, header, bodyLength, custom_metadata }`,
`RecordBatch { length, nodes, buffers, compression, variadicBufferCounts }`. Version V4 could state a codec in the custom metadata.
"""

from __future__ import annotations

import struct

__all__ = ["is_plain_batch"]

_VERSION, _KIND, _HEADER, _CUSTOM = 0, 1, 2, 4
_COMPRESSION = 3
_V5, _RECORD_BATCH = 4, 3


def is_plain_batch(metadata: bytes) -> bool:
    """Return whether a message is a record batch of version V5 whose body is not compressed.

    Args:
        metadata: the message's FlatBuffer, without the length before it.

    Raises:
        ValueError: it is no message.
    """
    message = _number(metadata, 0, "<I")
    version, kind, header = (_field(metadata, message, number) for number in (_VERSION, _KIND, _HEADER))
    if version is None or kind is None or header is None or _field(metadata, message, _CUSTOM) is not None:
        return False
    if (_number(metadata, version, "<h"), _number(metadata, kind, "<B")) != (_V5, _RECORD_BATCH):
        return False
    batch = header + _number(metadata, header, "<I")
    return _field(metadata, batch, _COMPRESSION) is None


def _field(data: bytes, table: int, number: int) -> int | None:
    """Return where a table's field is; None if it has none."""
    vtable = table - _number(data, table, "<i")
    slot = 4 + 2 * number
    if slot + 2 > _number(data, vtable, "<H"):
        return None
    offset = _number(data, vtable + slot, "<H")
    return table + offset if offset else None


def _number(data: bytes, at: int, form: str) -> int:
    if not 0 <= at <= len(data) - struct.calcsize(form):
        raise ValueError("an offset leaves the message")
    value: int = struct.unpack_from(form, data, at)[0]
    return value

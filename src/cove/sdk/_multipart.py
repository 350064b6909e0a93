"""The body of an upload (RFC 7578): a `path` field, then a `file` part, with its length known in advance."""

import secrets
from dataclasses import dataclass


@dataclass(frozen=True)
class Multipart:
    """What surrounds the file's bytes.

    Attributes:
        content_type: header value with the boundary.
        head: bytes before the file's.
        tail: bytes after them.
    """

    content_type: str
    head: bytes
    tail: bytes

    def length(self, file_size: int) -> int:
        """`Content-Length` of the whole body."""
        return len(self.head) + file_size + len(self.tail)


def multipart_for(path: str) -> Multipart:
    """The frame of an upload to `path`. The boundary is random, so that no file can contain it on purpose."""
    boundary = secrets.token_hex(24)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="path"\r\n'
        "Content-Type: text/plain; charset=utf-8\r\n\r\n"
        f"{path}\r\n--{boundary}\r\n"
        'Content-Disposition: form-data; name="file"; filename="upload"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return Multipart(f"multipart/form-data; boundary={boundary}", head.encode(), f"\r\n--{boundary}--\r\n".encode())

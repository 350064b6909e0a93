"""The servers of `internet`, as a program: HTTPS and HTTP that answer `/N` with N bytes, and DNS.

Usage: internet_server.py CERTIFICATE NAMESERVER NAME ADDRESS; prints `ready`.
"""

import http.server
import socket
import ssl
import sys
import threading
from typing import Final

import dns.message
import dns.rdatatype
import dns.rrset

_PIECE: Final = bytes(1024 * 1024)


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """So many bytes as the path says."""
        left = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(left))
        self.end_headers()
        while left:
            piece = _PIECE[:left]
            self.wfile.write(piece)
            left -= len(piece)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("0.0.0.0", port), _Answers)
        self._context = context

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """The handshake is its own thread's."""
        assert isinstance(request, socket.socket)
        if self._context is not None:
            request = self._context.wrap_socket(request, server_side=True)
        _Answers(request, client_address, self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may hang up."""


def _answer_names(nameserver: str, name: str, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((nameserver, 53))
        print("ready", flush=True)
        while True:
            data, asker = sock.recvfrom(4096)
            query = dns.message.from_wire(data)
            response = dns.message.make_response(query)
            asked = query.question[0]
            if asked.name.to_text(omit_final_dot=True).lower() == name and asked.rdtype == dns.rdatatype.A:
                response.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", address))
            sock.sendto(response.to_wire(), asker)


def main() -> None:
    """Serve until killed."""
    certificate, nameserver, name, address = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    for server in (_Server(443, context), _Server(80)):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    _answer_names(nameserver, name, address)


if __name__ == "__main__":
    main()

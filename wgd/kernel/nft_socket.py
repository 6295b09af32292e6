"""The socket to nftables: whole transactions of messages, and dumps. Formats as in linux/netfilter/nfnetlink.h."""

from __future__ import annotations

import os
import socket

from wgd.errors import KernelError
from wgd.kernel.monitor import NETLINK_NETFILTER, NFT_FAMILIES, SOL_NETLINK
from wgd.kernel.netlink import ATTRIBUTE, DONE, DUMP, DUMP_INTERRUPTED, ERROR, Message, attributes, messages, text_of
from wgd.kernel.nft_messages import FAMILY_HEADER, NFPROTO_INET, NUMBER, SUBSYSTEM, message

SO_SNDBUFFORCE, NETLINK_CAP_ACK = 32, 10
"""Of asm-generic/socket.h and linux/netlink.h; Python has no names for these."""
NFPROTO_UNSPEC = 0
RECEIVE_BYTES = 1 << 16
"""The kernel fills as much of it as it can, at most 32 KiB (netlink_dump in net/netlink/af_netlink.c)."""
ANSWER_SECONDS = 30.0
DUMP_ATTEMPTS = 20
GET_TABLE, TABLE_ATTRIBUTE = SUBSYSTEM << 8 | 1, 1
"""NFT_MSG_GETTABLE and NFTA_TABLE_NAME."""
GET_GENERATION, NEW_GENERATION = SUBSYSTEM << 8 | 16, SUBSYSTEM << 8 | 15
"""NFT_MSG_GETGEN and NFT_MSG_NEWGEN."""


class RefusedError(Exception):
    """The kernel has refused a request: its error number, and the number of the message that it is about."""

    def __init__(self, code: int, sequence: int) -> None:
        super().__init__(os.strerror(code))
        self.code, self.sequence = code, sequence


class NftSocket:
    """nftables of the network namespace in which this object is made; raises KernelError, and RefusedError as told."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
            self._socket.settimeout(ANSWER_SECONDS)
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        except OSError as error:
            raise _unusable(error) from error
        self._sequence = 0
        self._room = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def number(self) -> int:
        """Return the number of the ruleset in force: how often nftables have been changed, by whomever.

        Every transaction raises it by one (nf_tables_commit in net/netfilter/nf_tables_api.c); elements that time out
        and what packets add do not.
        """
        self._ask(GET_GENERATION, 0, b"", NFPROTO_UNSPEC)
        for answer in self._received():
            if answer.kind == NEW_GENERATION:
                # The first attribute is NFTA_GEN_ID.
                return int(NUMBER.unpack_from(answer.body, FAMILY_HEADER.size + ATTRIBUTE.size)[0])
        raise KernelError("nftables", "the kernel does not say the ruleset's number")

    def transact(self, batch: bytes) -> None:
        """Have a batch of messages applied, whole or not at all; it must ask for one answer at least.

        Raise RefusedError for the first message that the kernel refuses.
        """
        try:
            if len(batch) > self._room:
                self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, len(batch))
                self._room = len(batch)
            self._socket.send(batch)
        except OSError as error:
            raise _unusable(error) from error
        # All there is to say of a batch is in the queue when it has been sent.
        for answer in self._answers():
            if answer.code:
                raise RefusedError(answer.code, answer.sequence)

    def dump(self, kind: int, body: bytes = b"", family: int = NFPROTO_INET) -> list[memoryview]:
        """Return the bodies of all messages that answer a request for a list, each with its family's header.

        What a change of the ruleset has interrupted is asked for anew. Raise RefusedError when the kernel refuses.
        """
        for _ in range(DUMP_ATTEMPTS):
            found, whole = self._dump(kind, body, family)
            if whole:
                return found
        raise KernelError("nftables", "others change them faster than they can be read")

    def tables(self) -> tuple[tuple[str, str], ...]:
        """Return family and name of every table."""
        try:
            found = self.dump(GET_TABLE, family=NFPROTO_UNSPEC)
        except RefusedError as error:
            raise KernelError("nftables", f"the tables cannot be listed: {error}") from error
        return tuple(
            (NFT_FAMILIES.get(body[0], ""), text_of(dict(attributes(body[FAMILY_HEADER.size :])).get(TABLE_ATTRIBUTE)))
            for body in found
        )

    def _dump(self, kind: int, body: bytes, family: int) -> tuple[list[memoryview], bool]:
        """Return the bodies of one dump, and whether nobody changed the ruleset meanwhile."""
        self._ask(kind, DUMP, body, family)
        found: list[memoryview] = []
        whole = True
        while True:
            for answer in self._received():
                whole = whole and not answer.flags & DUMP_INTERRUPTED
                if answer.kind in (ERROR, DONE):
                    if answer.code:
                        raise RefusedError(answer.code, answer.sequence)
                    return found, whole
                found.append(answer.body)

    def _ask(self, kind: int, flags: int, body: bytes, family: int = NFPROTO_INET) -> None:
        self._sequence += 1
        try:
            self._socket.send(message(kind, flags, body, family=family, sequence=self._sequence))
        except OSError as error:
            raise _unusable(error) from error

    def _received(self) -> list[Message]:
        """Wait for one datagram; return the messages in it that answer the last question."""
        try:
            datagram = self._socket.recv(RECEIVE_BYTES)
        except OSError as error:
            raise _unusable(error) from error
        return [answer for answer in messages(datagram) if answer.sequence == self._sequence]

    def _answers(self) -> list[Message]:
        """Return all answers to a batch."""
        found: list[Message] = []
        self._socket.settimeout(0)
        try:
            while True:
                found += [answer for answer in messages(self._socket.recv(RECEIVE_BYTES)) if answer.kind == ERROR]
        except BlockingIOError:
            pass
        except OSError as error:
            raise _unusable(error) from error
        finally:
            self._socket.settimeout(ANSWER_SECONDS)
        if not found:
            raise KernelError("nftables", "the kernel has not answered")
        return found


def _unusable(error: OSError) -> KernelError:
    return KernelError("nftables", f"netlink fails: {error.strerror or error}")

"""What brokers answer with, in words."""

from __future__ import annotations

REFUSED = 0x80  # this and above: no
TAKEN_OVER = 0x8E  # another client came with the same client id

# Of MQTT 5, in every packet that has a reason code.
REASONS = {
    0x00: "success",
    0x01: "granted QoS 1",
    0x02: "granted QoS 2",
    0x04: "disconnected, with the will",
    0x10: "no one has subscribed to it",
    0x11: "there was no such subscription",
    0x18: "authentication goes on",
    0x19: "authenticate again",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "refused by this implementation",
    0x84: "this version of MQTT is not supported",
    0x85: "the client id is not valid",
    0x86: "wrong user name or password",
    0x87: "not authorized",
    0x88: "the server is unavailable",
    0x89: "the server is busy",
    0x8A: "banned",
    0x8B: "the server is shutting down",
    0x8C: "wrong authentication method",
    0x8D: "keep alive timeout",
    TAKEN_OVER: "another client has connected under the same client id",
    0x8F: "the topic filter is not valid",
    0x90: "the topic name is not valid",
    0x91: "the packet id is in use",
    0x92: "the packet id is not known",
    0x93: "more than the receive maximum",
    0x94: "the topic alias is not valid",
    0x95: "the packet is too large",
    0x96: "the message rate is too high",
    0x97: "a quota is exceeded",
    0x98: "administrative action",
    0x99: "the payload is not of its format",
    0x9A: "retained messages are not supported",
    0x9B: "this QoS is not supported",
    0x9C: "use another server",
    0x9D: "the server has moved",
    0x9E: "shared subscriptions are not supported",
    0x9F: "the connection rate is exceeded",
    0xA0: "the maximum connect time is over",
    0xA1: "subscription identifiers are not supported",
    0xA2: "wildcard subscriptions are not supported",
}

# Of CONNACK in MQTT 3.1.1, which has a numbering of its own.
CONNACK_311 = {
    0: "success",
    1: "this version of MQTT is not supported",
    2: "the client id is not valid",
    3: "the server is unavailable",
    4: "wrong user name or password",
    5: "not authorized",
}


def reason(code: int, said: str = "") -> str:
    """A reason code in words, with what the broker says of it."""
    text = REASONS.get(code, f"reason {code:#04x}")
    return f"{text} ({said})" if said and said.lower() != text else text

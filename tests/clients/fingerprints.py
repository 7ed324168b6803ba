"""Fingerprints by their specification alone: reads a secret and rows as JSON, prints what the state would keep of them."""

import hashlib, hmac, json, struct, sys

WORD = (1 << 64) - 1


def derive(secret, label, length):  # HKDF-SHA-256 without salt; one block is enough
    key = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(key, b"reverse-etl/1/" + label + b"\x01", "sha256")[:length]


def rounds(v, count):
    a, b, c, d = v
    turn = lambda x, by: (x << by | x >> (64 - by)) & WORD
    for _ in range(count):
        a = (a + b) & WORD; b = turn(b, 13) ^ a; a = turn(a, 32)
        c = (c + d) & WORD; d = turn(d, 16) ^ c
        a = (a + d) & WORD; d = turn(d, 21) ^ a
        c = (c + b) & WORD; b = turn(b, 17) ^ c; c = turn(c, 32)
    return [a, b, c, d]


def siphash_1_3(key, data, wide=False):
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    if wide:
        v[1] ^= 0xEE
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        v = rounds(v, 1)
        v[0] ^= word
    v[2] ^= 0xEE if wide else 0xFF
    v = rounds(v, 3)
    low = v[0] ^ v[1] ^ v[2] ^ v[3]
    if not wide:
        return low
    v[1] ^= 0xDD
    v = rounds(v, 3)
    return low | (v[0] ^ v[1] ^ v[2] ^ v[3]) << 64


def value(of):
    (kind, content), = of.items()
    tag, content = {
        "null": lambda: (0, b""),
        "bool": lambda: (1, bytes([content])),
        "int": lambda: (2, int(content).to_bytes(16, "little", signed=True)),
        "float": lambda: (3, struct.pack("<d", content)),
        "text": lambda: (4, content.encode()),
        "date": lambda: (5, content.encode()),
        "list": lambda: (6, b"".join(map(value, content))),
    }[kind]()
    return bytes([tag]) + struct.pack("<I", len(content)) + content


given = json.load(sys.stdin)
secret = bytes.fromhex(given["secret"])
key, row, field = (derive(secret, label, 16) for label in (b"key", b"row", b"field"))
print(derive(secret, b"check", 16).hex())
for of in given["rows"]:
    pairs = [struct.pack("<H", slot) + value(content) for slot, content in of["values"]]
    fingerprint = siphash_1_3(row, b"".join(pairs))
    fingerprint |= 1 << 63 if fingerprint < 2 else 0
    fields = ["%016x" % siphash_1_3(field, pair) for pair in pairs]
    print("%032x" % siphash_1_3(key, of["key"].encode(), wide=True), "%016x" % fingerprint, *fields)

#!/usr/bin/env python3
"""Fleetmark's status list, read by a second implementation: docs/status-list.md and the standard library, nothing else.

usage: status_list.py vectors DIRECTORY     judges the vectors: a line `ok NAME` or `FAIL NAME ...` each; what opens is made anew too
       status_list.py show FILE             prints a list's header and how many indices are not good; verifies nothing
"""

import hashlib
import json
import pathlib
import struct
import sys

ANSWERS = {"good": 0, "not_good": 1, "beyond": 2}
SLICE = 1 << 20

# P-256: SP 800-186 3.2.1.3.
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
A = P - 3
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


class Refused(Exception):
    """A list that is not used; its argument is the reason's name."""


def add(one, other):
    """Points in affine coordinates; None is the point at infinity."""
    if one is None or other is None:
        return one or other
    (x1, y1), (x2, y2) = one, other
    if x1 == x2 and (y1 + y2) % P == 0:
        return None
    if one == other:
        slope = (3 * x1 * x1 + A) * pow(2 * y1, -1, P)
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, P)
    x3 = (slope * slope - x1 - x2) % P
    return x3, (slope * (x1 - x3) - y1) % P


def multiply(factor, point):
    product = None
    while factor:
        if factor & 1:
            product = add(product, point)
        point = add(point, point)
        factor >>= 1
    return product


def read_point(octets):
    if len(octets) != 65 or octets[0] != 4:
        raise Refused("bad_key")
    x, y = int.from_bytes(octets[1:33], "big"), int.from_bytes(octets[33:], "big")
    if x >= P or y >= P or (y * y - x * x * x - A * x - B) % P:
        raise Refused("bad_key")
    return x, y


def verify(point, message, signature):
    """ECDSA on P-256 with SHA-256: FIPS 186-5 6.4.2."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if not (1 <= r < N and 1 <= s < N):
        return False
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = pow(s, -1, N)
    sum_ = add(multiply(digest * inverse % N, G), multiply(r * inverse % N, point))
    return sum_ is not None and sum_[0] % N == r


class Header:
    LENGTH = 84
    FIELDS = struct.Struct(">4s8s16s20sIHBBQQQI")

    def __init__(self, octets):
        if len(octets) < self.LENGTH + 64:
            raise Refused("malformed")
        (magic, self.key_id, self.fleet, self.authority, self.epoch, self.slice, self.shift, self.width, self.sequence,
         self.this_update, self.next_update, self.count) = self.FIELDS.unpack_from(octets)
        if magic != b"FMS1":
            raise Refused("unknown_version")
        if (self.next_update <= self.this_update or self.slice > 4095 or not 1 <= self.count <= SLICE or self.shift > 20
                or self.width > 21 or (self.shift == 0 and self.width != 0) or len(octets) - self.LENGTH - 64 > (self.count + 7) // 8):
            raise Refused("malformed")


class Bits:
    def __init__(self, octets):
        self.text = "".join(f"{octet:08b}" for octet in octets)
        self.at = 0

    def number(self, count):
        if self.at + count > len(self.text):
            raise Refused("bad_blocks")
        digits = self.text[self.at:self.at + count]
        self.at += count
        return int(digits, 2) if digits else 0

    def end_plainly(self):
        rest = self.text[self.at:]
        if len(rest) > 7 or "1" in rest:
            raise Refused("bad_blocks")


def not_good(header, body):
    """A bytearray with 1 for each index of the slice that is not good."""
    bits = Bits(body)
    listed = bytearray(header.count)
    if header.shift == 0:
        for index in range(header.count):
            listed[index] = bits.number(1)
        bits.end_plainly()
        return listed
    size = 1 << header.shift
    blocks = -(-header.count // size)
    directory = [(bits.number(header.width), bits.number(6)) for _ in range(blocks + 1)]
    codes = bits.at
    if directory[0][0] != 0 or directory[-1][1] != 0:
        raise Refused("bad_blocks")
    for block in range(blocks):
        (offset, parameters), (end, _) = directory[block], directory[block + 1]
        lists_good, rice = parameters >> 5, parameters & 31
        first, length = block * size, min(size, header.count - block * size)
        if bits.at != codes + offset:
            raise Refused("bad_blocks")
        if lists_good:
            listed[first:first + length] = b"\1" * length
        following = 0
        while bits.at < codes + end:
            high = 0
            while bits.number(1) == 0:
                high += 1
            index = following + (high << rice) + bits.number(rice)
            if rice > 20 or index >= length:
                raise Refused("bad_blocks")
            listed[first + index] = 1 - lists_good
            following = index + 1
    if bits.at != codes + directory[-1][0]:
        raise Refused("bad_blocks")
    bits.end_plainly()
    return listed


def open_list(octets, case):
    """The header and what is not good, or Refused; checks in the order of docs/status-list.md."""
    key = bytes.fromhex(case["point"])
    point = read_point(key)
    header = Header(octets)
    for wrong, reason in (
        (header.key_id != hashlib.sha256(key).digest()[:8], "other_key"),
        (header.fleet.hex() != case["fleet"], "other_fleet"),
        (header.authority.hex() != case["authority"], "other_authority"),
        (header.epoch != case["epoch"], "other_epoch"),
        (header.slice != case["slice"], "other_slice"),
        (header.sequence < case["lowest_sequence"], "rolled_back"),
        (header.this_update > case["now"] + 300, "not_yet"),
        (header.next_update < case["now"], "stale"),
        (case["now"] - header.this_update > case["max_age"], "too_old"),
        (not verify(point, octets[:-64], octets[-64:]), "bad_signature"),
    ):
        if wrong:
            raise Refused(reason)
    return header, not_good(header, octets[Header.LENGTH:-64])


def answer(header, listed, index):
    if index // SLICE != header.slice or index % SLICE >= header.count:
        return ANSWERS["beyond"]
    return ANSWERS["not_good"] if listed[index % SLICE] else ANSWERS["good"]


def bitmap(listed):
    text = "".join("1" if one else "0" for one in listed)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def gaps_of(listed):
    following = 0
    for index in listed:
        yield index - following
        following = index + 1


def plan(listed, shift):
    """Blocks by rules 1 and 2: (lists good, k, bits, gaps) each."""
    for start in range(0, len(listed), 1 << shift):
        block = listed[start:start + (1 << shift)]
        lists_good = 2 * sum(block) > len(block)
        gaps = list(gaps_of(index for index, one in enumerate(block) if one != lists_good))
        bits, rice = min((sum((gap >> rice) + 1 + rice for gap in gaps), rice) for rice in range(21))
        yield lists_good, rice, bits, gaps


def encoded(listed):
    """The body by the rules of docs/status-list.md: shift, width, octets."""
    plans = {}
    for shift in range(6, 21):
        blocks = list(plan(listed, shift))
        codes = sum(block[2] for block in blocks)
        width = codes.bit_length()
        plans[shift] = ((len(blocks) + 1) * (width + 6) + codes, shift, width, blocks)
    fewest = min(size for size, *_ in plans.values())
    size, shift, width, blocks = next(plan for plan in plans.values() if plan[0] <= fewest + fewest // 32)
    if (size + 7) // 8 >= (len(listed) + 7) // 8:
        return 0, 0, bitmap(listed)
    number = lambda value, count: f"{value:0{count}b}" if count else ""
    directory, codes, offset = "", "", 0
    for lists_good, rice, bits, gaps in blocks:
        directory += number(offset, width) + number(lists_good, 1) + number(rice, 5)
        codes += "".join("0" * (gap >> rice) + "1" + number(gap & (1 << rice) - 1, rice) for gap in gaps)
        offset += bits
    return shift, width, bitmap([int(bit) for bit in directory + number(offset, width) + "000000" + codes])


def differences(case, octets):
    try:
        header, listed = open_list(octets, case)
    except Refused as refused:
        return [] if refused.args[0] == case["open"] else [f"refused as {refused}, not {case['open']}"]
    if case["open"] != "opened":
        return [f"opened, not {case['open']}"]
    found = []
    if header.count != case["count"] or hashlib.sha256(bitmap(listed)).hexdigest() != case["bitmap_sha256"]:
        found.append("says other things of its indices")
    if case["by_the_rules"] and encoded(listed) != (header.shift, header.width, octets[Header.LENGTH:-64]):
        found.append("made anew from what it says, it is another")
    for index, expected in case["queries"]:
        said = answer(header, listed, index)
        if said != expected:
            found.append(f"{index}: {said}, not {expected}")
    return found


def judge(directory):
    failed = 0
    for case in json.loads((directory / "vectors.json").read_text()):
        found = differences(case, (directory / case["file"]).read_bytes())
        failed += bool(found)
        print("FAIL" if found else "ok", case["name"], *found)
    return 1 if failed else 0


def show(file):
    octets = file.read_bytes()
    header = Header(octets)
    listed = not_good(header, octets[Header.LENGTH:-64])
    for name, value in vars(header).items():
        print(f"{name:12} {value.hex() if isinstance(value, bytes) else value}")
    print(f"{'not good':12} {sum(listed)}")
    print(f"{'body':12} {len(octets) - Header.LENGTH - 64} octets")
    return 0


def main(arguments):
    match arguments:
        case ["vectors", directory]:
            return judge(pathlib.Path(directory))
        case ["show", file]:
            return show(pathlib.Path(file))
    print(__doc__.strip(), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

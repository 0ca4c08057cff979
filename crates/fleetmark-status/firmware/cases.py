#!/usr/bin/env python3
"""Writes the vectors as C: usage: cases.py DIRECTORY >cases.c"""

import json
import pathlib
import sys

directory = pathlib.Path(sys.argv[1])
cases = json.loads((directory / "vectors.json").read_text())


def octets(data):
    return "{" + ",".join(str(octet) for octet in data) + "}"


print('#include "cases.h"')
for number, case in enumerate(cases):
    # An empty array is no C.
    print(f"static const uint8_t octets_{number}[] = {octets((directory / case['file']).read_bytes() or bytes(1))};")
    queries = ",".join(f"{{{index}u,{code}}}" for index, code in case.get("queries", [])) or "{0,0}"
    print(f"static const query queries_{number}[] = {{{queries}}};")
print("const vector vectors_of_docs[] = {")
for number, case in enumerate(cases):
    length = (directory / case["file"]).stat().st_size
    terms = ", ".join([
        ".fleet = " + octets(bytes.fromhex(case["fleet"])),
        ".authority = " + octets(bytes.fromhex(case["authority"])),
        f".epoch = {case['epoch']}u, .slice = {case['slice']}, .now = {case['now']}ull",
        f".lowest_sequence = {case['lowest_sequence']}ull, .max_age = {case['max_age']}u",
    ])
    print(f'    {{"{case["name"]}", octets_{number}, {length}, {octets(bytes.fromhex(case["point"]))}, {{{terms}}}, {case["code"]},'
          f" queries_{number}, {len(case.get('queries', []))}}},")
print(f"}};\nconst uint32_t vector_count = {len(cases)};")

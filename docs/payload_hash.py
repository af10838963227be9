#!/usr/bin/env python3
"""The payload hash of Countersign, with Python's standard library alone. PAYLOAD-HASH.md is the definition.

    payload_hash.py PARAMS.json ANSWER.json      check an approval of a gateway against the parameters that were sent
    payload_hash.py --vectors VECTORS.json       check published test vectors
"""

import hashlib
import hmac
import json
import sys


def canonical(value):
    """Canonical JSON (RFC 8785) of a value."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(canonical(key) + ":" + canonical(value[key]) for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return json.dumps(value, ensure_ascii=False)


def number(value):
    """A number as JavaScript writes it."""
    double = float(value)
    if double != value or double - double != 0:
        raise ValueError(f"{value} is no number that a double holds")
    if double == 0:
        return "0"
    # Python and JavaScript choose the same digits, and write the exponent in different ways.
    mantissa, _, exponent = repr(abs(double)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    point = len(whole) + int(exponent or 0)
    digits = whole + fraction
    point -= len(digits) - len(digits.lstrip("0"))
    digits = digits.strip("0")
    count = len(digits)
    if count <= point <= 21:
        text = digits + "0" * (point - count)
    elif 0 < point <= 21:
        text = digits[:point] + "." + digits[point:]
    elif -6 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        text = digits[0] + ("." + digits[1:] if count > 1 else "") + f"e{point - 1:+d}"
    return "-" + text if double < 0 else text


def commitments(params, salt):
    """What stands for each parameter: in version 2, which has a salt, an HMAC; in version 1 a plain digest."""
    def commit(value):
        text = canonical(value).encode()
        if salt is None:
            return hashlib.sha256(text).hexdigest()
        return hmac.new(bytes.fromhex(salt), text, hashlib.sha256).hexdigest()

    return {key: commit(value) for key, value in params.items()}


def payload_hash(params, salt):
    """The payload hash of parameters. `salt` is hexadecimal, or None in version 1."""
    return hashlib.sha256(canonical(commitments(params, salt)).encode()).hexdigest()


def agreed(params, answer):
    """What was agreed to: the parameters that were sent, with what approvers changed and removed."""
    removed = answer.get("removed") or []
    kept = {key: value for key, value in params.items() if key not in removed}
    return {**kept, **(answer.get("overrides") or {})}


def check_vectors(path):
    """Checks published vectors; says which are wrong."""
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)
    wrong = 0
    for vector in vectors:
        salt = vector.get("salt")
        params = agreed(vector["params"], vector)
        expected = (vector["commitments"], vector["payload_hash"])
        if (commitments(params, salt), payload_hash(params, salt)) != expected:
            print("wrong:", vector["name"])
            wrong += 1
    print(len(vectors), "vectors,", wrong, "wrong")
    return wrong == 0 and len(vectors) > 0


def unique(pairs):
    """An object, if no member of it is there twice."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def check_answer(params_path, answer_path):
    """Checks an approval and the payload hash in it, and prints what was agreed to."""
    with open(params_path, encoding="utf-8") as file:
        params = json.load(file, object_pairs_hook=unique)
    with open(answer_path, encoding="utf-8") as file:
        answer = json.load(file, object_pairs_hook=unique)
    if answer["status"] != "approved":
        print("the request is not approved:", answer["status"], file=sys.stderr)
        return False
    salt = answer["payloadSalt"] if answer["payloadHashVersion"] == 2 else None
    run = agreed(params, answer)
    if payload_hash(run, salt) != answer["payloadHash"]:
        print("the payload hash is not that of these parameters", file=sys.stderr)
        return False
    print(json.dumps(run))
    return True


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    good = check_vectors(sys.argv[2]) if sys.argv[1] == "--vectors" else check_answer(sys.argv[1], sys.argv[2])
    sys.exit(0 if good else 1)

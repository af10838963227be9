#!/usr/bin/env python3
"""Checks a receipt of Countersign with a JOSE library (jwcrypto), as docs/RECEIPTS.md says.

    verify_receipt.py RECEIPT JWKS

RECEIPT is a file that holds the receipt, JWKS one that holds what the gateway publishes at
/.well-known/jwks.json. Prints the document of a genuine receipt. The exit codes are those of
`countersign receipt verify` without an action and parameters, which whoever acts on a receipt
has to compare with its own:

    0  it is genuine, and an approval that still counts
    1  it is not genuine: malformed, changed, or signed with another key
    2  it could not be checked: a file or an argument is wrong
    4  it is genuine, and no approval
    5  it is a genuine approval whose time to be consumed is over
"""

import datetime
import json
import re
import sys
import time

from jwcrypto import jwk, jws
from jwcrypto.common import JWException, base64url_decode

TYPE = "countersign-receipt+jws"


def unique(pairs):
    """An object, if no member of it is there twice."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def verify(receipt: str, keys: jwk.JWKSet) -> dict:
    """The document of a receipt; raises an exception if one of these keys has not signed it."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", receipt):
        raise ValueError("it is no JWS in compact form")
    header = json.loads(base64url_decode(receipt.split(".")[0]), object_pairs_hook=unique)
    if not isinstance(header, dict) or set(header) != {"alg", "kid", "typ"}:
        raise ValueError("its header is not that of a receipt")
    if header["typ"] != TYPE or header["alg"] != "EdDSA" or not isinstance(header["kid"], str):
        raise ValueError("it is not signed as receipts are")
    key = keys.get_key(header["kid"])
    if key is None:
        raise ValueError("it is signed with another key")
    token = jws.JWS()
    token.allowed_algs = ["EdDSA"]
    token.deserialize(receipt, key)
    document = json.loads(token.payload, object_pairs_hook=unique)
    if document.get("version") != 1:
        raise ValueError("it is of another version")
    return document


def lapsed(document: dict) -> bool:
    """Whether the time in which the approval could be consumed is over."""
    until = document.get("validUntil")
    if until is None:
        return False
    return time.time() >= datetime.datetime.fromisoformat(until.replace("Z", "+00:00")).timestamp()


def main(arguments: list) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as file:
            receipt = file.read().strip()
        with open(arguments[1], encoding="utf-8") as file:
            keys = jwk.JWKSet.from_json(file.read())
    except (OSError, JWException, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        document = verify(receipt, keys)
    except (JWException, ValueError) as error:
        print(f"not genuine: {error}", file=sys.stderr)
        return 1
    print(json.dumps(document, indent=2, sort_keys=True))
    if document["decision"] != "approved":
        print(f"not approved: {document['decision']}", file=sys.stderr)
        return 4
    if lapsed(document):
        print(f"lapsed {document['validUntil']}", file=sys.stderr)
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""Checks a receipt of Countersign with a JOSE library (jwcrypto), as docs/RECEIPTS.md says.

    verify_receipt.py RECEIPT JWKS

RECEIPT is a file that holds the receipt, JWKS one that holds what the gateway publishes at
/.well-known/jwks.json. Prints the document; ends with 1 if the receipt is not genuine.
"""

import json
import sys

from jwcrypto import jwk, jws
from jwcrypto.common import JWException

TYPE = "countersign-receipt+jws"


def verify(receipt: str, keys: jwk.JWKSet) -> dict:
    """The document of a receipt; raises an exception if one of these keys has not signed it."""
    token = jws.JWS()
    token.allowed_algs = ["EdDSA"]
    token.deserialize(receipt)
    header = token.jose_header
    if header.get("typ") != TYPE or header.get("alg") != "EdDSA":
        raise ValueError("it is not signed as receipts are")
    key = keys.get_key(header.get("kid"))
    if key is None:
        raise ValueError("it is signed with another key")
    token.verify(key)
    document = json.loads(token.payload)
    if document.get("version") != 1:
        raise ValueError("it is of another version")
    return document


def main() -> int:
    receipt_file, keys_file = sys.argv[1:]
    with open(receipt_file, encoding="utf-8") as file:
        receipt = file.read().strip()
    with open(keys_file, encoding="utf-8") as file:
        keys = jwk.JWKSet.from_json(file.read())
    try:
        document = verify(receipt, keys)
    except (JWException, ValueError) as error:
        print(f"not genuine: {error}", file=sys.stderr)
        return 1
    print(json.dumps(document, indent=2, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())

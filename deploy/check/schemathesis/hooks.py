"""What the OpenAPI document cannot say of a call, since it is about two parts of it together, is put right before it is
sent: so that a call which keeps to the document is one that the gateway must take."""

import hashlib
import json
import os
import re

import schemathesis

REQUESTER = {"id": "U0DANA", "source": "slack"}
# A request that has ended, so that nobody waits for it.
TOKEN, REQUEST = os.environ["WAIT_TOKEN"], os.environ["REQUEST_ID"]
# Who calls, if there is an access file.
CALLER_KEY = os.environ["CALLER_KEY"]
DIGEST = "0" * 64
# The largest whole number that is no other one in any program: 2^53 - 1.
LARGEST = 9007199254740991


@schemathesis.serializer("application/wasm")
def module(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()


def lacks(fields, name):
    return not isinstance(fields.get(name), str) or not fields[name].strip()


def readable(value):
    """The value, with whole numbers that every program reads alike: no schema says that of JSON of any form."""
    if isinstance(value, dict):
        return {name: readable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [readable(inner) for inner in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) > LARGEST:
        return LARGEST
    return value


def known(text, value):
    """One in two texts, as a token or an id that opens something: one that is made up comes no further than `not_found`."""
    return value if sum(text.encode("utf-8", "replace")) % 2 == 0 else text


def own_key(body):
    """An idempotency key of this body alone: whoever sends one with another body is refused."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def is_id(text):
    return isinstance(text, str) and re.fullmatch("req_[0-7][0-9a-hjkmnp-tv-z]{25}", text)


@schemathesis.hook
def before_call(ctx, case, kwargs):
    path, body = case.path, case.body
    for given, name in ((case.path_parameters, "id"), (case.query, "requestId")):
        if given and is_id(given.get(name)):
            given[name] = known(given[name], REQUEST)
    if case.query and not lacks(case.query, "token"):
        case.query["token"] = known(case.query["token"], TOKEN)
    if case.query and isinstance(case.query.get("timeoutSec"), (int, float)) and 1 < case.query["timeoutSec"] <= 60:
        # Nobody decides meanwhile.
        case.query["timeoutSec"] = 1
    if path in ("/api/guard/wait", "/api/guard/wait-sse") and case.method.upper() == "GET":
        # A token or a request: each may be left out, not both.
        if case.query is not None and lacks(case.query, "token"):
            case.query["token"] = TOKEN
    if path == "/api/guard/bundle":
        # It is opened by a token in the header alone; a caller shows its key in a second one, which cannot be sent here.
        case.headers["Authorization"] = f"Bearer {TOKEN}"
    elif path.startswith("/api/guard/") and CALLER_KEY:
        case.headers["Authorization"] = f"Bearer {CALLER_KEY}"
    if not isinstance(body, dict):
        return
    # A new object, since others have parts of this one, too. Several parts may have any form.
    for name in list(body):
        body[name] = readable(body[name])
    if path == "/api/guard/request":
        # Whether a requester must be said depends on the caller.
        meta = body.get("meta")
        if isinstance(meta, dict) and meta.get("requester") is None:
            meta["requester"] = dict(REQUESTER)
    elif path.startswith("/api/guard/") and ("token" not in body or body["token"] in (None, "")):
        body["token"] = TOKEN
    elif path.startswith("/api/guard/") and isinstance(body["token"], str):
        body["token"] = known(body["token"], TOKEN)
    if "token" in body and case.headers is not None and not CALLER_KEY:
        # It may be sent in the header or in the body, and in both only if they agree.
        case.headers.pop("Authorization", None)
    if path == "/api/guard/consume":
        # One of two.
        if body.get("params") is not None:
            body.pop("payloadHash", None)
        elif body.get("payloadHash") is None:
            body["payloadHash"] = DIGEST
    sent = (case.headers or {}).get("Idempotency-Key")
    if isinstance(sent, str) and re.fullmatch("[!-~]{1,255}", sent):
        case.headers["Idempotency-Key"] = own_key(body)

"""Verifies requests of Tidings; see README.md."""

import base64
import hashlib
import hmac
import os
import sys
import time

TOLERANCE_SECONDS = 300


def verify_eds(secret, webhook_id, timestamp, signatures, body, now=None):
    """Raises ValueError unless the request was signed with `secret` just now."""
    now = time.time() if now is None else now
    if not timestamp.isascii() or not timestamp.isdigit():
        raise ValueError("the timestamp is not a number")
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise ValueError("the timestamp is too far from now")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = webhook_id.encode() + b"." + timestamp.encode() + b"." + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    for signature in signatures.split(" "):
        if hmac.compare_digest(signature.encode(), expected.encode()):
            return
    raise ValueError("no signature fits")


def verify_merchant(key, signature, body):
    """Raises ValueError unless the body was signed with `key`."""
    expected = hmac.digest(key.encode(), body, hashlib.sha256).hex()
    if not hmac.compare_digest(signature.encode(), expected.encode()):
        raise ValueError("the signature does not fit")


def main():
    secret, body = os.environ["WEBHOOK_SECRET"], sys.stdin.buffer.read()
    try:
        if len(sys.argv) == 4:
            verify_eds(secret, *sys.argv[1:], body)
        elif len(sys.argv) == 2:
            verify_merchant(secret, sys.argv[1], body)
        else:
            sys.exit("usage: verify.py ID TIMESTAMP SIGNATURES | verify.py X_SIGNATURE")
    except ValueError as error:
        sys.exit(f"not verified: {error}")
    print("verified")


if __name__ == "__main__":
    main()

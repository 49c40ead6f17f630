"""Judges requests as a receiver in Python would.

Reads a JSON file with a list of requests; says how many verified and how many
were refused, and ends with 1 when one was judged otherwise than it says.
"""

import base64
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def verifies_v1(request, body):
    try:
        Webhook(request["secret"]).verify(body, request["headers"], json_parse=False)
        return True
    except WebhookVerificationError:
        return False


def verifies_v1a(request, body):
    headers = request["headers"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    signatures = [
        base64.b64decode(text.removeprefix("v1a,"))
        for text in headers["webhook-signature"].split(" ")
        if text.startswith("v1a,")
    ]
    for key in request["keys"]:
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key + "=="))
        for signature in signatures:
            try:
                public.verify(signature, signed)
                return True
            except InvalidSignature:
                pass
    return False


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        requests = json.load(file)
    counts = {True: 0, False: 0}
    for request in requests:
        body = base64.b64decode(request["body"])
        for scheme, verifies in (("v1", verifies_v1), ("v1a", verifies_v1a)):
            found = verifies(request, body)
            if found != request[scheme]:
                sys.exit(f"{request['name']}: {scheme} is {found}")
            counts[found] += 1
    print(f"verified {counts[True]} refused {counts[False]}")


main()

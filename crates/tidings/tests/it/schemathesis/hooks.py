"""Gives Schemathesis what no schema can say: things that exist, and references between
the parts of a request that fit. What it generates against the schema goes out untouched.

What a case changes or deletes is made for it, through the API as a client would. Run as a
program, it makes what all cases only read, and prints that as JSON."""

import datetime
import itertools
import json
import os
import pathlib
import re
import threading
import time

import requests
import schemathesis
from schemathesis.core.parameters import ParameterLocation as Place
from schemathesis.generation.meta import TestPhase

URL, RECEIVER = os.environ["TIDINGS_URL"], os.environ["RECEIVER_URL"]
PEM = json.loads(os.environ["PEM"])
TOKEN = {"authorization": f"Bearer {os.environ['TIDINGS_TOKEN']}"}
COUNT = itertools.count(1)
FORBIDDEN = {"pan", "cvv", "pin", "cvv2", "track1", "track2", "pinblock"}
# Whose webhooks the cases are about, and whose events they publish: nothing is sent for those.
MANAGER, PUBLISHER = 20, 21
# A configuration of 112 stays for ever, one for each product: each process has its own.
PRODUCTS = [str(number) for number in range(500_000, 501_200)]
TENANTS = {
    "issuers": [{"id": "7001", "name": "Issuer 7001"}],
    "programmeManagers": [
        {"id": MANAGER, "code": "TRD", "issuer": "7001"},
        {"id": PUBLISHER, "code": "ABC", "issuer": "7001"},
    ],
    "products": [{"id": id, "programmeManager": MANAGER} for id in PRODUCTS],
    "merchants": [
        {
            "key": "m_9f2",
            "programmeManager": MANAGER,
            "sourceKeys": [{"id": "src1", "value": "a source key"}],
        }
    ],
}
LOCAL = threading.local()
CODES = [101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 115, 117]
SALE = "transaction.sale.success"


def ask(method, path, body=None, headers=None):
    if not hasattr(LOCAL, "session"):
        LOCAL.session = requests.Session()
    headers = TOKEN | (headers or {})
    return LOCAL.session.request(method, URL + path, json=body, headers=headers)


def done(method, path, body=None):
    answer = ask(method, path, body)
    assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json()["response"] if answer.content else None


def until(what, look):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {what}")


def webhook(**members):
    body = {"config": {"url": RECEIVER}} | members
    return done("POST", "/api/v1/Webhooks", body)["webhookId"]


def hook(**members):
    body = {"merchant": "m_9f2", "url": RECEIVER, "events": [SALE]}
    return done("POST", "/admin/v1/hooks", body | members)["hookId"]


def alert(id):
    payload = {
        "fraudAlertId": id, "transactionId": 1, "tokenId": 1, "transactionAmount": "1",
        "currency": "USD", "dateTime": "2024-01-24T23:20:28Z", "notificationMessageContent": "?",
    }
    context = {"programManagerId": MANAGER, "eventCode": 101}
    return {"context": context, "payload": payload}


def delivered(path, count):
    """The notifications below `path` once that many have been delivered."""

    def look():
        items = done("GET", f"{path}/notifications?from=2024-01-01")["content"]
        sent = [item for item in items if item["notificationStatus"] == "Delivered"]
        return sent if len(sent) >= count else None

    return until("deliveries", look)


def prepare():
    """A webhook and a hook with notifications, alerts, and a record in quarantine."""
    done("PUT", "/admin/v1/tenants", TENANTS)
    world = {"webhook": webhook(events=[101, 104]), "hook": hook()}
    for event in [alert("Yes"), alert("No")]:
        done("POST", "/ingest/v1/events", event)
    for number in range(3):
        context = {"programManagerId": MANAGER, "eventCode": 104}
        payload = {"messageId": f"m-{number}", "publicToken": "1"}
        done("POST", "/ingest/v1/events", {"context": context, "payload": payload})
        body = {"merchant": {"merch_key": "m_9f2"}, "object": {"key": "k"}}
        event = {"event_type": SALE, "event_id": number, "event_body": body}
        done("POST", "/ingest/v1/events", event)
    done("POST", "/admin/v1/raw/104", {"no": "event"})
    events = f"/api/v1/Webhooks/{world['webhook']}/events"
    world["notifications"] = delivered(f"{events}/104", 3)
    alerts = delivered(f"{events}/101", 2)
    world["alerts"] = {item["payload"]["fraudAlertId"]: item for item in alerts}
    world["hook_notifications"] = delivered(f"/admin/v1/hooks/{world['hook']}/events/{SALE}", 3)
    entries = lambda: done("GET", "/admin/v1/quarantine")["content"]
    world["quarantined"] = until("quarantined record", entries)[0]["id"]
    return world


if __name__ == "__main__":
    print(json.dumps(prepare()))
    raise SystemExit


def configuration():
    body = {"status": "active", "messageTypeFilter": [0], "productId": PRODUCTS.pop()}
    return done("POST", "/api/v1/Configs", body)["content"][0]["configId"]


WORLD = json.loads(pathlib.Path(os.environ["WORLD"]).read_text())
SHARE = int(os.environ["SHARE"])
PRODUCTS = PRODUCTS[SHARE::3]
WORLD["configuration"] = configuration()
WORLD["merchants"] = hook()
WORLD["operators"] = hook(merchant=None, events=["webhook.suspended"])
MADE = set()


def is_sound(case, place):
    return case.meta is None or not case.meta.is_negative_at(place)


def operation_of(case):
    """The name of the operation under its first path and method."""
    name = case.operation.definition.raw["operationId"].removesuffix("OfHub")
    return re.sub("By[A-Z]{3,}$", "", name)


@schemathesis.hook
def before_load_schema(context, schema):
    """Examples of answers stay out of requests: half of all cases would have the same ids."""
    for methods in schema["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                for media in response.get("content", {}).values():
                    media.pop("example", None)


@schemathesis.hook
def before_call(context, case, kwargs):
    name = operation_of(case)
    body = case.body if is_sound(case, Place.BODY) and isinstance(case.body, (dict, list)) else None
    if body is not None:
        body = case.body = whole(body)
    if body is not None and name in BODIES:
        BODIES[name](body)
    if is_sound(case, Place.PATH):
        give_path(case, name, body if isinstance(body, dict) else {})
        if body is not None and name in ECHOES:
            ECHOES[name](case, body)
    if is_sound(case, Place.QUERY):
        give_query(case)
    if is_sound(case, Place.HEADER):
        give_headers(case)


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code == 201:
        made = response.json()["response"]
        made = made.get("content", [made])[0]
        MADE.update(made[id] for id in ("webhookId", "hookId", "configId", "pauseId") if id in made)


def whole(value):
    """The same with 3 for 3.0: to JSON Schema both are integers, to the API only one is."""
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def give_path(case, name, body):
    path = case.path_parameters
    is_linked = case.meta is not None and case.meta.phase.name == TestPhase.STATEFUL
    # Which body a hook takes depends on whose it is.
    if is_linked and name != "UpdateHook" and any(id in MADE for id in path.values() if isinstance(id, str)):
        return  # Schemathesis goes on with what it made itself.
    if "webhookId" in path:
        path["webhookId"] = FRESH[name](body) if name in FRESH else WORLD["webhook"]
    if "hookId" in path:
        path["hookId"] = FRESH[name](body) if name in FRESH else WORLD["hook"]
    if "notificationId" in path:
        of = WORLD["hook_notifications"] if "hookId" in path else WORLD["notifications"]
        path["notificationId"] = of[0]["notificationId"]
    if "configId" in path:
        path["configId"] = WORLD["configuration"]
    if "id" in path:
        path["id"] = WORLD["quarantined"]
    if "topic" in path:
        path["topic"] = "104"
    if "pauseId" in path:
        made = done("POST", "/admin/v1/pauses", {"eventType": "117", "reason": "a case"})
        path["pauseId"] = made["pauseId"]


def give_query(case):
    query = case.query
    if "from" in query:
        query["from"] = min(query["from"], datetime.datetime.now(datetime.UTC).date().isoformat())
    if "cursor" in query:
        del query["cursor"]
        first = {"limit": 1, "count": 1}
        first = query | {name: 1 for name in first if name in described(case)}
        answer = requests.get(URL + case.formatted_path, params=first, headers=TOKEN)
        cursor = answer.json().get("response", {}).get("nextCursor")
        if cursor:
            query["cursor"] = cursor
    if "topic" in query:
        query["topic"] = "104"
    if "what" in query:
        query["what"] = WORLD["notifications"][0]["notificationId"]


def described(case):
    return [parameter.name for parameter in case.operation.query]


def give_headers(case):
    headers = case.headers
    if "X-PM-Code" in headers:
        headers["X-PM-Code"] = ["TRD", str(MANAGER)][next(COUNT) % 2]
    if "Idempotency-Key" in headers:
        headers["Idempotency-Key"] = f"{headers['Idempotency-Key'][:200]}-{SHARE}-{next(COUNT)}"
    if "If-Match" in headers:
        resource = case.formatted_path.removesuffix("/")
        for below in ("/status", "/subscriptions", "/signingSecret"):
            resource = resource.split(below)[0]
        headers["If-Match"] = ask("GET", resource).headers.get("etag", "*")


def fresh(**members):
    return lambda body: webhook(**members)


FRESH = {
    "DeleteWebhook": fresh(),
    "DeleteHook": lambda body: hook(),
    "RotateSecret": fresh(),
    "Heartbeat": fresh(),
    "Ping": fresh(),
    "AddSubscriptions": fresh(),
    "RemoveSubscriptions": lambda body: webhook(events=codes_of(body) or [101]),
    "RemoveSubscription": fresh(events=CODES),
    "SetStatus": lambda body: webhook(
        webhookStatus="active" if body.get("webhookStatus") == "inactive" else "inactive"
    ),
    "UpdateWebhook": fresh(),
    "UpdateHook": lambda body: WORLD["merchants"] if body.get("merchant") else WORLD["operators"],
}


def codes_of(body):
    events = body.get("events", [])
    return [event["eventCode"] if isinstance(event, dict) else event for event in events]


def of_webhook(body):
    if body.get("programManagerCode") is not None:
        body["programManagerCode"] = "TRD"
    if body.get("productId") is not None:
        body["productId"] = PRODUCTS[0]
    of_headers(body["config"])
    of_url(body["config"])
    of_tls(body["config"])
    of_sign_in(body["config"])


def of_tls(config):
    """Certificates and keys that are some, and fit."""
    tls = config.get("tls")
    if tls is not None:
        config["url"] = "https://127.0.0.1:9/"
        tls.update({name: PEM[name] for name in ("caBundle", "clientCertificate", "clientKey")})


def of_sign_in(config):
    sign_in = config.get("authentication") or {}
    if "privateKey" in sign_in:
        sign_in["privateKey"] = PEM["clientKey"]
    if "tokenUrl" in sign_in:
        sign_in["tokenUrl"] = "https://127.0.0.1:9/token"


def of_headers(config):
    """At most 500 characters in all, names that differ and are not the platform's."""
    headers = config.get("customHeaders")
    if headers:
        config["customHeaders"] = {
            f"x{number} {name}"[:64].strip(): value[:100].strip()
            for number, (name, value) in enumerate(headers.items())
        }


def of_url(holder):
    """At most 255 characters with the slash that a URL without a path gets."""
    if len(holder["url"]) == 255 and holder["url"].count("/") == 2:
        holder["url"] = holder["url"][:-1]


def of_hook(body):
    of_url(body)
    if body.get("merchant"):
        body["merchant"] = "m_9f2"
    signature = body.get("signature")
    if signature and signature["type"] == "sourceKey":
        signature["sourceKeyId"] = "src1"


def of_subscription(body):
    """Each code once, however it is written."""
    body["events"] = list(dict(zip(codes_of(body), body["events"])).values())


def of_configuration(body):
    if body.get("pmId") is not None:
        body["pmId"] = MANAGER
    body["productId"] = PRODUCTS.pop()


def of_pause(body):
    known = {
        "webhookId": WORLD["webhook"], "issuer": "7001", "programmeManager": PUBLISHER,
        "merchant": "m_9f2",
    }
    body.update({name: known[name] for name in known if body.get(name) is not None})


def of_ids(items):
    def give(body):
        body["notificationIds"][0] = items()[0]["notificationId"]
        body["notificationIds"] = list(dict.fromkeys(body["notificationIds"]))

    return give


def of_answer(body):
    alert = WORLD["alerts"][body["response"].capitalize()]
    body["fraudAlertId"] = alert["payload"]["fraudAlertId"]
    body["notificationId"] = alert["notificationId"]


def of_event(body):
    """A batch or one event of a manager without webhooks, without card secrets."""
    for event in body if isinstance(body, list) else [body]:
        if "context" in event:
            event["context"]["programManagerId"] = PUBLISHER
        without_secrets(event)


def without_secrets(value):
    if isinstance(value, dict):
        for name in [name for name in value if name.lower() in FORBIDDEN]:
            del value[name]
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            without_secrets(inner)


def of_tenants(body):
    """Whatever is named exists, is named once, and what the cases need stays."""
    own = next(COUNT) * 1000
    for number, manager in enumerate(body.get("programmeManagers", [])):
        manager.update(id=own + number, code=f"c{own + number}", issuer="7001")
    for kind in ("products", "merchants"):
        for entry in body.get(kind, []):
            entry["programmeManager"] = MANAGER
    names = {"issuers": "id", "programmeManagers": "id", "products": "id", "merchants": "key"}
    for kind, name in names.items():
        entries = TENANTS[kind] + body.get(kind, [])
        entries = {str(entry[name]): entry for entry in reversed(entries)}
        body[kind] = list(entries.values())
    for merchant in body["merchants"]:
        keys = merchant.get("sourceKeys", [])
        merchant["sourceKeys"] = list({key["id"]: key for key in keys}.values())


BODIES = {
    "CreateWebhook": of_webhook,
    "UpdateWebhook": of_webhook,
    "AddSubscriptions": of_subscription,
    "RemoveSubscriptions": of_subscription,
    "CreateConfiguration": of_configuration,
    "CreateHook": of_hook,
    "UpdateHook": of_hook,
    "CreatePause": of_pause,
    "Notifications": of_ids(lambda: WORLD["notifications"]),
    "Resend": of_ids(lambda: WORLD["notifications"]),
    "HookNotifications": of_ids(lambda: WORLD["hook_notifications"]),
    "HookResend": of_ids(lambda: WORLD["hook_notifications"]),
    "AnswerFraudAlert": of_answer,
    "Ingest": of_event,
    # No lines are no body.
    "Raw": lambda body: body.append({}) if body == [] else None,
    "ApplyTenants": of_tenants,
}


def echo_webhook(case, body):
    """Members that only answers have come back as they were."""
    stored = done("GET", f"/api/v1/Webhooks/{case.path_parameters['webhookId']}")
    stored["webhookid"] = stored["webhookId"]
    for name in ("webhookId", "webhookid", "createdTime", "lastModifiedTime"):
        if body.get(name):
            body[name] = stored[name]


def echo_hook(case, body):
    if body.get("hookId"):
        body["hookId"] = case.path_parameters["hookId"]


ECHOES = {"UpdateWebhook": echo_webhook, "UpdateHook": echo_hook}


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    items = value if isinstance(value, list) else [value]
    return "\n".join(json.dumps(item) for item in items).encode()


@schemathesis.deserializer("application/openmetrics-text")
def text(context, response):
    return response.content.decode()

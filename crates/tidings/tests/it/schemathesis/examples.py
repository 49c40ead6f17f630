"""Every example of the description is what its schema says."""

import json
import sys

import jsonschema_rs

document = json.load(open(sys.argv[1]))
components = {"components": document["components"]}
wrong = []
checked = 0


def check(place, schema, value):
    global checked
    checked += 1
    try:
        validator = jsonschema_rs.Draft202012Validator({**components, **schema})
        errors = [error.message for error in validator.iter_errors(value)]
    except Exception as error:
        errors = [repr(error)]
    wrong.extend(f"{place}: {error}" for error in errors)


def media(place, content):
    for kind, it in content.items():
        if "example" in it:
            check(place, it["schema"], it["example"])
        for name, example in it.get("examples", {}).items():
            if "$ref" in example:
                example = document["components"]["examples"][example["$ref"].rsplit("/", 1)[-1]]
            check(f"{place} {name}", it["schema"], example["value"])


successes = 0
for path, methods in document["paths"].items():
    for method, operation in methods.items():
        place = f"{method} {path}"
        media(place, operation.get("requestBody", {}).get("content", {}))
        for status, response in operation["responses"].items():
            content = response.get("content", {})
            media(f"{place} {status}", content)
            if status.startswith("2") and content:
                successes += 1
                if not all("example" in it for it in content.values()):
                    wrong.append(f"{place}: no example of its success")
for name, schema in document["components"]["schemas"].items():
    for example in schema.get("examples", []) if isinstance(schema, dict) else []:
        check(name, {"$ref": f"#/components/schemas/{name}"}, example)
print("\n".join(wrong))
print(f"{checked} examples, {successes} successes, {len(wrong)} wrong")
sys.exit(1 if wrong else 0)

"""Generates a Postman collection and environment from the OpenAPI document: `make postman`.

The first folder is the product's story in order, which passes tokens and ids on; the second has every call.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from entrypoints.http.documents.openapi_examples import example
from entrypoints.http.server.app import NAME, api_document

BASE_URL = "http://127.0.0.1:8000"
STORY = "The story"
COLLECTION, ENVIRONMENT = f"{NAME}.postman_collection.json", f"{NAME}.postman_environment.json"

_SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
#: Fields of requests that are filled from earlier responses.
_SAVED = ("mobile", "otp", "refreshToken", "chatroomId", "messageId", "sessionId")

_EVERYWHERE = """\
pm.test("names the request", () => pm.response.to.have.header("X-Request-ID"));
if (pm.response.code >= 400) {
  pm.test("is a problem with a code", () => {
    pm.expect(pm.response.headers.get("Content-Type")).to.include("application/problem+json");
    pm.expect(pm.response.json().code).to.match(/^[a-z_]+$/);
  });
}"""

Json = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A call of the story. `tests` and `save` (expressions by name) may use `body`, the JSON of a success."""

    name: str
    call: str
    statuses: tuple[int, ...]
    body: Json | None = None
    headers: dict[str, str] = field(default_factory=dict)
    before: str = ""
    save: dict[str, str] = field(default_factory=dict)
    tests: dict[str, str] = field(default_factory=dict)


_ANSWERED = {
    "has its reply": 'pm.expect(body.data.status).to.equal("completed");'
    ' pm.expect(body.data.response).to.be.a("string")'
}
_STREAMED = {
    "is a stream": 'pm.expect(pm.response.headers.get("Content-Type")).to.include("text/event-stream")',
    "ends with the message": 'pm.expect(pm.response.text()).to.match(/event: done\\ndata: .*"completed"/)',
}

STEPS = (
    Step(
        "Sign up",
        "sign_up",
        (201,),
        before="// Another number each time: an account has only a few messages a day.\n"
        'const digits = String(Math.floor(Math.random() * 1e6)).padStart(6, "0");\n'
        'pm.environment.set("mobile", "+919876" + digits);',
        tests={"is a new account": 'pm.expect(body.user.mobile).to.equal(pm.environment.get("mobile"))'},
    ),
    Step(
        "Ask for a one-time code",
        "send_otp",
        (200,),
        save={"otp": "body.otp"},
        tests={"hands it out, which only development does": "pm.expect(body.otp).to.match(/^[0-9]{6}$/)"},
    ),
    Step(
        "Log in with it",
        "verify_otp",
        (200,),
        save={"token": "body.token", "refreshToken": "body.refreshToken"},
        tests={
            "gives both tokens": 'pm.expect(body.token).to.be.a("string");'
            ' pm.expect(body.refreshToken).to.be.a("string")'
        },
    ),
    Step(
        "Who am I?",
        "get_profile",
        (200,),
        tests={
            "has a tier and what is left of it": 'pm.expect(body.data.subscriptionTier).to.be.oneOf(["Basic", "Pro"]);'
            ' pm.expect(body.data.usage).to.include.keys("used", "total", "remaining", "resetsAt")'
        },
    ),
    Step(
        "Open a chatroom",
        "create_chatroom",
        (201,),
        {"name": "Physics"},
        {"Idempotency-Key": "{{$guid}}"},
        save={"chatroomId": "body.data.id"},
        tests={"has its name": 'pm.expect(body.data.name).to.equal("Physics")'},
    ),
    Step(
        "Send a message",
        "send_message",
        (202,),
        headers={"Idempotency-Key": "{{$guid}}"},
        save={"messageId": "body.data.id"},
        tests={
            "is accepted and counted": "pm.expect(body.data.response).to.equal(null);"
            " pm.expect(body.dailyLimitInfo.used).to.be.at.least(1)"
        },
    ),
    Step("Wait for its reply", "get_message", (200,), headers={"Prefer": "wait=30"}, tests=_ANSWERED),
    Step(
        "Send another and have the reply streamed",
        "send_message",
        (200,),
        {"input": "And at sunset?"},
        {"Accept": "text/event-stream"},
        save={"messageId": "JSON.parse(pm.response.text().match(/event: done\\ndata: (.*)/)[1]).id"},
        tests=_STREAMED,
    ),
    Step(
        "Follow a reply from a certain character on",
        "stream_message",
        (200,),
        headers={"Last-Event-ID": "1-10"},
        tests={
            **_STREAMED,
            "begins after it": "pm.expect(pm.response.text()).to.match(/^id: 1-(1[1-9]|[2-9]\\d|\\d{3,})$/m)",
        },
    ),
    Step(
        "Send one to be stopped",
        "send_message",
        (202,),
        {"input": "Tell me everything about light."},
        save={"messageId": "body.data.id"},
        tests={"is on its way": 'pm.expect(body.data.status).to.be.oneOf(["queued", "generating"])'},
    ),
    Step(
        "Stop it",
        "cancel_message",
        (200, 202, 409),
        tests={
            "is stopped, unless the model was faster": "if (pm.response.code === 409)"
            ' pm.expect(pm.response.json().code).to.equal("message_ended");'
            " else pm.expect(body.data.id).to.equal(pm.environment.get('messageId'))"
        },
    ),
    Step("Ask again", "regenerate_message", (200,), headers={"Prefer": "wait=30"}, tests=_ANSWERED),
    Step(
        "Open a checkout for Pro",
        "subscribe_pro",
        (200,),
        headers={"Idempotency-Key": "{{$guid}}"},
        tests={"leads to Stripe": "pm.expect(body.url).to.match(/^https?:/)"},
    ),
    Step(
        "See the subscription",
        "get_subscription",
        (200,),
        tests={"nothing has been paid yet": 'pm.expect(body.data.tier).to.equal("Basic")'},
    ),
    Step(
        "See where one is logged in",
        "list_sessions",
        (200,),
        save={"sessionId": "body.data.find((session) => session.current).id"},
        tests={
            "this one is among them": "pm.expect(body.data.filter((session) => session.current)).to.have.lengthOf(1)"
        },
    ),
    Step(
        "Get new tokens",
        "refresh",
        (200,),
        tests={"are others": 'pm.expect(body.refreshToken).not.to.equal(pm.environment.get("refreshToken"))'},
        save={"token": "body.token", "refreshToken": "body.refreshToken"},
    ),
    Step("Log out", "log_out", (200,)),
    Step(
        "Find the token refused",
        "get_profile",
        (401,),
        tests={"at once": 'pm.expect(pm.response.json().code).to.equal("token_invalid")'},
    ),
)


def collection(document: Json) -> Json:
    calls = {call["operationId"]: (method, path, call) for method, path, call in _calls(document)}
    story = [_step(document, step, *calls[step.call]) for step in STEPS]
    every = [
        {
            "name": tag["name"],
            "description": tag["description"],
            "item": [_call(document, *call) for call in calls.values() if tag["name"] in call[2]["tags"]],
        }
        for tag in document["tags"]
    ]
    info = document["info"]
    return {
        "info": {
            "_postman_id": str(uuid5(NAMESPACE_URL, f"{NAME} collection")),
            "name": info["title"],
            "description": f"{info['summary']}\n\nUse it with the environment beside it: requests keep tokens and ids"
            f" there. Run “{STORY}” in order, or pick from “Every call”.\n\n{info['description']}",
            "version": info["version"],
            "schema": _SCHEMA,
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "event": [_script("test", _EVERYWHERE)],
        "variable": [{"key": "baseUrl", "value": BASE_URL}],
        "item": [
            {"name": STORY, "description": "From signing up to logging out.", "item": story},
            {"name": "Every call", "item": every},
        ],
    }


def environment() -> Json:
    secret = ("token", "refreshToken", "otp")
    return {
        "id": str(uuid5(NAMESPACE_URL, f"{NAME} environment")),
        "name": "Gemini backend",
        "values": [
            {"key": "baseUrl", "value": BASE_URL, "type": "default", "enabled": True},
            *(
                {"key": name, "value": "", "type": "secret" if name in secret else "default", "enabled": True}
                for name in ("token", *_SAVED)
            ),
        ],
        "_postman_variable_scope": "environment",
    }


def files() -> dict[str, str]:
    """By name."""
    made = {COLLECTION: collection(api_document()), ENVIRONMENT: environment()}
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in made.items()}


def _calls(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            yield method.upper(), path, call


def _step(document: Json, step: Step, method: str, path: str, call: Json) -> Json:
    statuses = f"pm.expect(pm.response.code).to.be.oneOf({json.dumps(list(step.statuses))})"
    lines = [_test("is answered as it should be", statuses)]
    uses_body = any("body." in expression for expression in (*step.tests.values(), *step.save.values()))
    if uses_body:
        lines.append("const body = pm.response.code < 300 ? pm.response.json() : null;")
    lines += [_test(name, expression) for name, expression in step.tests.items()]
    lines += [f'pm.environment.set("{name}", {expression});' for name, expression in step.save.items()]
    events = [_script("test", "\n".join(lines))]
    if step.before:
        events.insert(0, _script("prerequest", step.before))
    headers = [{"key": name, "value": value} for name, value in step.headers.items()]
    request = _request(document, method, path, call, headers=headers, body=step.body)
    return {"name": step.name, "event": events, "request": request, "response": []}


def _call(document: Json, method: str, path: str, call: Json) -> Json:
    declared = sorted(map(int, call["responses"]))
    tests = _test(
        "is answered as the document says", f"pm.expect(pm.response.code).to.be.oneOf({json.dumps(declared)})"
    )
    headers = [
        {"key": p["name"], "value": str(example(document, p["schema"])), "disabled": not p["required"]}
        | {"description": p["description"]}
        for p in call["parameters"]
        if p["in"] == "header"
    ]
    request = _request(document, method, path, call, headers=headers, body=None)
    return {"name": call["summary"].rstrip("."), "event": [_script("test", tests)], "request": request, "response": []}


def _request(document: Json, method: str, path: str, call: Json, *, headers: list[Json], body: Json | None) -> Json:
    request: Json = {
        "method": method,
        "header": headers,
        "url": _url(document, path, call["parameters"]),
        "description": "\n\n".join(filter(None, [call["summary"], call.get("description")])),
    }
    if "security" not in call:
        request["auth"] = {"type": "noauth"}
    if "requestBody" in call:
        schema = call["requestBody"]["content"]["application/json"]["schema"]
        given = body or _from_saved(example(document, schema))
        text = json.dumps(given, indent=2, ensure_ascii=False)
        request["body"] = {"mode": "raw", "raw": text, "options": {"raw": {"language": "json"}}}
    return request


def _from_saved(body: Any) -> Any:
    if not isinstance(body, dict):
        return {}
    return {name: f"{{{{{name}}}}}" if name in _SAVED else value for name, value in body.items()}


def _url(document: Json, path: str, parameters: Iterable[Json]) -> Json:
    segments = re.sub(r"{(\w+)}", r"{{\1}}", path).strip("/").split("/")
    query = [
        {"key": p["name"], "value": str(example(document, p["schema"])), "disabled": True}
        | {"description": p["description"]}
        for p in parameters
        if p["in"] == "query"
    ]
    url: Json = {"raw": "/".join(["{{baseUrl}}", *segments]), "host": ["{{baseUrl}}"], "path": segments}
    return {**url, "query": query} if query else url


def _test(name: str, expression: str) -> str:
    return f"pm.test({json.dumps(name)}, () => {{ {expression}; }});"


def _script(listen: str, text: str) -> Json:
    return {"listen": listen, "script": {"type": "text/javascript", "exec": text.split("\n")}}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()

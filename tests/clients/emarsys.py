"""Emarsys with Python's standard library: `emarsys.py v2` signs with WSSE, `emarsys.py v3` buys a token.

Syncs two contacts into a new list, reads them back and prints what it found as one line of JSON.
"""

import base64
import datetime
import hashlib
import json
import os
import secrets
import sys
import urllib.error
import urllib.parse
import urllib.request

URL = os.environ["EMARSYS_URL"]
VERSION = sys.argv[1]
# Loopback only: no proxy of the environment is asked.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wsse():
    nonce = secrets.token_hex(16)
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    text = nonce + created + os.environ["EMARSYS_SECRET"]
    digest = base64.b64encode(hashlib.sha1(text.encode()).hexdigest().encode()).decode()
    user = os.environ["EMARSYS_USERNAME"]
    token = f'UsernameToken Username="{user}", PasswordDigest="{digest}", Nonce="{nonce}", Created="{created}"'
    return {"X-WSSE": token}


def bearer():
    login = f'{os.environ["EMARSYS_CLIENT_ID"]}:{os.environ["EMARSYS_CLIENT_SECRET"]}'
    request = urllib.request.Request(
        f"{URL}/oauth2/token",
        urllib.parse.urlencode({"grant_type": "client_credentials"}).encode(),
        {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()},
    )
    with OPENER.open(request) as reply:
        token = json.load(reply)
    assert token["token_type"] == "Bearer" and token["expires_in"] == 3600, token
    return {"Authorization": "Bearer " + token["access_token"]}


def call(verb, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(wsse() if VERSION == "v2" else ACCESS)}
    request = urllib.request.Request(f"{URL}/api/{VERSION}/{path}", data, headers, method=verb)
    try:
        with OPENER.open(request) as reply:
            assert reply.headers["Content-Type"] == "text/html; charset=utf-8", reply.headers
            assert int(reply.headers["X-Ratelimit-Remaining"]) >= 0
            return json.load(reply)
    except urllib.error.HTTPError as error:
        return {"status": error.code, **json.load(error)}


ACCESS = {} if VERSION == "v2" else bearer()
field = call("POST", "field", {"name": "Loyalty points", "application_type": "numeric"})["data"]["id"]
names = {row["name"]: row["id"] for row in call("GET", "field/translate/en")["data"]}
assert names["Loyalty points"] == field and names["Email"] == 3, names
people = [{"3": "ada@shop.test", str(field): 7}, {"3": "bob@shop.test", "31": 1}]
written = call("PUT", "contact/?create_if_not_exists=1", {"key_id": "3", "contacts": people})
again = call("PUT", "contact/?create_if_not_exists=1", {"key_id": "3", "contacts": people})
assert all(isinstance(number, int) for number in written["data"]["ids"]), written
assert [str(number) for number in written["data"]["ids"]] == again["data"]["ids"], again
keys = {"key_id": "3", "external_ids": ["ada@shop.test", "zoe@shop.test"]}
made = call("POST", "contactlist", {"name": "spring buyers", **keys})["data"]
members = call("GET", f"contactlist/{made['id']}/contactIds?$top=10")["data"]
data = call("POST", "contact/getdata", {"keyId": 3, "keyValues": ["ada@shop.test"], "fields": [field]})
twice = call("POST", "contact", {"key_id": 3, "3": "ada@shop.test"})
print(json.dumps({
    "value": data["data"]["result"][0][str(field)],
    "members": members["value"] == written["data"]["ids"][:1],
    "unknown": list(made["errors"]["zoe@shop.test"]),
    "twice": [twice["status"], twice["replyCode"]],
}))

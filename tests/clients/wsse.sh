#!/bin/sh
# Emarsys with what every Debian has: a WSSE header made by openssl, and curl. Prints the replies, one a line.
# Needs EMARSYS_URL, EMARSYS_USERNAME and EMARSYS_SECRET.
set -eu

header() {
    nonce=$(openssl rand -hex 16)
    created=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    hex=$(printf '%s%s%s' "$nonce" "$created" "$EMARSYS_SECRET" | openssl dgst -sha1 -r | cut -d ' ' -f 1)
    digest=$(printf '%s' "$hex" | openssl base64 -A)
    printf 'X-WSSE: UsernameToken Username="%s", PasswordDigest="%s", Nonce="%s", Created="%s"' \
        "$EMARSYS_USERNAME" "$digest" "$nonce" "$created"
}

call() {
    verb=$1 path=$2
    shift 2
    curl -sS -X "$verb" "$EMARSYS_URL/api/v2/$path" -H "$(header)" -H 'Content-Type: application/json' "$@"
    echo
}

call GET settings
call PUT 'contact/?create_if_not_exists=1' -d '{"key_id":"3","contacts":[{"3":"ada@shop.test","1":"Ada"},{"3":"bob@shop.test"}]}'
call PUT 'contact/?create_if_not_exists=0' -d '{"key_id":"3","contacts":[{"3":"ada@shop.test","2":"L."},{"3":"zoe@shop.test"}]}'
call POST contact/getdata -d '{"keyId":"3","keyValues":["ada@shop.test"],"fields":["1","2"]}'
call GET 'contact/3=bob@shop.test'
# The bytes of the digest instead of its text: the usual mistake.
nonce=0123456789abcdef0123456789abcdef created=$(date -u +%Y-%m-%dT%H:%M:%SZ)
wrong=$(printf '%s%s%s' "$nonce" "$created" "$EMARSYS_SECRET" | openssl dgst -sha1 -binary | openssl base64 -A)
curl -sS -w ' %{http_code}\n' "$EMARSYS_URL/api/v2/settings" \
    -H "X-WSSE: UsernameToken Username=\"$EMARSYS_USERNAME\", PasswordDigest=\"$wrong\", Nonce=\"$nonce\", Created=\"$created\""

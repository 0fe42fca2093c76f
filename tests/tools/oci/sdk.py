#!/usr/bin/env python3
"""Oracle's own SDK for Python as a caller of the stand-in for Oracle Cloud, and as a signer to compare others with.

    sdk.py --endpoint URL --key-id TENANCY/USER/FINGERPRINT --key-file FILE
        Publishes messages and posts metrics as a user, and checks that answers are as documented and that the SDK makes
        of planned faults what it says it does.
    sdk.py --endpoint URL --instance
        The same start by an instance principal: certificate, exchange, a signed request, a token that was revoked.
    sdk.py --tls-endpoint URL --endpoint URL --ca-file FILE --service-account-token TOKEN
        The same by a pod with workload identity.
    sdk.py --sign --key-id TENANCY/USER/FINGERPRINT --key-file FILE <request.json
        Signs the request {"method", "url", "headers", "body"} with the SDK's signer and prints {"authorization",
        "signing_string", "headers"}. Put `date` into the headers: signatures are then the same each time. Where the
        request has "signed", a list of names, these are signed, in their order, instead of the SDK's own choice.

Needs Python 3.9 and `pip install oci==2.189.0`. Ends with 1 where a check failed.
"""

import argparse
import datetime
import json
import os
import sys
import time
import urllib.parse
import urllib.request

import oci
from oci._vendor import requests
from oci._vendor.httpsig_cffi.utils import generate_message
from oci.monitoring.models import Datapoint, MetricDataDetails, PostMetricDataDetails
from oci.ons.models import MessageDetails

FAILED = []


def check(claim, holds, detail=""):
    print(f"{'ok  ' if holds else 'FAIL'} {claim}{f': {detail}' if detail != '' else ''}")
    if not holds:
        FAILED.append(claim)


class StandIn:
    """The stand-in's own interface, /stand-in/…"""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def get(self, path):
        with urllib.request.urlopen(f"{self.endpoint}/stand-in/{path}") as answer:
            return json.load(answer)

    def post(self, path, **body):
        request = urllib.request.Request(
            f"{self.endpoint}/stand-in/{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def statuses(self, service, since):
        return [one["status"] for one in self.get(f"received?service={service}")[since:]]

    def count(self, service):
        return len(self.get(f"received?service={service}"))


def refused(call):
    """Status and code of the error that a call ends with."""
    try:
        call()
    except oci.exceptions.ServiceError as error:
        return error.status, error.code
    return None


def message(title):
    return MessageDetails(title=title, body=json.dumps({"score": 0.97, "currency": "€"}))


def metric(name, **changes):
    now = datetime.datetime.now(datetime.timezone.utc)
    details = {
        "namespace": "fraud_pipeline",
        "compartment_id": "ocid1.compartment.oc1..c",
        "name": name,
        "dimensions": {"service": "scorer"},
        "metadata": {"unit": "ms"},
        "datapoints": [Datapoint(timestamp=now, value=12.5, count=1)],
    }
    return MetricDataDetails(**{**details, **changes})


def post_metrics(client, metrics, **more):
    return client.post_metric_data(PostMetricDataDetails(metric_data=metrics, **more))


def try_notifications(client, stand_in, topic):
    answer = client.publish_message(topic, message("published"))
    check("a message is accepted with 202", answer.status == 202, answer.status)
    kept = stand_in.get("messages")[-1]
    check("it is kept under the id that was answered", kept["messageId"] == answer.data.message_id)
    check("its text arrives as sent", json.loads(kept["body"])["currency"] == "€")
    check("the answer has a time and a request id", bool(answer.data.time_stamp and answer.request_id))
    received = stand_in.get("received?service=notifications")[-1]
    print("     signed:", received["headers"]["authorization"].split("keyId")[0])

    def plan(n, **fault):
        stand_in.post("answer-next", service="notifications", n=n, **fault)
        return stand_in.count("notifications")

    def publish(title, **more):
        return client.publish_message(topic, message(title), **more)

    since = plan(1, status=429, code="TooManyRequests", retryAfter=20)
    error = refused(lambda: publish("not retried"))
    check("by default a 429 is not retried", error == (429, "TooManyRequests"), error)
    check("and one request was made", stand_in.statuses("notifications", since) == [429])

    retry = {"retry_strategy": oci.retry.DEFAULT_RETRY_STRATEGY}
    since = plan(1, status=429, code="TooManyRequests", retryAfter=20)
    begun = time.monotonic()
    answer = publish("retried", **retry)
    took = time.monotonic() - begun
    statuses = stand_in.statuses("notifications", since)
    check("with the default strategy a 429 is retried", statuses == [429, 202], statuses)
    check("after a time of its own, not that of Retry-After", took < 20, f"{took:.1f} s of 20 s")

    for status, code, again in [
        (401, "NotAuthenticated", False),
        (404, "NotAuthorizedOrNotFound", False),
        (409, "IncorrectState", True),
        (409, "InvalidatedRetryToken", False),
        (500, "InternalServerError", True),
        (501, "MethodNotImplemented", False),
        (503, "ServiceUnavailable", True),
    ]:
        since = plan(1, status=status, code=code)
        error = refused(lambda: publish(f"after {status}", **retry))
        statuses = stand_in.statuses("notifications", since)
        expected = [status, 202] if again else [status]
        what = "is" if again else "is not"
        check(f"{status} {code} {what} retried", statuses == expected, f"{statuses} {error or ''}")

    before = len(stand_in.get("messages"))
    stand_in.post("drop-next", service="notifications", n=1)
    publish("ambiguous", **retry)
    twice = len(stand_in.get("messages")) - before
    check("a message whose answer was lost is published again", twice == 2, f"{twice} times")

    error = refused(lambda: client.publish_message(topic, MessageDetails(body="x" * 66_000)))
    check("more than 64 KB is refused", error == (413, "PayloadTooLarge"), error)


def try_monitoring(client, stand_in):
    answer = post_metrics(client, [metric("latency")])
    check("metrics are accepted with 200", answer.status == 200, answer.status)
    check("none of them failed", answer.data.failed_metrics_count == 0)
    check("they are kept", stand_in.get("metrics")[-1]["name"] == "latency")
    old = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=3)
    bad = metric("late", datapoints=[Datapoint(timestamp=old, value=1.0)])
    answer = post_metrics(client, [metric("good"), bad])
    failed = answer.data.failed_metrics
    check("a bad metric fails within a 200", (answer.status, len(failed)) == (200, 1), failed[0].message)
    check("and comes back as it was sent", failed[0].metric_data.name == "late")
    error = refused(lambda: post_metrics(client, [metric("good"), bad], batch_atomicity="ATOMIC"))
    check("an atomic call fails with it", error == (400, "InvalidParameter"), error)
    many = [metric("wide", dimensions={"n": str(number)}) for number in range(51)]
    error = refused(lambda: post_metrics(client, many))
    check("more than 50 streams are refused", error == (400, "InvalidParameter"), error)


def as_user(args, stand_in):
    tenancy, user, fingerprint = args.key_id.split("/")
    config = {
        "tenancy": tenancy,
        "user": user,
        "fingerprint": fingerprint,
        "key_file": args.key_file,
        "region": "us-ashburn-1",
    }
    notifications = oci.ons.NotificationDataPlaneClient(config, service_endpoint=args.endpoint)
    monitoring = oci.monitoring.MonitoringClient(config, service_endpoint=args.endpoint)
    try_notifications(notifications, stand_in, args.topic)
    try_monitoring(monitoring, stand_in)


def with_token(signer, args, stand_in):
    """Publishes under a session token, and again after it was revoked."""
    client = oci.ons.NotificationDataPlaneClient({}, signer=signer, service_endpoint=args.endpoint)
    answer = client.publish_message(args.topic, message("with a token"))
    check("a message signed with a session token is accepted", answer.status == 202)
    check("under that token", stand_in.get("received?service=notifications")[-1]["keyId"].startswith("ST$"))
    issued = stand_in.get("tokens-issued")
    stand_in.post("revoke-tokens")
    since = stand_in.count("notifications")
    answer = client.publish_message(args.topic, message("with another token"))
    statuses = stand_in.statuses("notifications", since)
    check("after a 401 the SDK gets another token and asks once more", statuses == [401, 202], statuses)
    more = stand_in.get("tokens-issued") - issued
    check("with one exchange", more == 1, more)


def as_instance(args, stand_in):
    os.environ["OCI_METADATA_BASE_URL"] = f"{args.endpoint}/opc/v2"
    signer = oci.auth.signers.InstancePrincipalsSecurityTokenSigner(
        federation_endpoint=f"{args.endpoint}/v1/x509"
    )
    exchange = stand_in.get("received?service=federation")[-1]
    print("     exchange under:", exchange["keyId"])
    with_token(signer, args, stand_in)


class Token:
    def __init__(self, token):
        self.token = token

    def get_sa_token(self):
        return self.token


def as_workload(args, stand_in):
    at = urllib.parse.urlparse(args.tls_endpoint)
    signer = oci.auth.signers.OkeWorkloadIdentityResourcePrincipalSigner(
        Token(args.service_account_token), args.ca_file, at.hostname, at.port, region="us-ashburn-1"
    )
    with_token(signer, args, stand_in)


def sign(args):
    asked = json.load(sys.stdin)
    body = asked.get("body")
    request = requests.Request(
        asked["method"],
        asked["url"],
        headers=asked.get("headers") or {},
        data=body.encode() if isinstance(body, str) else None,
    ).prepare()
    if args.key_id.startswith("ST$"):
        key = oci.signer.load_private_key_from_file(args.key_file)
        signer = oci.auth.signers.SecurityTokenSigner(args.key_id.removeprefix("ST$"), key)
    else:
        signer = oci.signer.Signer(*args.key_id.split("/"), args.key_file)
    if asked.get("signed"):
        signer.create_signers(args.key_id, signer.private_key, asked["signed"], [])
    signed = signer(request)
    body_signed = request.method in ("POST", "PUT", "PATCH")
    names = (signer._body_signer if body_signed else signer._basic_signer).headers
    host = urllib.parse.urlparse(request.url).netloc
    text = generate_message(names, signed.headers, host, request.method, request.path_url)
    print(
        json.dumps(
            {
                "authorization": signed.headers["authorization"],
                "signing_string": text.decode(),
                "headers": {name.lower(): value for name, value in signed.headers.items()},
            },
            indent=2,
        )
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sign", action="store_true")
    parser.add_argument("--endpoint")
    parser.add_argument("--key-id")
    parser.add_argument("--key-file")
    parser.add_argument("--topic", default="ocid1.onstopic.oc1..topic")
    parser.add_argument("--instance", action="store_true")
    parser.add_argument("--tls-endpoint")
    parser.add_argument("--ca-file")
    parser.add_argument("--service-account-token")
    args = parser.parse_args()
    if args.sign:
        sign(args)
        return 0
    if not args.endpoint:
        parser.error("--endpoint is needed")
    stand_in = StandIn(args.endpoint)
    if args.instance:
        as_instance(args, stand_in)
    elif args.tls_endpoint:
        as_workload(args, stand_in)
    else:
        as_user(args, stand_in)
    print(f"{len(FAILED)} failed")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())

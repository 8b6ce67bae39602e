"""Pays an order, once, however often it is run:  pay.py ORDER AMOUNT TOKEN

PAYONCE_URL and PAYONCE_API_KEY name the service and the merchant.
"""

import os
import random
import sys
import time

import requests


class Refused(Exception):
    """Declined, not valid, or another request's key: sending it again changes nothing. `charged` says whether the key paid."""


class NotKnownYet(Exception):
    """Run it again later: the same key finds the outcome."""


def pay(order: str, amount: str, token: str) -> dict:
    # Derived from the order and not random, so that a second run, even after a crash, sends the same key and request.
    headers = {
        "Authorization": f"Bearer {os.environ['PAYONCE_API_KEY']}",
        "Idempotency-Key": f"order-{order}",
    }
    request = {
        "amount": amount,  # a string: a float may not be what was meant
        "currency": "USD",
        "paymentMethod": {"type": "CARD", "token": token},
    }
    for attempt in range(8):
        if attempt > 0:
            print(f"order {order}: not known yet; trying again in {pause:.1f} s", file=sys.stderr)
            time.sleep(pause)
        # As long as the service says; otherwise a growing, random pause, so that clients don't retry all at once.
        pause = random.uniform(0.1, 0.1 * 2**attempt)
        try:
            # Longer than the service waits for its gateway (10 s).
            answer = requests.post(
                f"{os.environ['PAYONCE_URL']}/v1/payments", json=request, headers=headers, timeout=15
            )
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            continue  # no answer: it may have been paid, and the same key finds out
        if answer.status_code in (200, 201):
            return answer.json()
        if not is_worth_another_try(answer):
            raise Refused(answer.text)
        after = answer.headers.get("Retry-After", "")
        pause = int(after) if after.isdigit() else pause
    raise NotKnownYet(order)


def is_worth_another_try(answer: requests.Response) -> bool:
    if answer.status_code == 202 or answer.status_code >= 500:
        return True
    try:
        return answer.json().get("retry") == "same-key"
    except ValueError:  # not the service's own answer
        return False


if __name__ == "__main__":
    arguments = sys.argv[1:]
    settings = [os.environ.get("PAYONCE_URL", ""), os.environ.get("PAYONCE_API_KEY", "")]
    # An order that is not set must not be paid as the order "".
    if len(arguments) != 3 or not all(arguments + settings) or "://" not in settings[0]:
        print("usage: PAYONCE_URL=http://… PAYONCE_API_KEY=sk_… pay.py ORDER AMOUNT TOKEN, none of them empty", file=sys.stderr)
        sys.exit(2)
    try:
        print(pay(*arguments))
    except Refused as problem:
        sys.exit(str(problem))
    except NotKnownYet as order:
        print(f"order {order}: the outcome is not known yet; run this again", file=sys.stderr)
        sys.exit(75)

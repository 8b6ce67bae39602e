"""Payments through a proxy by clients that try nothing again: whatever is lost, the service lost.

    load.py URL API_KEY CLIENTS STOP_FILE

Each client keeps its connection, sends a request's head and its body apart, and goes on until STOP_FILE exists. Prints the number
of payments that got their 201 and the longest wait. The exit status is 1 if any got another answer, or none.
"""

import http.client
import json
import os
import sys
import threading
import time
import urllib.parse

url, api_key, clients, stop_file = sys.argv[1:]
host = urllib.parse.urlsplit(url).netloc
card = {"cardNumber": "4242424242424242", "cvv": "123", "expiryMonth": "12", "expiryYear": "2031", "cardHolderName": "Test User"}
paid, longest, lost = 0, 0.0, []
lock = threading.Lock()


def pay(connection, key):
    body = json.dumps({
        "amount": "10.00",
        "currency": "USD",
        "paymentMethod": {"type": "CARD", "details": card},
        "customer": {"id": "cus_1", "email": "test@example.com", "name": "Test User"},
    }).encode()
    connection.putrequest("POST", "/v1/payments")
    for name, value in {
        "Authorization": f"Bearer {api_key}",
        "Idempotency-Key": key,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }.items():
        connection.putheader(name, value)
    connection.endheaders()
    # A moment in which the head is on its way alone.
    time.sleep(0.01)
    connection.send(body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def client(number):
    global paid, longest
    connection = http.client.HTTPConnection(host, timeout=60)
    count = 0
    while not os.path.exists(stop_file):
        count += 1
        started = time.monotonic()
        try:
            status, body = pay(connection, f"load-{os.getpid()}-{number}-{count}")
            problem = None if status == 201 else f"{status} {body[:200]!r}"
        except Exception as error:  # Whatever ends the connection counts.
            problem = repr(error)
            connection.close()
        with lock:
            longest = max(longest, time.monotonic() - started)
            if problem is None:
                paid += 1
            else:
                lost.append(problem)


threads = [threading.Thread(target=client, args=(number,)) for number in range(int(clients))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"paid": paid, "lost": len(lost), "longestSeconds": round(longest, 2)}))
for problem in lost[:5]:
    print(problem, file=sys.stderr)
sys.exit(1 if lost or not paid else 0)

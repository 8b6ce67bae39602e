// Pays an order, once, however often it is run:  node pay.mjs ORDER AMOUNT TOKEN
// PAYONCE_URL and PAYONCE_API_KEY name the service and the merchant.

import { setTimeout as sleep } from "node:timers/promises";

const { PAYONCE_URL, PAYONCE_API_KEY } = process.env;

/** The payment; or an Error, whose `refused` says that sending it again changes nothing. Its `charged` says whether the key paid. */
async function pay(order, amount, token) {
  const request = {
    method: "POST",
    headers: {
      Authorization: `Bearer ${PAYONCE_API_KEY}`,
      // Derived from the order and not random, so that a second run, even after a crash, sends the same key and request.
      "Idempotency-Key": `order-${order}`,
      "Content-Type": "application/json",
    },
    // The amount is a string: a float may not be what was meant.
    body: JSON.stringify({ amount, currency: "USD", paymentMethod: { type: "CARD", token } }),
  };
  for (let attempt = 0; attempt < 8; attempt++) {
    // As long as the service says; otherwise a growing, random pause, so that clients don't retry all at once.
    let pause = 100 + Math.random() * 100 * 2 ** attempt;
    let why = "no answer";
    try {
      // Longer than the service waits for its gateway (10 s).
      const answer = await fetch(`${PAYONCE_URL}/v1/payments`, { ...request, signal: AbortSignal.timeout(15_000) });
      const text = await answer.text();
      if (answer.status === 200 || answer.status === 201) return JSON.parse(text);
      why = `status ${answer.status}`;
      if (!isWorthAnotherTry(answer.status, text)) throw Object.assign(new Error(text), { refused: true });
      const after = answer.headers.get("Retry-After") ?? "";
      if (/^\d+$/.test(after)) pause = 1000 * Number(after);
    } catch (error) {
      // No answer: it may have been paid, and the same key finds out.
      if (error.refused) throw error;
    }
    console.error(`order ${order}: not known yet (${why}); trying again in ${(pause / 1000).toFixed(1)} s`);
    await sleep(pause);
  }
  throw new Error(`order ${order}: the outcome is not known yet; run this again`);
}

function isWorthAnotherTry(status, text) {
  if (status === 202 || status >= 500) return true;
  try {
    return JSON.parse(text).retry === "same-key";
  } catch {
    return false; // not the service's own answer
  }
}

const given = process.argv.slice(2);
// An order that is not set must not be paid as the order "undefined".
if (given.length !== 3 || ![...given, PAYONCE_API_KEY].every(Boolean) || !URL.canParse(PAYONCE_URL)) {
  console.error("usage: PAYONCE_URL=http://… PAYONCE_API_KEY=sk_… node pay.mjs ORDER AMOUNT TOKEN, none of them empty");
  process.exit(2);
}
try {
  console.log(JSON.stringify(await pay(...given)));
} catch (error) {
  console.error(error.message);
  process.exitCode = error.refused ? 1 : 75;
}

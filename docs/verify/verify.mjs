// Verifies requests of Tidings; see README.md.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { argv, env, exit } from "node:process";
import { pathToFileURL } from "node:url";

const TOLERANCE_SECONDS = 300;

/** Throws unless the request was signed with `secret` just now; `body` is a Buffer. */
export function verifyEds(secret, webhookId, timestamp, signatures, body, now = Date.now() / 1000) {
  if (!/^[0-9]+$/.test(timestamp)) throw new Error("the timestamp is not a number");
  if (Math.abs(now - Number(timestamp)) > TOLERANCE_SECONDS) {
    throw new Error("the timestamp is too far from now");
  }
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const hmac = createHmac("sha256", key).update(`${webhookId}.${timestamp}.`).update(body);
  const expected = `v1,${hmac.digest("base64")}`;
  if (!signatures.split(" ").some((signature) => isSame(signature, expected))) {
    throw new Error("no signature fits");
  }
}

/** Throws unless the body was signed with `key`. */
export function verifyMerchant(key, signature, body) {
  const expected = createHmac("sha256", key).update(body).digest("hex");
  if (!isSame(signature, expected)) throw new Error("the signature does not fit");
}

function isSame(one, other) {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

if (import.meta.url === pathToFileURL(argv[1]).href) {
  const [secret, body, given] = [env.WEBHOOK_SECRET, readFileSync(0), argv.slice(2)];
  try {
    if (given.length === 3) verifyEds(secret, ...given, body);
    else if (given.length === 1) verifyMerchant(secret, given[0], body);
    else throw new Error("usage: verify.mjs ID TIMESTAMP SIGNATURES | verify.mjs X_SIGNATURE");
  } catch (error) {
    console.error(`not verified: ${error.message}`);
    exit(1);
  }
  console.log("verified");
}

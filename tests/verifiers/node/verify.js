// Judges requests as a receiver in JavaScript would.
//
// Reads a JSON file with a list of requests; says how many verified and how many
// were refused, and ends with 1 when one was judged otherwise than it says.

const crypto = require("node:crypto");
const fs = require("node:fs");
const { Webhook, WebhookVerificationError } = require("standardwebhooks");

function verifiesV1(request, body) {
  try {
    new Webhook(request.secret).verify(body.toString("utf8"), request.headers);
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

function verifiesV1a(request, body) {
  const { headers } = request;
  const start = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`;
  const signed = Buffer.concat([Buffer.from(start), body]);
  const signatures = headers["webhook-signature"]
    .split(" ")
    .filter((text) => text.startsWith("v1a,"))
    .map((text) => Buffer.from(text.slice("v1a,".length), "base64"));
  return request.keys.some((x) => {
    const key = crypto.createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
    return signatures.some((signature) => crypto.verify(null, signed, key, signature));
  });
}

const counts = { true: 0, false: 0 };
for (const request of JSON.parse(fs.readFileSync(process.argv[2], "utf8"))) {
  const body = Buffer.from(request.body, "base64");
  for (const [scheme, verifies] of [["v1", verifiesV1], ["v1a", verifiesV1a]]) {
    const found = verifies(request, body);
    if (found !== request[scheme]) {
      console.error(`${request.name}: ${scheme} is ${found}`);
      process.exit(1);
    }
    counts[found] += 1;
  }
}
console.log(`verified ${counts.true} refused ${counts.false}`);

// An authorization server for the tests: clients that sign in with a key or a secret,
// access tokens that are JWTs, bound to a certificate where the client wants that.
// Takes {"clients":[…],"claims":{…}} as its argument, prints its address, and ends
// with its standard input.

import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";

const { clients, claims } = JSON.parse(process.argv[2]);
const jwk = (type, options, algorithm) => {
  const key = generateKeyPairSync(type, options).privateKey.export({ format: "jwk" });
  return { ...key, use: "sig", alg: algorithm };
};
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients,
    jwks: { keys: [jwk("rsa", { modulusLength: 2048 }, "PS256"), jwk("ec", { namedCurve: "P-256" }, "ES256")] },
    clientDefaults: { id_token_signed_response_alg: "ES256", grant_types: ["client_credentials"], redirect_uris: [], response_types: [] },
    extraTokenClaims: (_context, token) => claims[token.clientId],
    enabledJWA: { clientAuthSigningAlgValues: ["EdDSA", "ES256", "RS256"] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        // As a proxy that ends TLS passes it on.
        getCertificate: (context) => decodeURIComponent(context.get("x-client-certificate")) || undefined,
      },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "https://tidings.example",
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: "eds.read eds.write admin",
          audience: "tidings",
          accessTokenFormat: "jwt",
          accessTokenTTL: 600,
          jwt: { sign: { alg: "PS256" } },
        }),
      },
    },
    scopes: ["eds.read", "eds.write", "admin"],
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));

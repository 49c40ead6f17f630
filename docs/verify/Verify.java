// Verifies requests of Tidings; see README.md.

import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import java.util.HexFormat;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public final class Verify {
    static final long TOLERANCE_SECONDS = 300;

    /** What is wrong with a request. */
    static final class Refused extends Exception {
        Refused(String message) {
            super(message);
        }
    }

    /** Throws unless the request was signed with {@code secret} just now. */
    static void eds(
            String secret, String id, String timestamp, String signatures, byte[] body, Instant now)
            throws Refused, GeneralSecurityException {
        if (!timestamp.matches("[0-9]{1,18}")) {
            throw new Refused("the timestamp is not a number");
        }
        if (Math.abs(now.getEpochSecond() - Long.parseLong(timestamp)) > TOLERANCE_SECONDS) {
            throw new Refused("the timestamp is too far from now");
        }
        byte[] key = Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""));
        byte[] tag = hmac(key, bytes(id + "." + timestamp + "."), body);
        byte[] expected = bytes("v1," + Base64.getEncoder().encodeToString(tag));
        for (String signature : signatures.split(" ")) {
            if (MessageDigest.isEqual(bytes(signature), expected)) {
                return;
            }
        }
        throw new Refused("no signature fits");
    }

    /** Throws unless the body was signed with {@code key}. */
    static void merchant(String key, String signature, byte[] body)
            throws Refused, GeneralSecurityException {
        String expected = HexFormat.of().formatHex(hmac(bytes(key), body));
        if (!MessageDigest.isEqual(bytes(signature), bytes(expected))) {
            throw new Refused("the signature does not fit");
        }
    }

    private static byte[] hmac(byte[] key, byte[]... parts) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        for (byte[] part : parts) {
            mac.update(part);
        }
        return mac.doFinal();
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    public static void main(String[] given) throws Exception {
        String secret = System.getenv("WEBHOOK_SECRET");
        byte[] body = System.in.readAllBytes();
        try {
            switch (given.length) {
                case 3 -> eds(secret, given[0], given[1], given[2], body, Instant.now());
                case 1 -> merchant(secret, given[0], body);
                default -> throw new Refused("usage: ID TIMESTAMP SIGNATURES | X_SIGNATURE");
            }
        } catch (Refused refused) {
            System.err.println("not verified: " + refused.getMessage());
            System.exit(1);
        }
        System.out.println("verified");
    }
}

// Judges requests as a receiver in Go would.
//
// Reads a JSON file with a list of requests; says how many verified and how many
// were refused, and ends with 1 when one was judged otherwise than it says.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type request struct {
	Name    string            `json:"name"`
	Secret  string            `json:"secret"`
	Keys    []string          `json:"keys"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`
	V1      bool              `json:"v1"`
	V1a     bool              `json:"v1a"`
}

func verifiesV1(request request) bool {
	webhook, err := standardwebhooks.NewWebhook(request.Secret)
	if err != nil {
		fail(err)
	}
	headers := http.Header{}
	for name, value := range request.Headers {
		headers.Set(name, value)
	}
	return webhook.Verify(request.Body, headers) == nil
}

func verifiesV1a(request request) bool {
	start := request.Headers["webhook-id"] + "." + request.Headers["webhook-timestamp"] + "."
	signed := append([]byte(start), request.Body...)
	for _, text := range strings.Split(request.Headers["webhook-signature"], " ") {
		encoded, found := strings.CutPrefix(text, "v1a,")
		if !found {
			continue
		}
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			fail(err)
		}
		for _, key := range request.Keys {
			public, err := base64.RawURLEncoding.DecodeString(key)
			if err != nil {
				fail(err)
			}
			if ed25519.Verify(public, signed, signature) {
				return true
			}
		}
	}
	return false
}

func fail(what any) {
	fmt.Fprintln(os.Stderr, what)
	os.Exit(1)
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fail(err)
	}
	var requests []request
	if err := json.Unmarshal(text, &requests); err != nil {
		fail(err)
	}
	verified, refused := 0, 0
	judge := func(name, scheme string, found, expected bool) {
		if found != expected {
			fail(fmt.Sprintf("%s: %s is %v", name, scheme, found))
		}
		if found {
			verified++
		} else {
			refused++
		}
	}
	for _, request := range requests {
		judge(request.Name, "v1", verifiesV1(request), request.V1)
		judge(request.Name, "v1a", verifiesV1a(request), request.V1a)
	}
	fmt.Printf("verified %d refused %d\n", verified, refused)
}

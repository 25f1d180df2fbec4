// Package apiservertest holds requests to the Kubernetes API beside the answers that an unmodified kube-apiserver gave to them, and
// compares those with the answers of another server: status codes, reasons, messages, details, warnings, objects after defaulting, tables.
//
// A server under test knows the bearer tokens of [Users], serves RBAC, and has no controllers running:
//
//	s, err := apiserver.New(st, apiserver.Options{Listen: []string{"127.0.0.1:0"}, Tokens: apiservertest.Users()})
//	...
//	apiservertest.Run(t, apiservertest.Server{URL: s.URL(), Client: client}, apiservertest.Options{Differences: known})
//
// The files in testdata are scripts, each run in a namespace of its own, in which a request may depend on those before it:
//
//	=== title
//	METHOD /path
//	Header: value
//
//	body
//	--- 201
//	> Warning: 299 - "text"
//	the answer as YAML
//
// In requests {ns} is the namespace, {rv}, {uid} and {continue} are those of the last answer that had one, and {x*1000} is x a thousand times. What differs
// from run to run (times, UIDs, resource versions, allocated addresses and ports) is replaced by words in capitals. The header User names who asks
// (admin), Encode: protobuf encodes the body, and Settle: true waits a moment if [Options] say so, and Managed: true keeps managed fields in the answer, which are left out otherwise.
//
// The package does not compare watches longer than a second, nor streams.
package apiservertest

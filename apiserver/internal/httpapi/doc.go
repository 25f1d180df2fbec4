// Package httpapi is the adapter between HTTP and the typed core: routing, authentication,
// content negotiation, decoding, encoding, discovery, health and metrics.
//
// It decides nothing about objects. Lists and watches are concatenations of the encodings
// that the core's objects keep; nothing is encoded twice.
package httpapi

// Package inproc gives the components of the same process the typed core as the interfaces of controller-runtime:
// client.WithWatch and cache.Cache. Nothing is serialized; authorization, admission, defaulting and validation are
// those of every request.
//
// The client copies objects in and out, as one across a wire does. The cache keeps no objects of its own: its informers
// hand out the shared, immutable objects of the API server's object cache, which handlers must not modify; reads are copies unless
// UnsafeDisableDeepCopy is asked for, and are always up to date with what the process has written.
package inproc
